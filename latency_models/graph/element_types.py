"""Element types: ONNX's numbers, ONNX Runtime's words, and the precision that a file computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from latency_models.graph.attributes import all_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

_TENSOR = "tensor("
_WORDS = {"FLOAT": "float", "DOUBLE": "double"}
_NUMBERS = {_WORDS.get(name, name.lower()): int(number) for name, number in onnx.TensorProto.DataType.items()}
_PRECISIONS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.DOUBLE: "fp64",
}
_INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "QLinearAdd", "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention", "QuantizeLinear",
    }
)  # fmt: skip


def element_type(text: str) -> int:
    """ONNX's number of a type in ONNX Runtime's words, such as "tensor(float)"; 0 for what is no tensor."""
    return _NUMBERS.get(text.removeprefix(_TENSOR).removesuffix(")"), 0) if text.startswith(_TENSOR) else 0


def type_text(elem_type: int) -> str:
    """The type of a tensor in ONNX Runtime's words."""
    return next((f"{_TENSOR}{word})" for word, number in _NUMBERS.items() if number == elem_type), f"type {elem_type}")


def precision_of(model: onnx.ModelProto) -> str:
    """The precision that a model computes in: int8, fp32, fp16, bf16 or fp64.

    A graph with quantised activations or integer products is int8. Else the type of most of its weights decides, or of
    its inputs where it has none; weights that are stored narrower and widened before use don't change what is computed.
    """
    graphs = list(all_graphs(model.graph))
    if any(node.op_type in _INTEGER_OPERATORS for graph in graphs for node in graph.node):
        return "int8"
    sizes: dict[int, int] = {}
    for elem_type, elements in _typed(graphs):
        sizes[elem_type] = sizes.get(elem_type, 0) + elements
    if not sizes:
        sizes = {info.type.tensor_type.elem_type: 1 for info in (*model.graph.output, *model.graph.input)}
    known = [each for each in sizes if each in _PRECISIONS]
    return _PRECISIONS[max(known, key=lambda each: sizes[each])] if known else "fp32"


def _typed(graphs: list[onnx.GraphProto]) -> Iterator[tuple[int, int]]:
    """Yield the type and the number of elements of each floating-point weight."""
    for graph in graphs:
        constants = [each.t for node in graph.node if node.op_type == "Constant" for each in node.attribute]
        for tensor in (*graph.initializer, *constants):
            if tensor.data_type in _PRECISIONS:
                elements = 1
                for size in tensor.dims:
                    elements *= size
                yield tensor.data_type, elements
