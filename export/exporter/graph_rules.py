"""The quick graph builder's rules for layers that are not activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from torch import nn

from export.activations.emitters import identity
from export.errors import UnsupportedModuleError
from export.module_state import array_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import torch

    from export.graph_writer import GraphWriter, Value

    Array = npt.NDArray[np.float32]


def convolution(
    writer: GraphWriter, conv: nn.Conv2d, x: Value, weight: Array | None = None, bias: Array | None = None
) -> Value:
    """Write a convolution, with the weight and bias given in place of its own (a folded batch norm)."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        _refuse(writer, f"Conv2d with padding {conv.padding!r} of mode {conv.padding_mode!r}")
    if len(x.shape) != 3 or x.shape[0] != conv.in_channels:
        _refuse(writer, f"Conv2d of {conv.in_channels} channels on an input of shape {x.shape}")
    if weight is None:
        weight = array_of(conv.weight, writer.scope)
        bias = None if conv.bias is None else array_of(conv.bias, writer.scope)
    inputs = [writer.initializer("weight", weight)]
    if bias is not None:
        inputs.append(writer.initializer("bias", bias))
    window = _window(conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    shape = (conv.out_channels, *_spatial(writer, x, window))
    return writer.node("Conv", x, *inputs, shape=shape, group=conv.groups, **window)


def folded_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, where: str) -> tuple[Array, Array]:
    """Weight and bias of the convolution that equals `norm(conv(x))` in eval mode (float32).

    The bias is written even where it is all zeros, as it is before training: the trained network's won't be.
    """
    scale, shift, mean, variance = _batch_norm_arrays(norm, where)
    factor = scale / np.sqrt(variance + np.float32(norm.eps))
    bias = np.zeros_like(mean) if conv.bias is None else array_of(conv.bias, where)
    weight = array_of(conv.weight, where) * factor.reshape(-1, 1, 1, 1)
    return weight, (bias - mean) * factor + shift


def _conv(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return convolution(writer, cast("nn.Conv2d", module), x)


def _batch_norm(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    norm = cast("nn.BatchNorm2d", module)
    if not norm.track_running_stats or len(x.shape) != 3 or x.shape[0] != norm.num_features:
        _refuse(writer, f"BatchNorm2d of {norm.num_features} channels on an input of shape {x.shape}")
    names = ("weight", "bias", "running_mean", "running_var")
    inputs = [writer.initializer(*pair) for pair in zip(names, _batch_norm_arrays(norm, writer.scope), strict=True)]
    return writer.node("BatchNormalization", x, *inputs, epsilon=float(norm.eps))


def _linear(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    linear = cast("nn.Linear", module)
    if len(x.shape) != 1 or x.shape[0] != linear.in_features:
        _refuse(writer, f"Linear of {linear.in_features} features on an input of shape {x.shape}")
    inputs = [writer.initializer("weight", array_of(linear.weight, writer.scope))]
    if linear.bias is not None:
        inputs.append(writer.initializer("bias", array_of(linear.bias, writer.scope)))
    return writer.node("Gemm", x, *inputs, shape=(linear.out_features,), transB=1)


def _flatten(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    flatten = cast("nn.Flatten", module)
    if flatten.start_dim != 1 or flatten.end_dim not in (-1, len(x.shape)):
        _refuse(writer, f"Flatten of the dimensions {flatten.start_dim} to {flatten.end_dim}")
    if len(x.shape) == 1:
        return x
    features = int(np.prod(x.shape))
    target = writer.constant(np.asarray([-1, features], np.int64))
    return writer.node("Reshape", x, target, shape=(features,), allowzero=1)


def _global_average_pool(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    size = cast("nn.AdaptiveAvgPool2d", module).output_size
    if size not in (1, (1, 1), [1, 1]) or len(x.shape) != 3:
        _refuse(writer, f"AdaptiveAvgPool2d to {size} on an input of shape {x.shape}")
    return writer.node("GlobalAveragePool", x, shape=(x.shape[0], 1, 1))


def _max_pool(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    pool = cast("nn.MaxPool2d", module)
    if pool.ceil_mode or pool.return_indices or len(x.shape) != 3:
        _refuse(writer, "MaxPool2d with ceil_mode or return_indices, or not on an image")
    window = _window(pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return writer.node("MaxPool", x, shape=(x.shape[0], *_spatial(writer, x, window)), **window)


def _average_pool(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    pool = cast("nn.AvgPool2d", module)
    if pool.ceil_mode or pool.divisor_override is not None or len(x.shape) != 3:
        _refuse(writer, "AvgPool2d with ceil_mode or divisor_override, or not on an image")
    window = _window(pool.kernel_size, pool.stride, pool.padding, 1)
    shape = (x.shape[0], *_spatial(writer, x, window))
    del window["dilations"]  # all 1, and not an attribute before opset 19
    return writer.node("AveragePool", x, shape=shape, count_include_pad=int(pool.count_include_pad), **window)


# By exact type: a subclass may compute something else.
MODULE_RULES: dict[type[nn.Module], Callable[[GraphWriter, nn.Module, Value], Value]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _batch_norm,
    nn.Linear: _linear,
    nn.Flatten: _flatten,
    nn.AdaptiveAvgPool2d: _global_average_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.Dropout: identity,
    nn.Dropout2d: identity,
}


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, list[int]]:
    """A sliding window's ONNX attributes (height, width order)."""
    return {
        "kernel_shape": _pair(kernel),
        "strides": _pair(stride),
        "pads": _pair(padding) * 2,
        "dilations": _pair(dilation),
    }


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(item) for item in value]


def _spatial(writer: GraphWriter, x: Value, window: dict[str, list[int]]) -> list[int]:
    """Height and width after the window has slid over x."""
    sizes = [
        (
            x.shape[1 + axis]
            + 2 * window["pads"][axis]
            - window["dilations"][axis] * (window["kernel_shape"][axis] - 1)
            - 1
        )
        // window["strides"][axis]
        + 1
        for axis in (0, 1)
    ]
    if min(sizes) < 1:
        _refuse(writer, f"a window of {window['kernel_shape']} on an input of shape {x.shape}")
    return sizes


def _batch_norm_arrays(norm: nn.BatchNorm2d, where: str) -> tuple[Array, Array, Array, Array]:
    """Scale, shift, mean and variance, each of shape (channels,)."""
    buffers = (norm.running_mean, norm.running_var)
    mean, variance = (array_of(cast("torch.Tensor", buffer), where) for buffer in buffers)
    if not norm.affine:
        return np.ones_like(mean), np.zeros_like(mean), mean, variance
    return array_of(norm.weight, where), array_of(norm.bias, where), mean, variance


def _refuse(writer: GraphWriter, what: str) -> NoReturn:
    raise UnsupportedModuleError(writer.scope, what)
