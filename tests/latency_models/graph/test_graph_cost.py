from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.cost_graphs import count, model, small_net, value, weight
from latency_models.errors import InvalidModelError, UncountableOperatorError, UnknownShapeError
from latency_models.graph.convolutions import SCALE_NOTE

if TYPE_CHECKING:
    from pathlib import Path


def test_small_net_by_hand() -> None:
    net = small_net()
    cost = count(net)
    # 8·8 positions × 4 filters × 27 weights, and 4 × 5 in the last layer.
    assert cost.macs == 64 * 4 * 27 + 4 * 5
    assert cost.params == 4 * 27 + 4 + 5 * 4 + 5
    assert cost.nodes == 5
    assert cost.size_bytes == len(net.SerializeToString())


def test_macs_scale_with_the_batch_and_params_do_not() -> None:
    one, eight = count(small_net(), 1), count(small_net(), 8)
    assert eight.macs == 8 * one.macs
    assert eight.params == one.params


@pytest.mark.parametrize(
    ("node", "weights", "x", "y", "macs"),
    [
        # depthwise, stride 2: 4·4 positions × 6 channels × 9
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
            [weight("w", 6, 1, 3, 3)], [1, 6, 8, 8], [1, 6, 4, 4], 16 * 6 * 9,
        ),
        # a scale for each channel that is a convolution counts as one
        (helper.make_node("Conv", ["x", "w"], ["y"], group=6), [weight("w", 6, 1, 1)], [1, 6, 8], [1, 6, 8], 6 * 8),
        (helper.make_node("Conv", ["x", "w"], ["y"]), [weight("w", 6, 1, 1, 1)], [1, 1, 8, 8], [1, 6, 8, 8], 6 * 64),
        # every one of 3·4·4 inputs meets 5 filters of 2×2
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            [weight("w", 3, 5, 2, 2)], [1, 3, 4, 4], [1, 5, 8, 8], 3 * 16 * 5 * 4,
        ),
        # one-dimensional
        (
            helper.make_node("Conv", ["x", "w"], ["y"]),
            [weight("w", 2, 3, 3)], [1, 3, 10], [1, 2, 8], 8 * 2 * 9,
        ),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [weight("w", 7, 3)], [2, 5, 7], [2, 5, 3], 2 * 5 * 7 * 3),
        (
            helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
            [weight("w", 6, 3)], [6, 2], [2, 3], 6 * 2 * 3,
        ),
        (helper.make_node("Relu", ["x"], ["y"]), [], [1, 3], [1, 3], 0),
    ],
    ids=["depthwise", "scale", "pointwise", "transposed", "1d", "matmul", "gemm-transA", "relu"],
)  # fmt: skip
def test_macs_by_hand(
    node: onnx.NodeProto, weights: list[onnx.TensorProto], x: list[int], y: list[int], macs: int
) -> None:
    assert count(model([node], [value("x", x)], [value("y", y)], weights)).macs == macs


def test_a_scale_that_hwnas_wrote_for_an_activation_is_elementwise() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=6)
    node.metadata_props.add(key=SCALE_NOTE, value="elementwise")
    net = model([node], [value("x", [1, 6, 8])], [value("y", [1, 6, 8])], [weight("w", 6, 1, 1)])
    assert count(net).macs == 0


def test_integer_convolution_counts_as_many_products() -> None:
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8), "w")
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"])
    net = model(
        [node], [value("x", [1, 3, 6, 6], TensorProto.UINT8)], [value("y", [1, 4, 4, 4], TensorProto.INT32)], [w]
    )
    assert count(net).macs == 16 * 4 * 27
    assert count(net).params == 4 * 27


def test_a_product_of_constants_runs_once_at_loading_and_costs_nothing() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["ab"]), helper.make_node("MatMul", ["x", "ab"], ["y"])]
    net = model(nodes, [value("x", [1, 4])], [value("y", [1, 2])], [weight("a", 4, 9), weight("b", 9, 2)])
    assert count(net).macs == 4 * 2


def test_params_take_constants_but_no_settings_and_no_shapes() -> None:
    nodes = [
        helper.make_node("Constant", [], ["slope"], value=weight("", 3, 1, 1)),
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1.0))),
        helper.make_node("PRelu", ["x", "slope"], ["p"]),
        helper.make_node("Add", ["p", "one"], ["q"]),
        helper.make_node("Reshape", ["q", "shape"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([1, 12], np.int64), "shape")
    assert count(model(nodes, [value("x", [1, 3, 2, 2])], [value("y", [1, 12])], [shape])).params == 3


def test_an_open_dimension_beside_the_batch_is_not_guessed() -> None:
    net = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", "width"])], [value("y", ["N", "width"])])
    with pytest.raises(InvalidModelError, match="'width' of input 'x' is not fixed"):
        count(net)


def test_a_fixed_batch_refuses_another() -> None:
    assert count(small_net(batch=4)).macs == 4 * count(small_net()).macs
    with pytest.raises(InvalidModelError, match="fixed at 4"):
        count(small_net(batch=4), batch_size=2)


def test_an_operator_that_nobody_can_count_is_named() -> None:
    nodes = [helper.make_node("Mystery", ["x"], ["m"], domain="nowhere"), helper.make_node("Conv", ["m", "w"], ["y"])]
    net = model(nodes, [value("x", [1, 3, 8, 8])], [value("y", [1, 4, 6, 6])], [weight("w", 4, 3, 3, 3)])
    with pytest.raises(UncountableOperatorError, match=r"nowhere\.Mystery can't be counted"):
        count(net)


def test_an_op_of_unknown_shape_is_said() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("MatMul", ["n", "w"], ["y"])]
    net = model(nodes, [value("x", [1, 8])], [value("y", None)], [weight("w", 8, 3)])
    with pytest.raises(UnknownShapeError, match="'n'"):
        count(net)


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "b", [], [value("z", [1])])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    net = model([node], [value("x", [1]), value("flag", [], TensorProto.BOOL)], [value("y", [1])])
    with pytest.raises(UnknownShapeError, match="control flow"):
        count(net)


def test_external_data_counts_as_size(tmp_path: Path) -> None:
    net = small_net()
    inside = len(net.SerializeToString())
    path = tmp_path / "net.onnx"
    onnx.save_model(net, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    apart = count(onnx.load_model(path, load_external_data=False))
    weights = 4 * (4 * 27 + 4 + 5 * 4 + 5)
    assert apart.size_bytes == path.stat().st_size + weights
    assert inside > weights
    assert apart.params == count(net).params


def test_params_of_real_models(onnx_models: Path) -> None:
    with (onnx_models / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        net = onnx.load_model(onnx_models / row["file"])
        cost = count(net)
        assert (row["file"], cost.params) == (row["file"], int(row["params"]))
        assert cost.nodes == int(row["nodes"])
        assert cost.macs > 0
