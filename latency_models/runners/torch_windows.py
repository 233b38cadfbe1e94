"""ONNX's convolution, pooling and padding in torch, with paddings that torch's own operators don't have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    Inputs = Sequence[Tensor]
    Attributes = Mapping[str, Any]

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Run ONNX's Conv in one to three dimensions."""
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    window = list(weight.shape[2:])
    begins, ends = _padding(x, window, attributes)
    if begins != ends:
        x, begins = _padded(x, begins, ends, 0.0), [0] * len(window)
    strides, dilations = _each(attributes, "strides", window), _each(attributes, "dilations", window)
    return _CONV[len(window)](x, weight, bias, strides, begins, dilations, attributes.get("group", 1))


def max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Run ONNX's MaxPool, without the output of positions."""
    x, window = inputs[0], list(attributes["kernel_shape"])
    begins, ends = _padding(x, window, attributes)
    # torch pads both sides alike, and by half a window at most.
    if begins != ends or any(2 * size > side for size, side in zip(begins, window, strict=True)):
        x, begins = _padded(x, begins, ends, -math.inf), [0] * len(window)
    strides, dilations = _each(attributes, "strides", window), _each(attributes, "dilations", window)
    pooled: Tensor = _MAX[len(window)](x, window, strides, begins, dilations, bool(attributes.get("ceil_mode", 0)))
    return pooled


def average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Run ONNX's AveragePool. Raises ValueError for dilations, which torch doesn't have."""
    x, window = inputs[0], list(attributes["kernel_shape"])
    if any(size != 1 for size in _each(attributes, "dilations", window)):
        raise ValueError("AveragePool with dilations")
    begins, ends = _padding(x, window, attributes)
    strides, ceil = _each(attributes, "strides", window), bool(attributes.get("ceil_mode", 0))
    pads_count = bool(attributes.get("count_include_pad", 0))
    pool = _AVERAGE[len(window)]
    if begins == ends and all(2 * size <= side for size, side in zip(begins, window, strict=True)):
        return pool(x, window, strides, begins, ceil, pads_count)
    total = pool(_padded(x, begins, ends, 0.0), window, strides, 0, ceil, True)
    if pads_count:
        return total
    return total / pool(_padded(torch.ones_like(x), begins, ends, 0.0), window, strides, 0, ceil, True)


def pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Run ONNX's Pad; modes other than constant pad only the dimensions after the channels."""
    x = inputs[0]
    pads = [int(size) for size in inputs[1].tolist()] if len(inputs) > 1 else list(attributes["pads"])
    axes = [int(axis) % x.ndim for axis in inputs[3].tolist()] if len(inputs) > 3 else list(range(x.ndim))
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        begins[axis], ends[axis] = begin, end
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0.0)
        return _padded(x, begins, ends, value)
    sizes = [size for begin, end in zip(reversed(begins[2:]), reversed(ends[2:]), strict=True) for size in (begin, end)]
    return F.pad(x, sizes, mode=_MODES[mode])


def _each(attributes: Attributes, name: str, window: list[int]) -> list[int]:
    return list(attributes.get(name) or [1] * len(window))


def _padded(x: Tensor, begins: list[int], ends: list[int], value: float) -> Tensor:
    """Pad the last dimensions; torch counts them from the last."""
    sizes = [size for begin, end in zip(reversed(begins), reversed(ends), strict=True) for size in (begin, end)]
    return F.pad(x, sizes, value=value)


def _padding(x: Tensor, window: list[int], attributes: Attributes) -> tuple[list[int], list[int]]:
    """The padding before and after each of the window's dimensions."""
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = list(attributes.get("pads") or [0] * (2 * len(window)))
        return pads[: len(window)], pads[len(window) :]
    if mode == "VALID":
        return [0] * len(window), [0] * len(window)
    begins, ends = [], []
    strides, dilations = _each(attributes, "strides", window), _each(attributes, "dilations", window)
    for size, side, stride, dilation in zip(x.shape[2:], window, strides, dilations, strict=True):
        reach = (math.ceil(size / stride) - 1) * stride + (side - 1) * dilation + 1
        less, more = max(0, reach - size) // 2, -(-max(0, reach - size) // 2)
        begins.append(less if mode == "SAME_UPPER" else more)
        ends.append(more if mode == "SAME_UPPER" else less)
    return begins, ends
