from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from latency_graphs import model, small_net, value, weight
from onnx import helper

from latency_models.errors import UnknownShapeError
from latency_models.memory import peak_activation_bytes

if TYPE_CHECKING:
    from pathlib import Path

node = helper.make_node


def peak(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto] | None = None, width: int = 10) -> int:
    """Peak in units of one (1, width) float value, for graphs from x to y."""
    net = model(nodes, [value("x", [1, width])], [value("y", [1, width])], weights)
    return peak_activation_bytes(net) // (4 * width)


def test_a_chain_of_products_holds_two() -> None:
    square = [weight("w", 10, 10)]
    chain = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    assert peak(chain, square) == 2


def test_elementwise_works_in_place_but_not_over_the_callers_input() -> None:
    assert peak([node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]) == 2


def test_elementwise_cannot_overwrite_what_is_still_needed() -> None:
    square = [weight("w", 10, 10)]
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Sigmoid", ["a"], ["s"]),
        node("Mul", ["a", "s"], ["m"]),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    assert peak(nodes, square) == 2
    # Here x is needed to the end.
    assert peak([*nodes[:3], node("MatMul", ["m", "w"], ["n"]), node("Add", ["n", "x"], ["y"])], square) == 3


def test_views_take_nothing_and_keep_their_source_alive() -> None:
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [10, 1])
    back = helper.make_tensor("back", onnx.TensorProto.INT64, [2], [1, 10])
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Reshape", ["a", "shape"], ["v"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Reshape", ["v", "back"], ["u"]),
        node("Concat", ["u", "b"], ["c"], axis=0),
        node("ReduceMean", ["c"], ["y"], axes=[0], keepdims=1),
    ]
    # At Concat: a (through its views), b, and c twice as large.
    assert peak(nodes, [weight("w", 10, 10), shape, back]) == 4


def test_an_output_in_the_middle_is_held_to_the_end() -> None:
    square = [weight("w", 10, 10)]
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    net = model(nodes, [value("x", [1, 10])], [value("y", [1, 10]), value("a", [1, 10])], square)
    assert peak_activation_bytes(net) == 3 * 40


def test_the_batch_scales_it() -> None:
    # x (3·64) beside the convolution's result (4·64): the peak of this net.
    assert peak_activation_bytes(small_net()) == (3 + 4) * 64 * 4
    assert peak_activation_bytes(small_net(), 5) == 5 * (3 + 4) * 64 * 4


def test_unknown_shapes_are_said() -> None:
    nodes = [node("Mystery", ["x"], ["m"], domain="nowhere"), node("Mystery", ["m"], ["y"], domain="nowhere")]
    with pytest.raises(UnknownShapeError, match="'m'"):
        peak_activation_bytes(model(nodes, [value("x", [1, 4])], [value("y", [1, 4])]))


def residual_net(channels: int, side: int, expansion: int) -> onnx.ModelProto:
    """Convolution, then 2 blocks with a shortcut: 3×3 and 3×3, or inverted with a depthwise one."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(x: str, inputs: int, outputs: int, kernel: int, group: int = 1) -> str:
        name = f"c{len(nodes)}"
        weights.append(weight(f"w{name}", outputs, inputs // group, kernel, kernel))
        nodes.append(node("Conv", [x, f"w{name}"], [name], group=group, pads=[kernel // 2] * 4))
        return name

    def relu(x: str) -> str:
        nodes.append(node("Relu", [x], [f"r{len(nodes)}"]))
        return nodes[-1].output[0]

    x = relu(conv("x", 3, channels, 3))
    for _ in range(2):
        if expansion == 1:
            y = conv(relu(conv(x, channels, channels, 3)), channels, channels, 3)
        else:
            wide = channels * expansion
            y = relu(conv(relu(conv(x, channels, wide, 1)), wide, wide, 3, wide))
            y = conv(y, wide, channels, 1)
        nodes.append(node("Add", [y, x], [f"s{len(nodes)}"]))
        x = relu(nodes[-1].output[0])
    nodes.append(node("GlobalAveragePool", [x], ["y"]))
    return model(nodes, [value("x", [1, 3, side, side])], [value("y", [1, channels, 1, 1])], weights)


@pytest.mark.parametrize("expansion", [1, 4], ids=["residual", "inverted"])
def test_agrees_with_what_onnx_runtime_asks_for(expansion: int, tmp_path: Path) -> None:
    net = residual_net(channels=16, side=64, expansion=expansion)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(net.SerializeToString(), options)
    session.run(None, {"x": np.zeros((1, 3, 64, 64), np.float32)})
    with open(session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123
        events = json.load(file)
    requested = [event.get("args", {}).get("mem_bytes_requested_in_use") for event in events]
    most = max(int(each) for each in requested if each is not None)
    assert peak_activation_bytes(net) == pytest.approx(most, rel=0.02)
