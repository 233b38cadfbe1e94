"""Average pools with a divisor of their own, which torch's exporter leaves out without a word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def translations() -> dict[Any, Callable[..., Any]]:
    """Translations that torch's exporter is to use for average pools, as its `custom_translation_table`."""
    from onnxscript.function_libs.torch_lib.ops import nn as translated

    aten = torch.ops.aten
    return {
        aten.avg_pool2d.default: _translation(2, translated.aten_avg_pool2d),
        aten.avg_pool3d.default: _translation(3, translated.aten_avg_pool3d),
    }


def _translation(rank: int, usual: Callable[..., Any]) -> Callable[..., Any]:
    def translated(
        self: Any,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        if divisor_override is None:
            return usual(self, kernel_size, stride, padding, ceil_mode, count_include_pad)
        return _divided(self, rank, kernel_size, stride or kernel_size, padding, ceil_mode, divisor_override)

    return translated


def _divided(
    x: Any,
    rank: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    divisor: int,
) -> Any:
    """The sum of each window over the divisor: an average in which everything counts, times a factor.

    Windows that reach over the end get as much padding as they need, so that each has its whole size.
    """
    import onnxscript

    kernel, strides, pads = (_each(values, rank) for values in (kernel_size, stride, padding))
    ends = list(pads)
    if ceil_mode:
        sizes = list(x.shape)[-rank:]
        if not all(isinstance(size, int) for size in sizes):
            raise ValueError("an average pool with ceil_mode and divisor_override on an input of open size")
        ends = [
            pad + _overhang(*each)
            for pad, each in zip(pads, zip(sizes, kernel, strides, pads, strict=True), strict=True)
        ]
    operators: Any = onnxscript.opset18
    average = operators.AveragePool(x, kernel_shape=kernel, strides=strides, pads=[*pads, *ends], count_include_pad=1)
    factor = operators.Constant(value_float=math.prod(kernel) / divisor)
    return operators.Mul(average, operators.CastLike(factor, x))


def _each(values: Sequence[int], rank: int) -> list[int]:
    return list(values) * rank if len(values) == 1 else list(values)


def _overhang(size: int, kernel: int, stride: int, pad: int) -> int:
    """Elements that the last window reaches beyond the padding; it begins in the input or the padding before it."""
    windows = -(-(size + 2 * pad - kernel) // stride) + 1
    if (windows - 1) * stride >= size + pad:
        windows -= 1
    return max(0, (windows - 1) * stride + kernel - size - 2 * pad)
