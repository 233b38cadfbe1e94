"""The rules that write each activation of the table into an ONNX graph, in the form of torch's exporter.

A rule reads the module, so a slope or a β is always the module's own. Special values (a knot at 0, a β of 1) get no
shorter form: a network before its training has to cost what it costs afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from export.errors import UnsupportedModuleError
from export.module_state import array_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import torch
    from torch import nn

    from export.activations import learnable
    from export.graph_writer import GraphWriter, Value

    Emit = Callable[[GraphWriter, nn.Module, Value], Value]


def identity(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Return the input, without a node."""
    return x


def plain(op_type: str, **attributes: Any) -> Emit:
    """A rule for one ONNX operator with attributes that don't depend on the module."""
    return lambda writer, module, x: writer.node(op_type, x, **attributes)


def hardtanh(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write min(max(x, low), high) as Clip; ReLU6 is a kind of Hardtanh."""
    bounds = cast("nn.Hardtanh", module)
    return writer.node("Clip", x, writer.scalar(float(bounds.min_val)), writer.scalar(float(bounds.max_val)))


def with_alpha(op_type: str, attribute: str = "alpha") -> Emit:
    """A rule for one ONNX operator whose `alpha` is an attribute of the module."""
    return lambda writer, module, x: writer.node(op_type, x, alpha=float(getattr(module, attribute)))


def gelu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write Gelu, exact or with tanh, as the module is."""
    return writer.node("Gelu", x, approximate=cast("nn.GELU", module).approximate)


def silu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write x σ(x) as two operators: ONNX Runtime fuses them, and runs opset 24's Swish slower."""
    return writer.node("Mul", x, writer.node("Sigmoid", x))


def softplus(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write Softplus up to the module's threshold, and x above it."""
    softplus = cast("nn.Softplus", module)
    if softplus.beta != 1:
        raise UnsupportedModuleError(writer.scope, f"Softplus with beta {softplus.beta}")
    smooth = writer.node("Softplus", x)
    linear = writer.node("Greater", x, writer.scalar(float(softplus.threshold)))
    return writer.node("Where", linear, x, smooth)


def softsign(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write x / (1 + |x|)."""
    return writer.node("Div", x, writer.node("Add", writer.node("Abs", x), writer.scalar(1.0)))


def squared_relu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write max(x, 0)² as a Relu and a product."""
    positive = writer.node("Relu", x)
    return writer.node("Mul", positive, positive)


def prelu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write PRelu with one slope or one a channel; a supernet's module has more, and the first ones are used."""
    slope = array_of(cast("nn.PReLU", module).weight, writer.scope)
    return writer.node("PRelu", x, writer.initializer("weight", _along_channels(slope[: x.shape[0]], x, batch=True)))


def swish_beta(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write x σ(β x)."""
    beta = _stored(writer, "beta", cast("learnable.SwishBeta", module).beta)
    inner = writer.node("Mul", beta, x, shape=x.shape)
    return writer.node("Mul", x, writer.node("Sigmoid", inner))


def scaled_sigmoid(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write a σ(x) + b."""
    own = cast("learnable.ScaledSigmoid", module)
    scaled = writer.node("Mul", _stored(writer, "scale", own.scale), writer.node("Sigmoid", x), shape=x.shape)
    return writer.node("Add", scaled, _stored(writer, "shift", own.shift))


def acon(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write d x σ(β d x) + p₂ x with d = p₁ − p₂, for each channel."""
    own = cast("learnable.AconC", module)
    p1, p2, beta = (array_of(each, writer.scope)[: x.shape[0]] for each in (own.p1, own.p2, own.beta))
    stored = {"difference": p1 - p2, "p2": p2, "beta": beta}
    names = {name: writer.initializer(name, _along_channels(values, x)) for name, values in stored.items()}
    difference = writer.node("Mul", names["difference"], x, shape=x.shape)
    gate = writer.node("Sigmoid", writer.node("Mul", names["beta"], difference, shape=x.shape))
    lower = writer.node("Mul", names["p2"], x, shape=x.shape)
    return writer.node("Add", writer.node("Mul", difference, gate), lower)


def piecewise_linear(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write the first line and a hinge, bend · max(x − knot, 0), for each knot."""
    own = cast("learnable.PiecewiseLinear", module)
    knots, slopes = (array_of(each, writer.scope) for each in (own.knots, own.slopes))
    y = writer.node("Mul", writer.scalar(slopes[0]), x, shape=x.shape)
    for knot, bend in zip(knots, np.diff(slopes), strict=True):
        hinge = writer.node("Relu", writer.node("Sub", x, writer.scalar(knot)))
        y = writer.node("Add", y, writer.node("Mul", writer.scalar(bend), hinge, shape=x.shape))
    return y


def pade(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write the quotient of two polynomials, each by Horner's rule."""
    own = cast("learnable.Pade", module)
    a, b = (array_of(each, writer.scope)[::-1] for each in (own.numerator, own.denominator))
    above = _horner(writer, a, x)
    below = writer.node("Mul", _horner(writer, b, x), x)
    return writer.node("Div", above, writer.node("Add", writer.node("Abs", below), writer.scalar(1.0)))


def _horner(writer: GraphWriter, coefficients: npt.NDArray[np.float32], x: Value) -> Value:
    """Write the polynomial with these coefficients, the highest power's first."""
    first, *others = coefficients
    y = writer.node("Mul", writer.scalar(first), x, shape=x.shape)
    for coefficient in others[:-1]:
        y = writer.node("Mul", writer.node("Add", y, writer.scalar(coefficient)), x)
    return writer.node("Add", y, writer.scalar(others[-1]))


def _stored(writer: GraphWriter, name: str, parameter: torch.Tensor) -> str:
    return writer.initializer(name, array_of(parameter, writer.scope))


def _along_channels(values: npt.NDArray[np.float32], x: Value, *, batch: bool = False) -> npt.NDArray[np.float32]:
    """Values of the channels, shaped for ONNX, which broadcasts from the right (torch's PReLU along axis 1)."""
    return values.reshape((1,) * batch + (-1,) + (1,) * (len(x.shape) - 1))
