"""Nodes that ONNX Runtime would compute on integers otherwise than the graph says, as known before anything is run.

A runtime that fuses QuantizeLinear/DequantizeLinear pairs also takes nodes between them that nobody quantised, and
some of its integer kernels have no place for an attribute, or divide otherwise. What isn't known here is found by
`export.quantization.kernel_check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.onnx_file import attributes_of, copied

if TYPE_CHECKING:
    import onnx

TAKING_ONE = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators whose stored float weights ONNX Runtime quantises itself, one scale for all, where input and result are
quantised."""
TAKING_ALL = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax"})
"""Operators that ONNX Runtime takes into an integer kernel where all inputs and the result are quantised."""
PASSED = frozenset({"Relu", "Clip"})
"""Operators that may stand between the first kind and the quantisation of its result."""


def reason_to_stay_float(node: onnx.NodeProto) -> str:
    """The reason, in words, why the node's integer kernel would give something else; empty where none is known."""
    options = attributes_of(node)
    if node.op_type != "AveragePool":
        return ""
    if any(size != 1 for size in options.get("dilations", ())):
        return "AveragePool with dilations: ONNX Runtime's integer kernel has none"
    if options.get("ceil_mode") and options.get("count_include_pad"):
        return "AveragePool with ceil_mode and counted padding: ONNX Runtime's integer kernel divides otherwise"
    return ""


def drop_unit_dilations(node: onnx.NodeProto) -> None:
    """Take dilations of 1 from an AveragePool, in place: the integer kernel refuses even these."""
    if node.op_type != "AveragePool" or any(size != 1 for size in attributes_of(node).get("dilations", ())):
        return
    kept = [copied(attribute) for attribute in node.attribute if attribute.name != "dilations"]
    del node.attribute[:]
    node.attribute.extend(kept)
