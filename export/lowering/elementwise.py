"""ONNX's elementwise operators in numpy, at the precision of their inputs.

With them a part of a graph is evaluated as a function of one number, and two ways to write it are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from export.onnx_file import attributes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import onnx

    Array = npt.NDArray[Any]


def _clip(attributes: Mapping[str, Any], x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Clip as ONNX does, where an open end is the type's largest number, so that +∞ becomes finite."""
    largest = np.finfo(x.dtype).max
    low = attributes.get("min", -largest if low is None else low)
    high = attributes.get("max", largest if high is None else high)
    return np.asarray(np.minimum(np.maximum(x, low), high))


def elu(x: Array, alpha: Array | float, scale: Array | float = 1.0) -> Array:
    """Compute ELU, with a scale for SELU, too."""
    return np.asarray(scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


def celu(x: Array, alpha: Array | float) -> Array:
    """Compute CELU of any α above 0."""
    return np.asarray(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)))


def gelu_tanh(x: Array) -> Array:
    """Compute the approximation of GELU by tanh."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _gelu(attributes: Mapping[str, Any], x: Array) -> Array:
    if attributes.get("approximate", b"none") == b"tanh":
        return gelu_tanh(x)
    return np.asarray(0.5 * x * (1 + special.erf(x * np.sqrt(0.5))))


def _plain(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda _, *inputs: function(*inputs)


def _hard_sigmoid(attributes: Mapping[str, Any], x: Array) -> Array:
    return np.asarray(np.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1))


def _per_channel_convolution(_: Mapping[str, Any], x: Array, weight: Array, bias: Array | None = None) -> Array:
    shape = (-1, 1, 1)
    scaled = x * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


def _extreme(pairwise: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def function(_: Mapping[str, Any], first: Array, *others: Array) -> Array:
        for other in others:
            first = pairwise(first, other)
        return first

    return function


_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _plain(np.divide),
    "Pow": _plain(np.power),
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Exp": _plain(np.exp),
    "Log": _plain(np.log),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(np.reciprocal),
    "Erf": _plain(special.erf),
    "Tanh": _plain(np.tanh),
    "Sigmoid": _plain(special.expit),
    "Identity": _plain(lambda x: x),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "LeakyRelu": lambda a, x: np.where(x < 0, a.get("alpha", 0.01) * x, x),
    "ThresholdedRelu": lambda a, x: np.where(x > a.get("alpha", 1.0), x, 0),
    "PRelu": _plain(lambda x, slope: np.where(x < 0, slope * x, x)),
    "Elu": lambda a, x: elu(x, a.get("alpha", 1.0)),
    "Celu": lambda a, x: celu(x, a.get("alpha", 1.0)),
    "Selu": lambda a, x: elu(x, a.get("alpha", 1.6732632423543772), a.get("gamma", 1.0507009873554805)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Softplus": _plain(_softplus),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Mish": _plain(lambda x: x * np.tanh(_softplus(x))),
    "Gelu": _gelu,
    "Swish": lambda a, x: x * special.expit(a.get("alpha", 1.0) * x),
    "Clip": _clip,
    "Max": _extreme(np.maximum),
    "Min": _extreme(np.minimum),
    "Sum": _extreme(np.add),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Where": _plain(np.where),
    "Conv": _per_channel_convolution,
}
COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
OPERATORS = frozenset(_FUNCTIONS)
"""Operators of ONNX's own domain that `evaluate` knows; `Conv` only where it scales and shifts each channel."""


def evaluate(nodes: list[onnx.NodeProto], constants: Mapping[str, Array], root: str, output: str, x: Array) -> Array:
    """Compute the value of `output` for the value x of `root`.

    Args:
        nodes: elementwise, in topological order, all of `OPERATORS`.
        constants: name → array, of all other values that they read.
        root: name of the one input.
        output: name of the result.
        x: float32 or float64; the constants are brought to its type.

    Raises:
        ValueError: shapes that don't broadcast.
        KeyError: a name that is neither a constant nor made here.
    """
    values: dict[str, Array] = {root: x}
    with np.errstate(all="ignore"):
        for node in nodes:
            inputs = [_input(name, values, constants, x) for name in node.input]
            values[node.output[0]] = _like(_FUNCTIONS[node.op_type](attributes_of(node), *inputs), x)
    return values[output]


def _input(name: str, values: Mapping[str, Array], constants: Mapping[str, Array], x: Array) -> Array | None:
    if not name:
        return None
    return values[name] if name in values else _like(constants[name], x)


def _like(value: Array, x: Array) -> Array:
    return value if value.dtype == bool else np.asarray(value, x.dtype)
