"""Products counted by hand, an operator a row, with the sizes that the runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency_models.errors import UncountableOperatorError
from latency_models.graph.macs import known_operators, macs
from latency_models.graph.observed_shapes import observe
from latency_models.graph.weights import params

node = helper.make_node
MS, ML = "com.microsoft", "ai.onnx.ml"


def net(
    nodes: list[onnx.NodeProto],
    feed: dict[str, np.ndarray],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model whose last node's first output is its result."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feed.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in feed.items()]
    outputs = [onnx.ValueInfoProto(name=nodes[-1].output[0])]
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1), helper.make_opsetid(ML, 3)]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, stored), opset_imports=opsets, ir_version=ir_version
    )


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


CASES: dict[str, tuple[onnx.NodeProto, dict[str, np.ndarray], dict[str, np.ndarray], int, int]] = {
    # 4·4 places, 6 filters of 2·3·3 weights
    "Conv, two groups": (
        node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        {"x": ones(1, 4, 8, 8)}, {"w": ones(6, 2, 3, 3)}, 17, 16 * 6 * 2 * 9,
    ),
    # SAME with a stride of 2: ceil(7 / 2) = 4 places
    "Conv, SAME": (
        node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2]),
        {"x": ones(1, 1, 7)}, {"w": ones(1, 1, 3)}, 17, 4 * 3,
    ),
    # each of the 2·5 input values is spread over 3 filters of 4, whatever the stride
    "ConvTranspose": (
        node("ConvTranspose", ["x", "w"], ["y"], strides=[3], output_padding=[1]),
        {"x": ones(1, 2, 5)}, {"w": ones(2, 3, 4)}, 17, 2 * 5 * 3 * 4,
    ),
    "MatMul, broadcast": (
        node("MatMul", ["x", "w"], ["y"]), {"x": ones(5, 1, 2, 3)}, {"w": ones(4, 3, 7)}, 17, 5 * 4 * 2 * 7 * 3,
    ),
    "MatMul, vectors": (node("MatMul", ["x", "w"], ["y"]), {"x": ones(6)}, {"w": ones(6)}, 17, 6),
    "Gemm, both turned": (
        node("Gemm", ["x", "w"], ["y"], transA=1, transB=1), {"x": ones(3, 2)}, {"w": ones(5, 3)}, 17, 2 * 3 * 5,
    ),
    # 3 steps of 2 sequences, 2 directions, 4 gates of 5, each reads 4 inputs and 5 states
    "LSTM": (
        node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5, direction="bidirectional"),
        {"x": ones(3, 2, 4)}, {"w": ones(2, 20, 4), "r": ones(2, 20, 5)}, 17, 3 * 2 * 2 * 20 * (4 + 5),
    ),
    # sequences of 3 and 1 steps
    "GRU, short sequences": (
        node("GRU", ["x", "w", "r", "", "n"], ["y"], hidden_size=2),
        {"x": ones(3, 2, 4), "n": np.array([3, 1], np.int32)}, {"w": ones(1, 6, 4), "r": ones(1, 6, 2)},
        17, 4 * 6 * (4 + 2),
    ),
    # 2 heads share 1 of keys: 3 queries, 1 past and 4 new keys of 8, values of 6
    "Attention, shared heads and a past": (
        node("Attention", ["q", "k", "v", "", "p", "s"], ["y", "nk", "nv"], q_num_heads=2, kv_num_heads=1),
        {
            "q": ones(1, 3, 16), "k": ones(1, 4, 8), "v": ones(1, 4, 6),
            "p": ones(1, 1, 1, 8), "s": ones(1, 1, 1, 6),
        },
        {}, 23, 2 * 3 * 5 * (8 + 6),
    ),
    # the first index is summed before anything is multiplied
    "Einsum, an index of one operand": (
        node("Einsum", ["x", "w"], ["y"], equation="ij,jk->k"), {"x": ones(2, 3)}, {"w": ones(3, 5)}, 17, 3 * 5,
    ),
    "Einsum, three operands": (
        node("Einsum", ["x", "w", "v"], ["y"], equation="ij,jk,kl->il"),
        {"x": ones(2, 3)}, {"w": ones(3, 5), "v": ones(5, 4)}, 17, 2 * 3 * 5 + 2 * 5 * 4,
    ),
    "Einsum, elementwise": (
        node("Einsum", ["x", "w"], ["y"], equation="ij,ij->ij"), {"x": ones(2, 3)}, {"w": ones(2, 3)}, 17, 0,
    ),
    # 2·3 places of a grid, each with a 1 behind its two coordinates, times a 2×3 matrix
    "AffineGrid": (
        node("AffineGrid", ["x", "s"], ["y"]),
        {"x": ones(1, 2, 3)}, {"s": np.array([1, 1, 2, 3], np.int64)}, 20, 2 * 3 * 2 * 3,
    ),
    "FusedMatMul": (
        node("FusedMatMul", ["x", "w"], ["y"], domain=MS, transA=1), {"x": ones(3, 2)}, {"w": ones(3, 5)}, 17, 30,
    ),
    "MatMulNBits": (
        node("MatMulNBits", ["x", "w", "s"], ["y"], domain=MS, K=32, N=4, bits=4, block_size=32),
        {"x": ones(3, 32)}, {"w": ones(4, 1, 16, dtype=np.uint8), "s": ones(4)}, 17, 3 * 32 * 4,
    ),
    # 3 places of 8 projected to 3·4; one head's 3·3 scores of 4 and products with values of 4
    "Attention of ONNX Runtime": (
        node("Attention", ["x", "w", "b"], ["y"], domain=MS, num_heads=1),
        {"x": ones(1, 3, 8)}, {"w": ones(8, 12), "b": ones(12)}, 17, 3 * 8 * 12 + 3 * 3 * (4 + 4),
    ),
    "LinearRegressor": (
        node("LinearRegressor", ["x"], ["y"], domain=ML, targets=2, coefficients=[1.0] * 6, intercepts=[0.0] * 2),
        {"x": ones(4, 3)}, {}, 17, 4 * 6,
    ),
    "products of elements": (node("Mul", ["x", "w"], ["y"]), {"x": ones(4, 3)}, {"w": ones(4, 3)}, 17, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_counted_by_hand(name: str) -> None:
    made, feed, weights, opset, wanted = CASES[name]
    assert macs(observe(net([made], feed, weights, opset), feed)) == wanted


def test_an_operator_without_a_formula_is_named() -> None:
    feed = {"x": ones(1, 8, 1)}
    with pytest.raises(UncountableOperatorError, match="DFT"):
        macs(observe(net([node("DFT", ["x"], ["y"])], feed), feed))


def test_products_inside_a_loop_are_unknown_and_its_other_operators_cost_none() -> None:
    body_inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("more", TensorProto.BOOL, []),
    ]
    feed = {"x": ones(3, 3)}
    for inner, known in (("MatMul", False), ("Add", True)):
        nodes = [node("Identity", ["more"], ["still"]), node(inner, ["x", "x"], ["z"])]
        outputs = [helper.make_tensor_value_info("still", TensorProto.BOOL, []), onnx.ValueInfoProto(name="z")]
        body = helper.make_graph(nodes, "body", body_inputs, outputs)
        shapes = observe(net([node("Loop", ["n", ""], ["y"], body=body)], feed, {"n": np.array(2, np.int64)}), feed)
        if known:
            assert macs(shapes) == 0
        else:
            with pytest.raises(UncountableOperatorError, match="Loop"):
                macs(shapes)


def test_weights_that_a_caller_may_replace_are_multiplied_at_every_run() -> None:
    feed, weights = {"x": ones(2, 2)}, {"a": ones(2, 3), "b": ones(3, 2)}
    nodes = [node("MatMul", ["a", "b"], ["c"]), node("Add", ["x", "c"], ["y"])]
    fixed = net(nodes, feed, weights)
    assert macs(observe(fixed, feed)) == 0
    listed = net(nodes, feed, weights)
    listed.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3]))
    assert macs(observe(listed, feed)) == 2 * 3 * 2
    listed.ir_version = 3  # where every weight is listed, none can be replaced
    listed.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3, 2]))
    assert macs(observe(listed, feed)) == 0


def test_what_is_filled_at_a_size_of_the_input_is_no_weight() -> None:
    feed = {"x": ones(2, 3)}
    stored = net([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], feed, {"s": np.array([2, 3])})
    of_input = net([node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["y"])], feed)
    assert params(stored, observe(stored, feed).dims) == 6
    assert params(of_input, observe(of_input, feed).dims) == 0


def test_no_operator_is_listed_twice() -> None:
    names = list(known_operators())
    assert len(names) == len(set(names))
