"""The graphs whose sizes and memory can be computed without asking the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterable

# What candidates are made of: for these ONNX's inference gives the runtime's sizes, as tests and
# benchmarks/count_files.py hold against the runtime.
_OPERATORS = frozenset(
    {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Celu", "Clip", "Concat", "Constant", "Conv",
        "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp", "Flatten", "Gelu", "Gemm", "GlobalAveragePool",
        "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "MaxPool", "Min", "Mish",
        "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Selu", "Sigmoid", "Softplus",
        "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "ThresholdedRelu", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# The runtime moves transposes around, merges them and puts new ones around integer convolutions, as a cost function of
# its own decides. For all others the plan of `graph.memory` is the runtime's.
_NOT_PLANNED = frozenset({"Transpose", "QuantizeLinear", "DequantizeLinear"})
_POOLS = frozenset({"AveragePool", "MaxPool"})
_FIRST_OPSET, _LAST_OPSET = 13, 23
_LAST_IR_WITH_LISTED_WEIGHTS = 3
_STORED = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
    }
)


def is_planned(model: onnx.ModelProto) -> bool:
    """Whether the plan of a graph's memory is known to be the runtime's."""
    return is_inferable(model) and not any(node.op_type in _NOT_PLANNED for node in model.graph.node)


def is_inferable(model: onnx.ModelProto) -> bool:
    """Whether all operators, settings and types of a graph are among those whose inferred sizes are the runtime's."""
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    return (
        not model.functions
        and _FIRST_OPSET <= opsets.get("", opsets.get("ai.onnx", 0)) <= _LAST_OPSET
        and all(tensor.data_type in _STORED for tensor in graph.initializer)
        and not graph.sparse_initializer
        and not _replaceable(model)
        and all(_is_float(info) for info in _fed(graph))
        and all(_is_known(node) for node in graph.node)
    )


def _replaceable(model: onnx.ModelProto) -> bool:
    """Whether a caller may replace weights, so that the runtime fuses nothing into them."""
    listed = {info.name for info in model.graph.input}
    return model.ir_version > _LAST_IR_WITH_LISTED_WEIGHTS and any(t.name in listed for t in model.graph.initializer)


def _fed(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in graph.initializer}
    return (info for info in graph.input if info.name not in stored)


def _is_float(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS:
        return False
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    padding = attributes.get("auto_pad", b"NOTSET")
    if node.op_type in _POOLS:
        plain = not attributes.get("ceil_mode") and all(step == 1 for step in attributes.get("dilations", ()))
        return plain and padding == b"NOTSET" and len([name for name in node.output if name]) == 1
    return bool(padding == b"NOTSET")
