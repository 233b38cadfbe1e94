"""The words for types of elements in the kinds of operators: float32, the usual one, has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.optimised_graph import Kernel, Value

_EIGHT_BITS = frozenset({TensorProto.INT8, TensorProto.UINT8})
_NAMES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_NO_NUMBERS = frozenset({TensorProto.BOOL, TensorProto.STRING})


def type_name(elem_type: int) -> str:
    """The type's name: `float32`, `float64`, `int8`, …"""
    return _NAMES.get(elem_type) or str(TensorProto.DataType.Name(elem_type)).lower()


def is_float(value: Value) -> bool:
    """Whether a value holds floating-point numbers of any width."""
    return value.elem_type in _FLOATS


def is_eight_bits(value: Value) -> bool:
    """Whether a value holds 8-bit integers."""
    return value.elem_type in _EIGHT_BITS


def type_word(kernel: Kernel) -> str:
    """The word before the kind of a kernel that computes with other numbers than float32, else nothing.

    Kernels for quantised values read 8-bit integers beside floats: their names say so already.
    """
    values = [value for value in (*kernel.inputs, *kernel.outputs) if value is not None]
    if "quantize" in kernel.op_type.lower() or kernel.op_type.startswith("QLinear") or kernel.op_type == "MatMulNBits":
        return _word(value for value in values if value.elem_type not in _OF_QUANTISED)
    numbers = [value for value in values if value.elem_type not in _NO_NUMBERS]
    return _word(numbers or values)


def _word(values: Iterable[Value]) -> str:
    first = next(iter(values), None)
    return "" if first is None or first.elem_type == TensorProto.FLOAT else f"{type_name(first.elem_type)} "


_OF_QUANTISED = _EIGHT_BITS | {TensorProto.FLOAT, TensorProto.INT32}
