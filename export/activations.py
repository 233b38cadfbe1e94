"""The one table of activations: the module that trains, and the ONNX form that is deployed.

`emit` writes the form that torch's exporter ends up with at opset 20, so that a quick graph costs on a
device what the final export will cost. It reads the module, so a slope or a beta is always the module's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from export.errors import UnknownActivationError, UnsupportedModuleError
from export.module_state import array_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from export.graph_writer import GraphWriter, Value

    Emit = Callable[[GraphWriter, nn.Module, Value], Value]


@dataclass(frozen=True)
class Activation:
    """A row of the table.

    Args:
        name: as configs and architectures spell it.
        create: makes the module; never one that works in place, because residual paths share their input.
        emit: writes the module's ONNX form into a graph: (writer, module, input) → output.
        description: the formula, on one line.
        reference: where it was published.
    """

    name: str
    create: Callable[[], nn.Module]
    emit: Emit
    description: str
    reference: str


class SquaredReLU(nn.Module):
    """relu(x)² (So et al., "Primer: Searching for Efficient Transformers", 2021); any shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of x's shape."""
        positive = torch.relu(x)
        return positive * positive


def _emit_identity(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return x


def _plain(op_type: str, **attributes: Any) -> Emit:
    """An activation that is one ONNX operator, with attributes that do not depend on the module."""

    def emit(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
        return writer.node(op_type, x, **attributes)

    return emit


def _emit_relu6(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return writer.node("Clip", x, writer.scalar(0.0), writer.scalar(6.0))


def _emit_leaky_relu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return writer.node("LeakyRelu", x, alpha=float(cast("nn.LeakyReLU", module).negative_slope))


def _emit_elu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return writer.node("Elu", x, alpha=float(cast("nn.ELU", module).alpha))


def _emit_gelu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    return writer.node("Gelu", x, approximate=cast("nn.GELU", module).approximate)


def _emit_silu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    # Not opset 24's Swish: ONNX Runtime fuses this pair, and runs Swish slower.
    return writer.node("Mul", x, writer.node("Sigmoid", x))


def _emit_softplus(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    softplus = cast("nn.Softplus", module)
    if softplus.beta != 1:
        raise UnsupportedModuleError(writer.scope, f"Softplus with beta {softplus.beta}")
    smooth = writer.node("Softplus", x)
    linear = writer.node("Greater", x, writer.scalar(float(softplus.threshold)))
    return writer.node("Where", linear, x, smooth)


def _emit_squared_relu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    positive = writer.node("Relu", x)
    return writer.node("Mul", positive, positive)


def _emit_prelu(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    slope = array_of(cast("nn.PReLU", module).weight, writer.scope)
    # One slope a channel: ONNX broadcasts from the right, torch along dimension 1.
    shape = (1, -1) + (1,) * (len(x.shape) - 1)
    return writer.node("PRelu", x, writer.initializer("weight", slope.reshape(shape)))


_TABLE: dict[str, Activation] = {}
_EMITTERS: dict[type[nn.Module], Emit] = {}
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(_TABLE)


def register(activation: Activation) -> None:
    """Add a row to the table.

    Raises:
        ValueError: the name is taken.
    """
    if activation.name in _TABLE:
        raise ValueError(f"an activation named {activation.name!r} is already in the table")
    _TABLE[activation.name] = activation
    # The first row of a type is its rule: rows that differ by an option (gelu, gelu_tanh) share one.
    _EMITTERS.setdefault(type(activation.create()), activation.emit)


def names() -> tuple[str, ...]:
    """All names, in the table's order."""
    return tuple(_TABLE)


def create(name: str) -> nn.Module:
    """Make the activation of that name.

    Raises:
        UnknownActivationError: no such row; the message lists the valid ones and the nearest.
    """
    if name not in _TABLE:
        raise UnknownActivationError(name, _TABLE)
    return _TABLE[name].create()


def emitter_of(module_type: type[nn.Module]) -> Emit | None:
    """The rule that writes modules of exactly this type, or None when no row makes them."""
    return _EMITTERS.get(module_type)


def _gelu_tanh() -> nn.Module:
    return nn.GELU(approximate="tanh")


for _row in (
    Activation("identity", nn.Identity, _emit_identity, "x", "–"),
    Activation("relu", nn.ReLU, _plain("Relu"), "max(x, 0)", "Nair & Hinton 2010"),
    Activation("relu6", nn.ReLU6, _emit_relu6, "min(max(x, 0), 6)", "Krizhevsky 2010"),
    Activation("leaky_relu", nn.LeakyReLU, _emit_leaky_relu, "x where x > 0, else 0.01 x", "Maas et al. 2013"),
    Activation("elu", nn.ELU, _emit_elu, "x where x > 0, else exp(x) − 1", "Clevert et al. 2015"),
    Activation(
        "selu",
        nn.SELU,
        _plain("Selu"),
        "1.0507 (x where x > 0, else 1.6733 (exp(x) − 1))",
        "Klambauer et al. 2017",
    ),
    Activation("gelu", nn.GELU, _emit_gelu, "x Φ(x)", "Hendrycks & Gimpel 2016"),
    Activation("gelu_tanh", _gelu_tanh, _emit_gelu, "x Φ(x), Φ approximated with tanh", "Hendrycks & Gimpel 2016"),
    Activation("silu", nn.SiLU, _emit_silu, "x σ(x)", "Elfwing et al. 2017; Ramachandran et al. 2017"),
    Activation("mish", nn.Mish, _plain("Mish"), "x tanh(softplus(x))", "Misra 2019"),
    Activation("hardswish", nn.Hardswish, _plain("HardSwish"), "x min(max(x + 3, 0), 6) / 6", "Howard et al. 2019"),
    Activation(
        "hardsigmoid",
        nn.Hardsigmoid,
        _plain("HardSigmoid", alpha=float(np.float32(1 / 6)), beta=0.5),
        "min(max(x + 3, 0), 6) / 6",
        "Howard et al. 2019",
    ),
    Activation("sigmoid", nn.Sigmoid, _plain("Sigmoid"), "σ(x) = 1 / (1 + exp(−x))", "–"),
    Activation("tanh", nn.Tanh, _plain("Tanh"), "tanh(x)", "–"),
    Activation("softplus", nn.Softplus, _emit_softplus, "log(1 + exp(x))", "Dugas et al. 2000"),
    Activation("squared_relu", SquaredReLU, _emit_squared_relu, "max(x, 0)²", "So et al. 2021"),
    Activation("prelu", nn.PReLU, _emit_prelu, "x where x > 0, else a x; one learnt slope a", "He et al. 2015"),
):
    register(_row)
