"""Which graphs' memory is planned, and plans that were once not the runtime's, held against its own counter."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from helpers.cost_graphs import model, peak_activation_bytes, runtime_block, value, weight
from latency_models.counted_costs import static_costs
from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.devices.device import Device
from latency_models.graph.planned import is_inferable, is_planned

node = helper.make_node


def conv(source: str, result: str, *weights: str, **settings: object) -> onnx.NodeProto:
    return node("Conv", [source, *weights], [result], **settings)


def image(channels: int, *nodes: onnx.NodeProto, weights: list[onnx.TensorProto], opset: int = 17) -> onnx.ModelProto:
    """A graph of an image x of 8×8 to y."""
    return model(list(nodes), [value("x", [1, channels, 8, 8])], [onnx.ValueInfoProto(name="y")], weights, opset)


PLANS = {
    # 18 channels fill no block and aren't a multiple of 4: the sum and its activation become the convolution's
    "a sum folded into a plain convolution": image(
        18, conv("x", "a", "v", "b"), conv("a", "c", "w", "b"), node("Add", ["c", "a"], ["s"]),
        node("Relu", ["s"], ["r"]), node("Exp", ["r"], ["y"]),
        weights=[weight("v", 18, 18, 1, 1), weight("w", 18, 18, 1, 1), weight("b", 18)],
    ),
    "a half that nobody reads": image(
        6, node("Exp", ["x"], ["e"]), node("Split", ["e"], ["p", "q"], axis=1),
        conv("p", "c", "w", "b"), node("Exp", ["c"], ["y"]), weights=[weight("w", 18, 3, 1, 1), weight("b", 18)],
        opset=13,
    ),
    "a pool of the whole input": image(
        32, node("GlobalAveragePool", ["x"], ["p"]), conv("p", "c", "w", "b"), node("Sigmoid", ["c"], ["g"]),
        node("Mul", ["x", "g"], ["y"]), weights=[weight("w", 32, 32, 1, 1), weight("b", 32)],
    ),
    "a result that would be a view": image(
        4, node("Exp", ["x"], ["e"]), node("Exp", ["e"], ["f"]), node("Flatten", ["f"], ["y"]), weights=[],
    ),
    "a gate that is the result": image(
        16, conv("x", "c", "w", "b"), node("HardSwish", ["c"], ["y"]),
        weights=[weight("w", 2, 16, 1, 1), weight("b", 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_is_what_the_runtime_counts(name: str) -> None:
    net = PLANS[name]
    assert is_planned(net)
    assert peak_activation_bytes(net, block=runtime_block()) == counted_peak_bytes(net.SerializeToString(), Device())


def test_quantised_graphs_have_inferred_sizes_and_the_runtimes_memory() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        conv("d", "c", "v"),
        node("QuantizeLinear", ["c", "s", "z"], ["r"]),
        node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    weights = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
        helper.make_tensor("w", TensorProto.INT8, [16, 16, 1, 1], [1] * 256),
    ]
    net = image(16, *nodes, weights=weights)
    assert is_inferable(net)
    assert not is_planned(net)
    content = net.SerializeToString()
    costs = static_costs(content, Device())
    assert costs.macs == 16 * 16 * 64
    assert costs.peak_memory_bytes == counted_peak_bytes(content, Device())


def test_what_the_runtime_sizes_or_fuses_otherwise_isnt_planned() -> None:
    weights = [weight("w", 4, 4, 1, 1)]
    assert is_planned(image(4, conv("x", "y", "w"), weights=weights))
    padded = node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], ceil_mode=1)
    assert not is_inferable(image(4, padded, weights=[]))
    assert not is_inferable(image(4, conv("x", "y", "w", auto_pad="SAME_UPPER"), weights=weights))
    assert not is_inferable(image(4, conv("x", "y", "w"), weights=weights, opset=11))
    assert not is_planned(image(4, node("Transpose", ["x"], ["y"]), weights=[]))
    listed = image(4, conv("x", "y", "w"), weights=weights)
    listed.graph.input.append(value("w", [4, 4, 1, 1]))  # a caller may replace it
    assert not is_planned(listed)
