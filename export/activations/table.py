"""The one table of activations: the module that trains, and the ONNX form that is deployed.

`emit` writes the form that torch's exporter ends up with at opset 20, so that a quick graph costs on a
device what the final export will cost.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from export.activations import emitters as graphs
from export.activations import learnable
from export.errors import UnknownActivationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from export.activations.emitters import Emit


@dataclass(frozen=True)
class Activation:
    """A row of the table.

    Args:
        name: as configs and architectures spell it.
        create: makes the module for that many channels on axis 1, the most that it will see; rows with nothing for
            each channel ignore it. Never one that works in place, because residual paths share their input.
        emit: writes the module's ONNX form into a graph: (writer, module, input) → output.
        formula: on one line.
        reference: who published it.
        cost: what there is to compute, in a few words.
        learnable: whether it has parameters that are trained with the network.
    """

    name: str
    create: Callable[[int], nn.Module]
    emit: Emit
    formula: str
    reference: str
    cost: str
    learnable: bool = False

    @property
    def description(self) -> str:
        """The row on one line: formula, whether it learns, cost."""
        return f"{self.formula} · {'learnable' if self.learnable else 'fixed'} · {self.cost}"


_TABLE: dict[str, Activation] = {}
_EMITTERS: dict[type[nn.Module], Emit] = {}
_LEARNABLE: set[type[nn.Module]] = set()
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(_TABLE)
ALIASES: Mapping[str, str] = MappingProxyType({"swish": "silu"})
"""Other names of rows; what is found under one is told under the row's own."""


def register(activation: Activation, *, replace: bool = False) -> None:
    """Add a row to the table.

    Args:
        activation: its module's type gets the row's rule for quick graphs, unless another row has that type.
        replace: take the place of a row of that name.

    Raises:
        ValueError: the name is taken.
    """
    if not replace and (activation.name in _TABLE or activation.name in ALIASES):
        raise ValueError(f"an activation named {activation.name!r} is already in the table")
    _TABLE[activation.name] = activation
    # The first row of a type is its rule: rows that differ by an option (gelu, gelu_tanh) share one.
    module_type = type(activation.create(1))
    _EMITTERS.setdefault(module_type, activation.emit)
    if activation.learnable:
        _LEARNABLE.add(module_type)


def names() -> tuple[str, ...]:
    """All names, in the table's order."""
    return tuple(_TABLE)


def resolve(name: str) -> str:
    """The row's own name for a name or an alias.

    Raises:
        UnknownActivationError: no such row; the message lists the valid ones and the nearest.
    """
    known = ALIASES.get(name, name)
    if known not in _TABLE:
        raise UnknownActivationError(name, (*_TABLE, *ALIASES))
    return known


def create(name: str, channels: int) -> nn.Module:
    """Make the activation of that name, for that many channels on axis 1.

    Raises:
        UnknownActivationError: no such row; the message lists the valid ones and the nearest.
    """
    return _TABLE[resolve(name)].create(channels)


@contextmanager
def as_if_trained(network: nn.Module) -> Iterator[nn.Module]:
    """The network with its learnable activations moved off their start, as long as the context lasts.

    A β of 1 or a slope of 0 would need no operator of its own; after the training they have other values, and a
    network that isn't trained yet is to cost what it costs then.
    """
    parameters = [p for module in network.modules() if type(module) in _LEARNABLE for p in module.parameters()]
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                steps = torch.arange(parameter.numel(), device=parameter.device).reshape(parameter.shape)
                parameter.mul_(_MOVED_BY).add_(_MOVED_BY - 1 + 1e-3 * steps.to(parameter.dtype) / parameter.numel())
        yield network
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


def emitter_of(module_type: type[nn.Module]) -> Emit | None:
    """The rule that writes modules of exactly this type, or None when no row makes them."""
    return _EMITTERS.get(module_type)


def _fixed(name: str, make: Callable[[], nn.Module], emit: Emit, formula: str, reference: str, cost: str) -> Activation:
    return Activation(name, lambda channels: make(), emit, formula, reference, cost)


def _learnt(
    name: str, make: Callable[[], nn.Module], emit: Emit, formula: str, reference: str, cost: str
) -> Activation:
    """With one set of parameters for a site."""
    return Activation(name, lambda channels: make(), emit, formula, reference, cost, learnable=True)


def _gelu_tanh() -> nn.Module:
    return nn.GELU(approximate="tanh")


_HARDSIGMOID = graphs.plain("HardSigmoid", alpha=float(np.float32(1 / 6)), beta=0.5)
_MOVED_BY = 1.01
_BRANCH = "a comparison and a product"

for _row in (
    _fixed("identity", nn.Identity, graphs.identity, "x", "–", "nothing"),
    _fixed("relu", nn.ReLU, graphs.plain("Relu"), "max(x, 0)", "Nair & Hinton 2010", "a comparison"),
    _fixed("relu6", nn.ReLU6, graphs.hardtanh, "min(max(x, 0), 6)", "Krizhevsky 2010", "two comparisons"),
    _fixed("leaky_relu", nn.LeakyReLU, graphs.leaky_relu, "x where x > 0, else 0.01 x", "Maas et al. 2013", _BRANCH),
    _fixed("elu", nn.ELU, graphs.elu, "x where x > 0, else exp(x) − 1", "Clevert et al. 2015", "an exponential"),
    _fixed(
        "selu",
        nn.SELU,
        graphs.plain("Selu"),
        "1.0507 (x where x > 0, else 1.6733 (exp(x) − 1))",
        "Klambauer et al. 2017",
        "an exponential",
    ),
    _fixed("celu", nn.CELU, graphs.celu, "max(x, 0) + min(exp(x) − 1, 0), as elu", "Barron 2017", "an exponential"),
    _fixed("gelu", nn.GELU, graphs.gelu, "x Φ(x)", "Hendrycks & Gimpel 2016", "an error function"),
    _fixed(
        "gelu_tanh",
        _gelu_tanh,
        graphs.gelu,
        "x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, about gelu",
        "Hendrycks & Gimpel 2016",
        "a hyperbolic tangent and products",
    ),
    _fixed(
        "silu",
        nn.SiLU,
        graphs.silu,
        "x σ(x), also called swish",
        "Elfwing et al. 2017; Ramachandran et al. 2017",
        "a sigmoid and a product, fused",
    ),
    _fixed(
        "mish",
        nn.Mish,
        graphs.plain("Mish"),
        "x tanh(softplus(x))",
        "Misra 2019",
        "exponential, logarithm, tangent; lowered to an exponential and a division",
    ),
    _fixed(
        "hardswish",
        nn.Hardswish,
        graphs.plain("HardSwish"),
        "x min(max(x + 3, 0), 6) / 6",
        "Howard et al. 2019",
        "comparisons and products",
    ),
    _fixed(
        "hardsigmoid",
        nn.Hardsigmoid,
        _HARDSIGMOID,
        "min(max(x + 3, 0), 6) / 6",
        "Courbariaux et al. 2015; Howard et al. 2019",
        "comparisons and a product",
    ),
    _fixed("hardtanh", nn.Hardtanh, graphs.hardtanh, "min(max(x, −1), 1)", "Collobert 2004", "two comparisons"),
    _fixed("sigmoid", nn.Sigmoid, graphs.plain("Sigmoid"), "σ(x) = 1 / (1 + exp(−x))", "–", "a sigmoid"),
    _fixed("tanh", nn.Tanh, graphs.plain("Tanh"), "tanh(x)", "–", "a hyperbolic tangent"),
    _fixed(
        "softplus", nn.Softplus, graphs.softplus, "log(1 + exp(x))", "Dugas et al. 2000", "exponential and logarithm"
    ),
    _fixed("softsign", nn.Softsign, graphs.softsign, "x / (1 + |x|)", "Bergstra et al. 2009", "a division, not fused"),
    _fixed(
        "squared_relu",
        learnable.SquaredReLU,
        graphs.squared_relu,
        "max(x, 0)²",
        "So et al. 2021",
        "a comparison and a product",
    ),
    _learnt("prelu", nn.PReLU, graphs.prelu, "x where x > 0, else a x; one a", "He et al. 2015", _BRANCH),
    Activation(
        "prelu_channel",
        learnable.ChannelPReLU,
        graphs.prelu,
        "x where x > 0, else a x; one a for each channel",
        "He et al. 2015",
        _BRANCH,
        learnable=True,
    ),
    _learnt(
        "swish_beta",
        learnable.SwishBeta,
        graphs.swish_beta,
        "x σ(β x)",
        "Ramachandran et al. 2017",
        "a sigmoid and two products",
    ),
    _learnt(
        "scaled_sigmoid",
        learnable.ScaledSigmoid,
        graphs.scaled_sigmoid,
        "a σ(x) + b",
        "after LeCun et al. 1998",
        "a sigmoid, a product, a sum",
    ),
    Activation(
        "acon",
        learnable.AconC,
        graphs.acon,
        "(p₁ − p₂) x σ(β (p₁ − p₂) x) + p₂ x; p₁, p₂, β for each channel",
        "Ma et al. 2021",
        "a sigmoid, four products, a sum",
        learnable=True,
    ),
    _learnt(
        "piecewise_linear",
        learnable.PiecewiseLinear,
        graphs.piecewise_linear,
        "s₀ x + Σ (sᵢ − sᵢ₋₁) max(x − tᵢ, 0), i = 1, 2, 3",
        "after Agostinelli et al. 2014",
        "comparisons, products and sums, in many operators",
    ),
    _learnt(
        "pade",
        learnable.Pade,
        graphs.pade,
        "(a₀ + a₁ x + … + a₅ x⁵) / (1 + |b₁ x + … + b₄ x⁴|)",
        "Molina et al. 2020",
        "products and sums in many operators, and a division",
    ),
):
    register(_row)
