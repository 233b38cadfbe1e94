"""Sizes as the runtime computes them, where ONNX's own inference says something else or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency_models.errors import InvalidModelError
from latency_models.graph.macs import macs
from latency_models.graph.observed_shapes import observe

node = helper.make_node
X = {"x": np.ones((1, 1, 7, 7), np.float32)}


def net(
    nodes: list[onnx.NodeProto],
    feed: dict[str, np.ndarray] = X,
    weights: dict[str, Any] | None = None,
    opset: int = 17,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    outputs = [onnx.ValueInfoProto(name=nodes[-1].output[0])]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


WINDOWS: dict[str, tuple[onnx.NodeProto, dict[str, Any], int, tuple[int, ...]]] = {
    # (7 + 1 - 2) / 4 + 1 is 2.5, but a third window would begin in the padding at the end: 2
    "ceil_mode": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[4, 4], pads=[0, 0, 1, 1], ceil_mode=1),
        {}, 12, (1, 1, 2, 2),
    ),
    # ONNX says ceil(7 / 2) = 4; the runtime pads as for a window without dilations: (7 + 2 - 5) / 2 + 1 = 3
    "SAME with dilations": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], dilations=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        {}, 12, (1, 1, 3, 3),
    ),
    "output_padding": (
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 1]),
        {"w": np.ones((1, 2, 3, 3), np.float32)}, 17, (1, 2, 16, 16),
    ),
    "Resize by scales": (
        node("Resize", ["x", "", "s"], ["y"]), {"s": np.array([1, 1, 2.3, 0.6], np.float32)}, 17, (1, 1, 16, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_sizes_are_the_runtimes(name: str) -> None:
    made, weights, opset, wanted = WINDOWS[name]
    assert observe(net([made], weights=weights, opset=opset), X).of("y") == wanted


def test_sizes_that_depend_on_values_are_seen() -> None:
    feed = {"x": np.array([0, 1, 0, 2, 3], np.float32)}
    assert observe(net([node("NonZero", ["x"], ["y"])], feed), feed).of("y") == (1, 3)


def test_an_empty_tensor_has_a_shape() -> None:
    feed = {"x": np.ones((1, 0, 4), np.float32)}
    shapes = observe(net([node("MatMul", ["x", "w"], ["y"])], feed, {"w": np.ones((4, 2), np.float32)}), feed)
    assert shapes.of("y") == (1, 0, 2)
    assert macs(shapes) == 0


def test_a_sequence_has_none_but_what_is_taken_out_has() -> None:
    feed = {"x": np.ones((4, 3), np.float32)}
    nodes = [
        node("SplitToSequence", ["x", "n"], ["parts"]),
        node("SequenceAt", ["parts", "at"], ["part"]),
        node("MatMul", ["part", "w"], ["y"]),
    ]
    weights = {"n": np.array([1, 3]), "at": np.array(1), "w": np.ones((3, 2), np.float32)}
    shapes = observe(net(nodes, feed, weights), feed)
    assert shapes.of("part") == (3, 3)
    assert "parts" not in shapes.dims


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [onnx.ValueInfoProto(name=nodes[-1].output[0])])


def product(weight: str, result: str) -> onnx.NodeProto:
    return node("MatMul", ["x", weight], [result])


def test_an_if_costs_the_branch_that_its_values_choose_however_deep() -> None:
    """The branches read weights of the graph around them; one of them holds an If again."""
    weights = {name: np.ones((4, width), np.float32) for name, width in (("a", 2), ("b", 3), ("c", 5))}
    inner = node(
        "If", ["q"], ["z"], then_branch=branch("t", product("b", "m")), else_branch=branch("e", product("c", "m"))
    )
    nodes = [node("If", ["p"], ["y"], then_branch=branch("t", product("a", "m")), else_branch=branch("e", inner))]
    x = np.ones((1, 4), np.float32)
    for first, second, width in ((True, True, 2), (False, True, 3), (False, False, 5)):
        feed = {"x": x, "p": np.array(first), "q": np.array(second)}
        shapes = observe(net(nodes, feed, weights), feed)
        assert shapes.of("y") == (1, width)
        assert macs(shapes) == 4 * width


@pytest.mark.parametrize(("given", "expected"), [(True, 2 * 4 * 4), (None, 0)], ids=["an input decides", "constant"])
def test_what_an_input_decides_is_no_constant(given: bool | None, expected: int) -> None:
    """Both branches hand out a weight: only where the condition is stored can the product be made beforehand."""
    weights = {"a": np.ones((2, 4), np.float32), "b": np.ones((2, 4), np.float32), "w": np.ones((4, 4), np.float32)}
    feed = {} if given is None else {"p": np.array(given)}
    branches = {
        f"{side}_branch": branch(side, node("Identity", [of], ["m"])) for side, of in (("then", "a"), ("else", "b"))
    }
    nodes = [node("If", ["p"], ["y"], **branches), node("MatMul", ["y", "w"], ["z"])]
    stored = weights if feed else {**weights, "p": np.array(True)}
    assert macs(observe(net(nodes, feed, stored), feed)) == expected


def test_sequences_alone_have_no_sizes() -> None:
    feed = {"x": np.ones((3, 4), np.float32)}
    shapes = observe(net([node("SplitToSequence", ["x"], ["parts"])], feed), feed)
    assert "parts" not in shapes.dims
    assert macs(shapes) == 0


@pytest.mark.parametrize("unused", [[], [helper.make_opsetid("ai.onnx.ml", 3)]])
def test_a_function_of_the_model_is_written_out(unused: list[onnx.OperatorSetIdProto]) -> None:
    """Also one that imports another version of a domain than the model, but none of its operators."""
    opsets = [helper.make_opsetid("", 17), *unused]
    body = [node("MatMul", ["p", "q"], ["m"]), node("Relu", ["m"], ["r"])]
    function = helper.make_function("own", "Layer", ["p", "q"], ["r"], body, opsets)
    feed = {"x": np.ones((2, 4), np.float32)}
    call = node("Layer", ["x", "w"], ["y"], domain="own")
    model = net([call], feed, {"w": np.ones((4, 3), np.float32)}, functions=[function])
    model.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 5)])
    shapes = observe(model, feed)
    assert shapes.of("y") == (2, 3)
    assert macs(shapes) == 2 * 4 * 3


def test_a_sparse_weight_has_its_dense_shape() -> None:
    feed = {"x": np.ones((2, 4), np.float32)}
    model = net([node("MatMul", ["x", "w"], ["y"])], feed)
    values = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    at = numpy_helper.from_array(np.array([0, 7], np.int64), "w_at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [4, 3]))
    shapes = observe(model, feed)
    assert shapes.of("w") == (4, 3)
    assert macs(shapes) == 2 * 4 * 3


def test_weights_in_eight_bits_of_float_dont_hide_the_other_sizes() -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [4, 3], [0.5] * 12)
    feed = {"x": np.ones((2, 4), np.float32)}
    nodes = [
        node("Constant", [], ["w"], value=tensor),
        node("DequantizeLinear", ["w", "s"], ["d"]),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    shapes = observe(net(nodes, feed, {"s": np.array(0.1, np.float32)}, opset=19), feed)
    assert macs(shapes) == 2 * 4 * 3


def test_a_model_that_cant_be_run_is_refused_with_the_runtimes_reason() -> None:
    feed = {"x": np.ones((2, 4), np.float32)}
    with pytest.raises(InvalidModelError, match="can't be run"):
        observe(net([node("MatMul", ["x", "w"], ["y"])], feed, {"w": np.ones((3, 3), np.float32)}), feed)
