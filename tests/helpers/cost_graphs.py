"""Small ONNX graphs to count by hand."""

import functools
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from latency_models.devices.device import Device
from latency_models.graph import macs, memory, shapes, weights
from latency_models.graph.external_data import external_bytes
from latency_models.graph.runtime_graph import BLOCK
from latency_models.nodes.runtime_profile import profile_runs

FLOAT = TensorProto.FLOAT


def value(name: str, shape: list[int | str | None], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(len(name))
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.1, name)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    opsets = [helper.make_operatorsetid("", opset), helper.make_operatorsetid("nowhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def small_net(batch: int | str = "N", side: int = 8) -> onnx.ModelProto:
    """x (N, 3, 8, 8) → Conv 3×3 to 4 channels, Relu, GlobalAveragePool, Flatten, Gemm to 5."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "d"], ["y"], transB=1),
    ]
    weights = [weight("w", 4, 3, 3, 3), weight("b", 4), weight("v", 5, 4), weight("d", 5)]
    return model(nodes, [value("x", [batch, 3, side, side])], [value("y", [batch, 5])], weights)


class Counts(NamedTuple):
    macs: int
    params: int
    size_bytes: int
    nodes: int


def count(net: onnx.ModelProto, batch_size: int = 1) -> Counts:
    known = shapes.infer(net, batch_size)
    size = net.ByteSize() + external_bytes(net)
    return Counts(macs.macs(known), weights.params(net, known.dims), size, len(net.graph.node))


def peak_activation_bytes(net: onnx.ModelProto, batch_size: int = 1, block: int = BLOCK) -> int:
    return memory.peak_bytes(shapes.infer(net, batch_size), block)


@functools.cache
def runtime_block() -> int:
    """The block of this machine's ONNX Runtime: what 1 channel is padded to."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    weights = [weight("w", 1, 1, 1, 1), weight("v", 1, 1, 1, 1)]
    net = model(nodes, [value("x", [1, 1, 4, 4])], [value("y", [1, 1, 4, 4])], weights)
    found = profile_runs(net.SerializeToString(), Device(), budget_s=0.0)
    names = {found_node.op_type for found_node in found.optimized.graph.node}
    if "ReorderOutput" not in names:
        return 1
    return int(max(tensor.dims[0] for tensor in found.optimized.graph.initializer))
