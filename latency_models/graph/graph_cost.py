"""Exact counts of a graph: multiply-accumulates, parameters, bytes of external data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from latency_models.graph.convolutions import scales_channels

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.graph.shapes import Shapes

# Weights, and the integers of a quantised one. 64-bit integers are shapes, axes and indices.
_WEIGHT_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT32,
    }
)


def macs(shapes: Shapes) -> int:
    """Multiply-accumulates of the convolutions and matrix products that run at every inference.

    A scale for each channel (a depthwise convolution of 1×1) doesn't count: an activation may be written as one.

    Raises:
        UnknownShapeError: a shape that a product's cost depends on can't be inferred.
    """
    return sum(_MACS[node.op_type](node, shapes) for node in shapes.live_nodes if node.op_type in _MACS)


def params(model: onnx.ModelProto, shapes: Shapes) -> int:
    """Elements of the weights: initializers, Constant nodes of more than one element, filled constants.

    Running statistics and quantisation scales are among them.
    """
    stored: int = sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in _WEIGHT_TYPES)
    return stored + sum(_constant_elements(node, shapes) for node in shapes.nodes)


def external_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights that lie in files beside the model's."""
    external = (t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    return sum(external_length(tensor) for tensor in external)


def external_length(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor in another file: as the model gives them, else by shape and type."""
    for entry in tensor.external_data:
        if entry.key == "length":
            return int(entry.value)
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * int(itemsize)


def _constant_elements(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Number of weights that a node stores or fills in; a single number is a setting, no weight."""
    if node.op_type not in {"Constant", "ConstantOfShape"} or node.output[0] not in shapes.constants:
        return 0
    if shapes.elem_types.get(node.output[0]) not in _WEIGHT_TYPES:
        return 0
    elements = shapes.elements(node.output[0])
    return elements if elements > 1 else 0


def _conv(weight: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    """Every output element takes one product per weight of its filter, (M, C/group, k1, …) without M."""

    def cost(node: onnx.NodeProto, shapes: Shapes) -> int:
        filters = shapes.of(node.input[weight])
        if scales_channels(node, filters):
            return 0  # elementwise, like the Mul that it may be written as
        return shapes.elements(node.output[0]) * math.prod(filters[1:])

    return cost


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Every input element is multiplied with its filter, (C, M/group, k1, …) without C."""
    return shapes.elements(node.input[0]) * math.prod(shapes.of(node.input[1])[1:])


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    """(…, M, K) times (…, K, N): K products for each output element."""
    return shapes.elements(node.output[0]) * shapes.of(node.input[0])[-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return shapes.elements(node.output[0]) * shapes.of(node.input[0])[0 if transposed else 1]


_MACS: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _conv(weight=1),
    "FusedConv": _conv(weight=1),
    "ConvInteger": _conv(weight=1),
    "QLinearConv": _conv(weight=3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
}
