"""The one table of activations: each row has the module that trains and the ONNX form that is deployed.

`emit` writes the form that torch's exporter ends up with at opset 20, so that a quick graph costs on a device what
the final export will cost.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from export.activations import emitters as rules
from export.activations import learnable
from export.errors import UnknownActivationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from export.activations.emitters import Emit


@dataclass(frozen=True)
class Activation:
    """A row of the table: one activation.

    Args:
        name: as configs and architectures spell it.
        create: makes the module for at most so many channels on axis 1; rows without parameters for each channel
            ignore the number. The module must not work in place, because residual paths share their input.
        emit: writes the module's ONNX form into a graph: (writer, module, input) → output.
        formula: on one line.
        reference: authors and year of the publication.
        cost: the operations to compute, in a few words.
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
        """Formula, whether it is learnable, and cost, on one line."""
        return f"{self.formula} · {'learnable' if self.learnable else 'fixed'} · {self.cost}"


ACTIVATIONS: dict[str, Activation] = {}
"""Name → row; `register` adds to it."""
EMITTERS: dict[type[nn.Module], Emit] = {}
"""Type of module → the rule that writes it; filled by `register`, too."""
ALIASES: Mapping[str, str] = MappingProxyType({"swish": "silu"})
"""Other name → the row's own, by which messages and files call it."""
_LEARNABLE: set[type[nn.Module]] = set()


def register(activation: Activation, *, replace: bool = False) -> None:
    """Add a row to the table.

    Args:
        activation: the row; quick graphs write its module's type by its rule, unless an earlier row has that type.
        replace: whether it may take the place of a row of the same name.

    Raises:
        ValueError: the name is taken.
    """
    if not replace and (activation.name in ACTIVATIONS or activation.name in ALIASES):
        raise ValueError(f"an activation named {activation.name!r} is already in the table")
    ACTIVATIONS[activation.name] = activation
    # The first row of a type is its rule: rows that differ by an option (gelu, gelu_tanh) share one.
    module_type = type(activation.create(1))
    EMITTERS.setdefault(module_type, activation.emit)
    if activation.learnable:
        _LEARNABLE.add(module_type)


def names() -> tuple[str, ...]:
    """Names of all rows, in the table's order."""
    return tuple(ACTIVATIONS)


def resolve(name: str) -> str:
    """Resolve a name or an alias to the row's own name.

    Raises:
        UnknownActivationError: no such row.
    """
    known = ALIASES.get(name, name)
    if known not in ACTIVATIONS:
        raise UnknownActivationError(name, (*ACTIVATIONS, *ALIASES))
    return known


def create(name: str, channels: int) -> nn.Module:
    """Make the module of an activation for at most so many channels on axis 1.

    Raises:
        UnknownActivationError: no such row.
    """
    return ACTIVATIONS[resolve(name)].create(channels)


@contextmanager
def as_if_trained(network: nn.Module) -> Iterator[nn.Module]:
    """A context in which the learnable parameters of the network's activations are moved off their initial values.

    A β of 1 or a slope of 0 needs no operator of its own. After the training they have other values, and an untrained
    network has to cost what it will cost then.
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
    """The rule that writes modules of exactly this type; None where no row makes them."""
    return EMITTERS.get(module_type)


def _row(name: str, make: Callable[[], nn.Module], emit: Emit, formula: str, reference: str, cost: str) -> Activation:
    """A row without parameters for each channel."""
    learnable = any(True for _ in make().parameters())
    return Activation(name, lambda channels: make(), emit, formula, reference, cost, learnable)


def _gelu_tanh() -> nn.Module:
    return nn.GELU(approximate="tanh")


_HARDSIGMOID = rules.plain("HardSigmoid", alpha=float(np.float32(1 / 6)), beta=0.5)
_MOVED_BY = 1.01
_BRANCH = "a comparison and a product"

_ROWS = (
    _row("identity", nn.Identity, rules.identity, "x", "–", "nothing"),
    _row("relu", nn.ReLU, rules.plain("Relu"), "max(x, 0)", "Nair & Hinton 2010", "a comparison"),
    _row("relu6", nn.ReLU6, rules.hardtanh, "min(max(x, 0), 6)", "Krizhevsky 2010", "two comparisons"),
    _row("leaky_relu", nn.LeakyReLU, rules.with_alpha("LeakyRelu", "negative_slope"),
         "x where x > 0, else 0.01 x", "Maas et al. 2013", _BRANCH),
    _row("elu", nn.ELU, rules.with_alpha("Elu"),
         "x where x > 0, else exp(x) − 1", "Clevert et al. 2015", "an exponential"),
    _row("selu", nn.SELU, rules.plain("Selu"),
         "1.0507 (x where x > 0, else 1.6733 (exp(x) − 1))", "Klambauer et al. 2017", "an exponential"),
    _row("celu", nn.CELU, rules.with_alpha("Celu"),
         "max(x, 0) + min(exp(x) − 1, 0), as elu", "Barron 2017", "an exponential"),
    _row("gelu", nn.GELU, rules.gelu, "x Φ(x)", "Hendrycks & Gimpel 2016", "an error function"),
    _row("gelu_tanh", _gelu_tanh, rules.gelu,
         "x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, about gelu", "Hendrycks & Gimpel 2016",
         "a hyperbolic tangent and products"),
    _row("silu", nn.SiLU, rules.silu,
         "x σ(x), also called swish", "Elfwing et al. 2017; Ramachandran et al. 2017",
         "a sigmoid and a product, fused"),
    _row("mish", nn.Mish, rules.plain("Mish"),
         "x tanh(softplus(x))", "Misra 2019",
         "exponential, logarithm, tangent; lowered to an exponential and a division"),
    _row("hardswish", nn.Hardswish, rules.plain("HardSwish"),
         "x min(max(x + 3, 0), 6) / 6", "Howard et al. 2019", "comparisons and products"),
    _row("hardsigmoid", nn.Hardsigmoid, _HARDSIGMOID,
         "min(max(x + 3, 0), 6) / 6", "Courbariaux et al. 2015; Howard et al. 2019", "comparisons and a product"),
    _row("hardtanh", nn.Hardtanh, rules.hardtanh, "min(max(x, −1), 1)", "Collobert 2004", "two comparisons"),
    _row("sigmoid", nn.Sigmoid, rules.plain("Sigmoid"), "σ(x) = 1 / (1 + exp(−x))", "–", "a sigmoid"),
    _row("tanh", nn.Tanh, rules.plain("Tanh"), "tanh(x)", "–", "a hyperbolic tangent"),
    _row("softplus", nn.Softplus, rules.softplus, "log(1 + exp(x))", "Dugas et al. 2000", "exponential and logarithm"),
    _row("softsign", nn.Softsign, rules.softsign, "x / (1 + |x|)", "Bergstra et al. 2009", "a division, not fused"),
    _row("squared_relu", learnable.SquaredReLU, rules.squared_relu,
         "max(x, 0)²", "So et al. 2021", "a comparison and a product"),
    _row("prelu", nn.PReLU, rules.prelu, "x where x > 0, else a x; one a", "He et al. 2015", _BRANCH),
    Activation("prelu_channel", learnable.ChannelPReLU, rules.prelu,
               "x where x > 0, else a x; one a for each channel", "He et al. 2015", _BRANCH, learnable=True),
    _row("swish_beta", learnable.SwishBeta, rules.swish_beta,
         "x σ(β x)", "Ramachandran et al. 2017", "a sigmoid and two products"),
    _row("scaled_sigmoid", learnable.ScaledSigmoid, rules.scaled_sigmoid,
         "a σ(x) + b", "after LeCun et al. 1998", "a sigmoid, a product, a sum"),
    Activation("acon", learnable.AconC, rules.acon,
               "(p₁ − p₂) x σ(β (p₁ − p₂) x) + p₂ x; p₁, p₂, β for each channel", "Ma et al. 2021",
               "a sigmoid, four products, a sum", learnable=True),
    _row("piecewise_linear", learnable.PiecewiseLinear, rules.piecewise_linear,
         "s₀ x + Σ (sᵢ − sᵢ₋₁) max(x − tᵢ, 0), i = 1, 2, 3", "after Agostinelli et al. 2014",
         "comparisons, products and sums, in many operators"),
    _row("pade", learnable.Pade, rules.pade,
         "(a₀ + a₁ x + … + a₅ x⁵) / (1 + |b₁ x + … + b₄ x⁴|)", "Molina et al. 2020",
         "products and sums in many operators, and a division"),
)  # fmt: skip
for _each in _ROWS:
    register(_each)
