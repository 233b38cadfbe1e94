from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper

from helpers.cost_graphs import model, peak_activation_bytes, runtime_block, small_net, value, weight
from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.devices.device import Device
from latency_models.errors import UnknownShapeError

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


def test_elementwise_cannot_overwrite_what_is_still_needed_and_arithmetic_not_at_all() -> None:
    square = [weight("w", 10, 10)]
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["s"]),
        node("Mul", ["a", "s"], ["m"]),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    assert peak(nodes, square) == 3  # a, s, m
    # Here x is needed to the end.
    assert peak([*nodes[:3], node("MatMul", ["m", "w"], ["n"]), node("Add", ["n", "x"], ["y"])], square) == 4


def test_operators_without_a_kernel_are_counted_as_they_are_written_out() -> None:
    square = [weight("w", 10, 10)]
    for op_type in ("Mish", "HardSwish"):  # x, its softplus or gate, and the product
        nodes = [node("MatMul", ["x", "w"], ["a"]), node(op_type, ["a"], ["m"]), node("MatMul", ["m", "w"], ["y"])]
        net = model(nodes, [value("x", [1, 10])], [value("y", [1, 10])], square, opset=18)
        assert peak_activation_bytes(net) == 3 * 40
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Sigmoid", ["a"], ["s"]), node("Mul", ["s", "a"], ["m"])]
    assert peak([*nodes, node("MatMul", ["m", "w"], ["y"])], square) == 2  # one kernel


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
    # Without blocks: x (3·64) beside the convolution's result (4·64).
    assert peak_activation_bytes(small_net(), block=1) == (3 + 4) * 64 * 4
    assert peak_activation_bytes(small_net(), 5, block=1) == 5 * (3 + 4) * 64 * 4


def test_blocks_are_filled_up_and_copied_out_of() -> None:
    # 4 channels take a whole block of 16 or 8, copied out (4) for a pool that wants whole blocks.
    assert peak_activation_bytes(small_net()) == (16 + 4) * 64 * 4
    assert peak_activation_bytes(small_net(), block=8) == (8 + 4) * 64 * 4
    # With 16 channels nothing is padded or copied: x (3·64) beside the result (16·64).
    assert peak_activation_bytes(conv_relu(3, 16)) == (3 + 16) * 64 * 4


def conv_relu(inputs: int, outputs: int, activation: str = "Relu") -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node(activation, ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["y"]),
    ]
    sizes = [value("x", [1, inputs, 8, 8])], [value("y", [1, outputs, 1, 1])]
    return model(nodes, *sizes, [weight("w", outputs, inputs, 3, 3)])


def test_what_is_not_fused_leaves_the_blocks() -> None:
    # Elu wants the plain layout: the copy out of the blocks beside them; Elu itself works in place.
    assert peak_activation_bytes(conv_relu(3, 16, "Elu")) == (16 + 16) * 64 * 4
    # Abs doesn't work in place, but takes the blocks that the copy left.
    assert peak_activation_bytes(conv_relu(3, 16, "Abs")) == (16 + 16) * 64 * 4


def test_a_dead_buffer_is_kept_for_a_later_value_of_its_shape() -> None:
    square, narrow, wide = weight("w", 10, 10), weight("v", 10, 5), weight("u", 5, 10)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "v"], ["b"]),  # a is dead from here on …
        node("MatMul", ["b", "o"], ["c"]),
        node("MatMul", ["c", "u"], ["d"]),  # … and taken again here
        node("MatMul", ["d", "w"], ["y"]),
    ]
    net = model(nodes, [value("x", [1, 10])], [value("y", [1, 10])], [square, narrow, wide, weight("o", 5, 5)])
    assert peak_activation_bytes(net) == (10 + 5 + 5) * 4


def test_unknown_shapes_are_said() -> None:
    nodes = [node("Mystery", ["x"], ["m"], domain="nowhere"), node("Mystery", ["m"], ["y"], domain="nowhere")]
    with pytest.raises(UnknownShapeError, match="'m'"):
        peak_activation_bytes(model(nodes, [value("x", [1, 4])], [value("y", [1, 4])]))


def residual_net(channels: int, side: int, expansion: int, activation: str = "Relu") -> onnx.ModelProto:
    """Convolution, then 2 blocks with a shortcut: 3×3 and 3×3, or inverted with a depthwise one."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(x: str, inputs: int, outputs: int, kernel: int, group: int = 1) -> str:
        name = f"c{len(nodes)}"
        weights.append(weight(f"w{name}", outputs, inputs // group, kernel, kernel))
        nodes.append(node("Conv", [x, f"w{name}"], [name], group=group, pads=[kernel // 2] * 4))
        return name

    def relu(x: str) -> str:
        nodes.append(node(activation, [x], [f"r{len(nodes)}"]))
        return str(nodes[-1].output[0])

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
    return model(nodes, [value("x", [1, 3, side, side])], [value("y", [1, channels, 1, 1])], weights, opset=20)


ACTIVATIONS = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Gelu", "Mish", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Softplus",
)  # fmt: skip
# Copies out of the blocks run in an order that changes from session to session.
TOLERANCE = 0.01


@pytest.mark.parametrize("expansion", [1, 4], ids=["residual", "inverted"])
@pytest.mark.parametrize("channels", [8, 16, 20, 24])
def test_agrees_with_what_onnx_runtime_asks_for(channels: int, expansion: int) -> None:
    net = residual_net(channels=channels, side=32, expansion=expansion)
    counted = counted_peak_bytes(net.SerializeToString(), Device())
    assert peak_activation_bytes(net, block=runtime_block()) == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_agrees_for_every_activation(activation: str) -> None:
    net = residual_net(channels=24, side=16, expansion=4, activation=activation)
    counted = counted_peak_bytes(net.SerializeToString(), Device())
    assert peak_activation_bytes(net, block=runtime_block()) == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["mnist_cntk", "mlperf_tiny_dscnn_kws", "mlperf_tiny_resnet8_cifar10"])
def test_agrees_for_published_files(onnx_models: Path, name: str) -> None:
    path = onnx_models / f"{name}.onnx"
    counted = counted_peak_bytes(path, Device())
    assert peak_activation_bytes(onnx.load_model(path), block=runtime_block()) == pytest.approx(counted, rel=TOLERANCE)
