"""The ONNX operators of convolutional classifiers in torch: a table from op_type to function.

A function takes the inputs (None for an optional one that is left out) and the attributes, and returns the output or a
tuple of outputs. The attribute "opset" is the file's version of the standard.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from latency_models.runners.torch_windows import average_pool, conv, max_pool, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    Inputs = Sequence[Tensor]
    Attributes = Mapping[str, Any]
    Operator = Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]


def _of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(inputs[0])


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: function(inputs[0], inputs[1])


def _of_many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs, attributes: reduce(function, inputs)


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _given(inputs: Inputs, at: int) -> Tensor | None:
    """An optional input; None where it is left out."""
    return inputs[at] if at < len(inputs) else None


def _ints(inputs: Inputs, at: int, attributes: Attributes, name: str) -> list[int] | None:
    """The whole numbers that are an input in newer versions of an operator and an attribute in older ones."""
    if (tensor := _given(inputs, at)) is not None:
        return [int(value) for value in tensor.tolist()]
    return list(attributes[name]) if name in attributes else None


# --- activations -------------------------------------------------------------------------------------------


def _selu(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, gamma = (
        attributes.get("alpha", 1.67326319217681884765625),
        attributes.get("gamma", 1.05070102214813232421875),
    )
    return F.elu(inputs[0], alpha) * float(gamma)


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if beta == 0.5 and abs(alpha - 1 / 6) < 1e-6:
        return F.hardsigmoid(inputs[0])
    return torch.clamp(inputs[0] * alpha + beta, 0, 1)


def _prelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, slope = inputs
    # torch's own kernel takes one slope, or one a channel; ONNX's slopes broadcast from the right.
    a_channel = slope.ndim >= x.ndim - 1 >= 1 and slope.shape[1 - x.ndim] == slope.numel() == x.shape[1]
    if slope.numel() == 1 or a_channel:
        return F.prelu(x, slope.flatten())
    return torch.where(x >= 0, x, slope * x)


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low, high = _given(inputs, 1), _given(inputs, 2)
    if attributes.keys() & {"min", "max"}:  # the form before opset 11
        return torch.clamp(inputs[0], attributes.get("min"), attributes.get("max"))
    return inputs[0] if low is None and high is None else torch.clamp(inputs[0], low, high)


def _softmax(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = inputs[0]
    if attributes["opset"] >= 13:
        return torch.softmax(x, attributes.get("axis", -1))
    # Before opset 13 everything from the axis on was one distribution.
    return torch.softmax(x.flatten(attributes.get("axis", 1)), -1).reshape(x.shape)


def _log_softmax(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.log(_softmax(inputs, attributes))


# --- normalisation, reductions, products -------------------------------------------------------------------


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs[:5]
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=attributes.get("epsilon", 1e-5))


def _instance_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    return F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=attributes.get("epsilon", 1e-5))


def _layer_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = inputs[0]
    shape = x.shape[attributes.get("axis", -1) :]
    return F.layer_norm(x, shape, inputs[1], _given(inputs, 2), attributes.get("epsilon", 1e-5))


def _lrn(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, size = inputs[0], attributes["size"]
    squares = F.pad((x * x).movedim(1, -1), ((size - 1) // 2, size // 2))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    scale = attributes.get("bias", 1.0) + attributes.get("alpha", 1e-4) / size * total
    return x / torch.pow(scale, float(attributes.get("beta", 0.75)))


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Inputs, attributes: Attributes) -> Tensor:
        x = inputs[0]
        axes = _ints(inputs, 1, attributes, "axes")
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, dim=axes, keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _global_pool(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, attributes: function(inputs[0], dim=list(range(2, inputs[0].ndim)), keepdim=True)


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    alpha, beta, c = attributes.get("alpha", 1.0), attributes.get("beta", 1.0), _given(inputs, 2)
    if c is not None:
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    return a @ b if alpha == 1.0 else alpha * (a @ b)


# --- quantisation ------------------------------------------------------------------------------------------


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """The values, one an entry of `axis`, in a shape that broadcasts against x."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if at == axis % x.ndim else 1 for at in range(x.ndim)])


def _quantize(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, zero = inputs[0], _given(inputs, 2)
    axis = attributes.get("axis", 1)
    kind = torch.uint8 if zero is None else zero.dtype
    steps = torch.round(x / _along(inputs[1], x, axis))
    if zero is not None:
        steps = steps + _along(zero, x, axis)
    limits = torch.iinfo(kind)
    return torch.clamp(steps, limits.min, limits.max).to(kind)


def _dequantize(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, zero = inputs[0], inputs[1], _given(inputs, 2)
    axis = attributes.get("axis", 1)
    steps = x.to(scale.dtype)
    if zero is not None:
        steps = steps - _along(zero, x, axis).to(scale.dtype)
    return steps * _along(scale, x, axis)


# --- shapes ------------------------------------------------------------------------------------------------


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, sizes = inputs[0], _ints(inputs, 1, attributes, "shape") or []
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", 1)
    first = 1
    for size in x.shape[:axis]:
        first *= size
    return x.reshape(first, -1)


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    return inputs[0].permute(attributes.get("perm") or list(reversed(range(inputs[0].ndim))))


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    axes = _ints(inputs, 1, attributes, "axes")
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = inputs[0], _ints(inputs, 1, attributes, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = inputs[0]
    starts, ends = (_ints(inputs, at, attributes, name) or [] for at, name in ((1, "starts"), (2, "ends")))
    axes = _ints(inputs, 3, attributes, "axes") or range(len(starts))
    steps = _ints(inputs, 4, attributes, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step > 0:
            chosen = [slice(None)] * (axis % x.ndim) + [slice(start, end, step)]
            x = x[tuple(chosen)]
        else:
            kept = range(x.shape[axis])[start:end:step]
            x = x.index_select(axis, torch.tensor(list(kept), device=x.device))
    return x


def _split(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis = inputs[0], attributes.get("axis", 0)
    sizes = _ints(inputs, 1, attributes, "split")
    if sizes is None:
        sizes = [-(-x.shape[axis] // attributes["n_outputs"])] * attributes["n_outputs"]
        sizes[-1] = x.shape[axis] - sum(sizes[:-1])
    return torch.split(x, sizes, axis)


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, at = inputs[0], inputs[1].to(torch.int64)
    axis = attributes.get("axis", 0) % x.ndim
    at = torch.where(at < 0, at + x.shape[axis], at)
    return x.index_select(axis, at.flatten()).reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


def _expand(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, sizes = inputs[0], [int(size) for size in inputs[1].tolist()]
    leading = len(sizes) - x.ndim  # a size of 1 keeps x's own: the two shapes broadcast
    own = [1] * leading + list(x.shape)
    sizes = [1] * -leading + sizes
    return x.expand([max(size, kept) for size, kept in zip(sizes, own, strict=True)])


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    sizes = list(inputs[0].shape)
    return torch.tensor(sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))], dtype=torch.int64)


def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    value: Tensor = attributes.get("value", torch.zeros(1))  # of one number
    return value.expand(inputs[0].tolist()).clone()


OPERATORS: dict[str, Operator] = {
    "Abs": _of_one(torch.abs),
    "Add": _of_two(operator.add),
    "And": _of_two(torch.logical_and),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda inputs, attributes: inputs[0].to(attributes["to"]),
    "Ceil": _of_one(torch.ceil),
    "Celu": lambda inputs, attributes: F.celu(inputs[0], attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda inputs, attributes: torch.cat(list(inputs), attributes["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "DequantizeLinear": _dequantize,
    "Div": _of_two(_div),
    "Dropout": _of_one(lambda x: x),
    "Elu": lambda inputs, attributes: F.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Equal": _of_two(torch.eq),
    "Erf": _of_one(torch.erf),
    "Exp": _of_one(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _of_one(torch.floor),
    "Gather": _gather,
    "Gelu": lambda inputs, attributes: F.gelu(inputs[0], approximate=attributes.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "Greater": _of_two(torch.gt),
    "GreaterOrEqual": _of_two(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _of_one(F.hardswish),
    "Identity": _of_one(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda inputs, attributes: F.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "Less": _of_two(torch.lt),
    "LessOrEqual": _of_two(torch.le),
    "Log": _of_one(torch.log),
    "LogSoftmax": _log_softmax,
    "MatMul": _of_two(torch.matmul),
    "Max": _of_many(torch.maximum),
    "MaxPool": max_pool,
    "Mean": lambda inputs, attributes: reduce(operator.add, inputs) / len(inputs),
    "Min": _of_many(torch.minimum),
    "Mish": _of_one(F.mish),
    "Mul": _of_two(operator.mul),
    "Neg": _of_one(torch.neg),
    "Not": _of_one(torch.logical_not),
    "Or": _of_two(torch.logical_or),
    "PRelu": _prelu,
    "Pad": pad,
    "Pow": _of_two(torch.pow),
    "QuantizeLinear": _quantize,
    "Reciprocal": _of_one(torch.reciprocal),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _of_one(torch.relu),
    "Reshape": _reshape,
    "Round": _of_one(torch.round),
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": _of_one(torch.sigmoid),
    "Sign": _of_one(torch.sign),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _of_one(F.softplus),
    "Softsign": _of_one(F.softsign),
    "Split": _split,
    "Sqrt": _of_one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _of_two(operator.sub),
    "Sum": _of_many(operator.add),
    "Swish": lambda inputs, attributes: inputs[0] * torch.sigmoid(attributes.get("alpha", 1.0) * inputs[0]),
    "Tanh": _of_one(torch.tanh),
    "ThresholdedRelu": lambda inputs, attributes: F.threshold(inputs[0], attributes.get("alpha", 1.0), 0.0),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda inputs, attributes: torch.where(inputs[0], inputs[1], inputs[2]),
}

READ_ON_THE_HOST = frozenset(
    {"Expand", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze",
     "Unsqueeze"}
)  # fmt: skip
"""Operators whose whole-number inputs are shapes, axes or pads, which the program reads; these stay off the GPU."""
