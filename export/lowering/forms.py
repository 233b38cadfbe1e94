"""The exact forms of each activation for ONNX Runtime, the one that is usually cheapest first.

Two facts of ONNX Runtime's CPU provider decide (docs/activations.md has the figures):

- Convolutions run in a blocked layout. Sigmoid, Tanh, Relu, HardSigmoid, Gelu, x·σ(αx), Add and Mul of two maps stay
  in it; every other operator first has its input, then its output reordered. A scale and a shift of each channel stay
  in it when they are written as a 1×1 convolution with a group for each channel, and LeakyRelu and Clip when they
  follow a convolution, which then takes them in.
- Exp, Sigmoid, Tanh, Erf and the four operations are vectorised; Softplus, Log, Elu and PRelu are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from export.lowering.families import RecognisedActivation
    from export.lowering.node_writer import NodeWriter

    Array = npt.NDArray[Any]
    Write = Callable[[NodeWriter, str, RecognisedActivation], str]
    Applies = Callable[[RecognisedActivation, "Context"], bool]

_OVERFLOW = 20.0  # above it mish is x, and exp(x)² still a float32


@dataclass(frozen=True)
class Context:
    """The surroundings of an activation in a graph.

    Attributes:
        channels: number of channels of its input, if they certainly lie on axis 1 of 4; otherwise None.
        joins: whether a convolution comes right before it, and nothing else reads that convolution's result.
        opset: of the graph.
    """

    channels: int | None
    joins: bool
    opset: int


@dataclass(frozen=True)
class Form:
    """One way to write an activation.

    Attributes:
        name: unique within its family.
        write: (writer, input, activation) → output.
        applies: whether it is exact for the activation's parameters and fits into the context.
        scale: factor that the form needs on its input; the convolution before takes it into its weights.
    """

    name: str
    write: Write
    applies: Applies
    scale: float = 1.0


def forms_of(act: RecognisedActivation, context: Context) -> list[Form]:
    """The forms that fit an activation and its context, the usually cheapest first; may be empty."""
    return [form for form in FORMS[act.family] if form.applies(act, context)]


# --- where a form may stand --------------------------------------------------------------------------------


def _anywhere(act: RecognisedActivation, context: Context) -> bool:
    return True


def _blocked(act: RecognisedActivation, context: Context) -> bool:
    return context.channels is not None and act.channels in (1, context.channels)


def _one_for_all(act: RecognisedActivation, context: Context) -> bool:
    return act.channels == 1


def _several(act: RecognisedActivation, context: Context) -> bool:
    return act.channels > 1


def _joined(act: RecognisedActivation, context: Context) -> bool:
    return context.joins


def _not_joined(act: RecognisedActivation, context: Context) -> bool:
    return not context.joins


def _from_opset(opset: int) -> Applies:
    return lambda act, context: context.opset >= opset


def _before_opset(opset: int) -> Applies:
    return lambda act, context: context.opset < opset


def _both(*conditions: Applies) -> Applies:
    return lambda act, context: all(condition(act, context) for condition in conditions)


def _where(condition: Callable[[RecognisedActivation], bool]) -> Applies:
    return lambda act, context: condition(act)


# --- leaky relu, in one slope or one for each channel ------------------------------------------------------


def _relu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("Relu", x)


def _leaky(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("LeakyRelu", x, alpha=act.number("slope"))


def _leaky_joined(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("LeakyRelu", w.affine(x, 1.0), alpha=act.number("slope"))


def _leaky_two_lines(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """relu((1 − a)x) + ax, for slopes a ≤ 1."""
    slope = act.parameters["slope"]
    return w.node("Add", w.node("Relu", w.affine(x, 1 - slope)), w.affine(x, slope))


def _leaky_sum(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    slope = act.parameters["slope"]
    return w.node("Add", w.affine(w.node("Relu", x), 1 - slope), w.affine(x, slope))


def _leaky_flat(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """max(x, ax), for slopes a ≤ 1."""
    return w.node("Max", x, w.node("Mul", x, w.per_channel(act.parameters["slope"])))


def _leaky_prelu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("PRelu", x, w.per_channel(act.parameters["slope"]))


def _bends(act: RecognisedActivation) -> bool:
    return not _is_relu(act)


def _is_relu(act: RecognisedActivation) -> bool:
    return act.all("slope", 0.0)


def _at_most_one(act: RecognisedActivation) -> bool:
    return bool(np.all(act.parameters["slope"] <= 1))


# --- with one operator -------------------------------------------------------------------------------------


def _clip(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("Clip", x, w.number(act.number("low")), w.number(act.number("high")))


def _clip_joined(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return _clip(w, w.affine(x, 1.0), act)


def _hard_sigmoid(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("HardSigmoid", x, alpha=act.number("alpha"), beta=act.number("beta"))


def _operator(op_type: str, **attributes: Any) -> Write:
    return lambda w, x, act: w.node(op_type, x, **attributes)


def _hardswish_product(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("Mul", x, w.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _squared_relu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    positive = w.node("Relu", x)
    return w.node("Mul", positive, positive)


def _gelu_chain(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """Write the order of operators that ONNX Runtime fuses."""
    risen = w.node("Add", w.node("Erf", w.node("Div", x, w.number(math.sqrt(2)))), w.number(1.0))
    return w.node("Mul", w.node("Mul", x, risen), w.number(0.5))


# --- sigmoids ----------------------------------------------------------------------------------------------


def _inner(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return x if act.all("inner", 1.0) else w.scaled(x, act.parameters["inner"])


def _sigmoid(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("Sigmoid", _inner(w, x, act))


def _is_sigmoid(act: RecognisedActivation) -> bool:
    return act.all("scale", 1.0) and act.all("shift", 0.0)


def _is_scaled(act: RecognisedActivation) -> bool:
    return not (_is_sigmoid(act) or _is_tanh(act))


def _is_tanh(act: RecognisedActivation) -> bool:
    return act.all("scale", 2.0) and act.all("shift", -1.0) and act.all("inner", 2.0)


def _scaled_sigmoid(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.affine(_sigmoid(w, x, act), act.parameters["scale"], act.parameters["shift"])


def _scaled_sigmoid_flat(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    scaled = w.scaled(_sigmoid(w, x, act), act.parameters["scale"])
    return w.node("Add", scaled, w.per_channel(act.parameters["shift"]))


def _swish(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x·σ(βx), which ONNX Runtime fuses, also with β where that is one number."""
    beta = act.parameters["beta"]
    return w.node("Mul", x, w.node("Sigmoid", x if act.all("beta", 1.0) else w.scaled(x, beta)))


def _acon_of_silu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x·σ(x) + bx, for scales before and behind that have been folded away."""
    return w.node("Add", w.node("Mul", x, w.node("Sigmoid", x)), w.affine(x, act.parameters["lower"]))


def _is_of_silu(act: RecognisedActivation) -> bool:
    return act.all("inner", 1.0) and act.all("difference", 1.0)


def _acon(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x·(aσ(kx) + b)."""
    inner = x if act.all("inner", 1.0) else w.affine(x, act.parameters["inner"])
    gate = w.affine(w.node("Sigmoid", inner), act.parameters["difference"], act.parameters["lower"])
    return w.node("Mul", x, gate)


def _acon_flat(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    gate = w.scaled(w.node("Sigmoid", _inner(w, x, act)), act.parameters["difference"])
    return w.node("Mul", x, w.node("Add", gate, w.per_channel(act.parameters["lower"])))


# --- exponentials ------------------------------------------------------------------------------------------


def _mish_reflected(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x(1 − 2v/(1 + v)), v = σ(−x)²; only the division, a Softsign, leaves the blocked layout."""
    s = w.node("Sigmoid", w.affine(x, -1.0))
    share = w.node("Softsign", w.node("Mul", s, s))
    return w.node("Mul", x, w.affine(share, -2.0, 1.0))


def _mish_negated(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """y(2v/(1 + v) − 1), v = σ(y)², y = −x: the reflected form of −x, which a convolution before gives at no cost."""
    s = w.node("Sigmoid", x)
    share = w.node("Softsign", w.node("Mul", s, s))
    return w.node("Mul", x, w.affine(share, 2.0, -1.0))


def _mish_softsign(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x·m/(1 + m), m = e(e + 2)/2, e = exp(min(x, 20))."""
    e = w.node("Exp", w.node("Clip", x, w.number(-80.0), w.number(_OVERFLOW)))
    m = w.node("Mul", w.node("Mul", e, w.node("Add", e, w.number(2.0))), w.number(0.5))
    return w.node("Mul", x, w.node("Softsign", m))


def _mish_division(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """x·n/(n + 2), n = e(e + 2), e = exp(min(x, 20))."""
    e = w.node("Exp", w.node("Min", x, w.number(_OVERFLOW)))
    n = w.node("Mul", e, w.node("Add", e, w.number(2.0)))
    return w.node("Div", w.node("Mul", x, n), w.node("Add", n, w.number(2.0)))


def _negative_part(w: NodeWriter, x: str) -> str:
    return w.node("Clip", x, "", w.number(0.0))


def _elu_max(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """max(x, α(exp(min(x, 0)) − 1)), for α ≤ 1: there the exponential lies below the line where x > 0."""
    falling = w.node("Sub", w.node("Exp", _negative_part(w, x)), w.number(1.0))
    if not act.all("alpha", 1.0):
        falling = w.scaled(falling, act.parameters["alpha"])
    return w.node("Max", x, falling)


def _below_its_line(act: RecognisedActivation) -> bool:
    return act.all("scale", 1.0) and bool(np.all(act.parameters["alpha"] <= 1))


def _elu_sum_blocked(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """s·relu(x) + exp(min(x, 0) + ln sα) − sα: the exponent, its limit and the sum each join a convolution."""
    scale, drop = act.parameters["scale"], act.parameters["scale"] * act.parameters["alpha"]
    highest = float(np.log(drop[0]))
    risen = w.node("Exp", w.node("Clip", w.affine(x, 1.0, highest), "", w.number(highest)))
    positive = w.node("Relu", x if act.all("scale", 1.0) else w.affine(x, scale))
    return w.node("Add", w.affine(risen, 1.0, -drop), positive)


def _elu_sum(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    scale, drop = act.parameters["scale"], act.parameters["scale"] * act.parameters["alpha"]
    falling = w.node("Sub", w.node("Exp", _negative_part(w, x)), w.number(1.0))
    positive = w.node("Relu", x)
    return w.node("Add", w.scaled(falling, drop), positive if act.all("scale", 1.0) else w.scaled(positive, scale))


def _selu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    alpha = act.number("alpha")
    if act.all("scale", 1.0):
        return w.node("Elu", x, alpha=alpha)
    return w.node("Selu", x, alpha=alpha, gamma=act.number("scale"))


def _celu(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    return w.node("Celu", x, alpha=act.number("alpha"))


def _celu_max(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """max(x, α(exp(min(x, 0)/α) − 1))."""
    alpha = act.parameters["alpha"]
    negative = _negative_part(w, x)
    plain = act.all("alpha", 1.0)
    falling = w.node("Sub", w.node("Exp", negative if plain else w.scaled(negative, 1 / alpha)), w.number(1.0))
    return w.node("Max", x, falling if plain else w.scaled(falling, alpha))


def _softplus_log(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """relu(x) − ln σ(|x|)."""
    return w.node("Sub", w.node("Relu", x), w.node("Log", w.node("Sigmoid", w.node("Abs", x))))


def _softplus_rational(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """relu(x) + 2 artanh z, z = t/(2 + t), t = exp(−|x|): z is at most 1/3, and four terms are exact in float32."""
    half = w.node("Mul", w.node("Exp", w.node("Min", x, w.node("Neg", x))), w.number(0.5))
    z = w.node("Softsign", half)
    square = w.node("Mul", z, z)
    first, *others = artanh_coefficients()[::-1]
    sum_ = w.node("Mul", square, w.number(first))
    for coefficient in others[:-1]:
        sum_ = w.node("Mul", w.node("Add", sum_, w.number(coefficient)), square)
    series = w.node("Add", sum_, w.number(others[-1]))
    return w.node("Add", w.node("Mul", series, z), w.node("Relu", x))


@lru_cache(maxsize=1)
def artanh_coefficients() -> tuple[float, ...]:
    """Coefficients of 2 artanh(z)/z as a polynomial in z², by least squares at Chebyshev nodes on 0 < z ≤ 1/3."""
    z = (np.cos(np.linspace(0, np.pi, 400)[:-1]) + 1) / 6
    powers = np.vander(z * z, 4, increasing=True)
    found = np.linalg.lstsq(powers * z[:, None], 2 * np.arctanh(z), rcond=None)[0]
    return tuple(float(each) for each in found)


def _is_unit(name: str) -> Callable[[RecognisedActivation], bool]:
    return lambda act: act.all(name, 1.0)


# --- piecewise linear --------------------------------------------------------------------------------------


def _hinges_blocked(w: NodeWriter, x: str, act: RecognisedActivation) -> str:
    """First line plus hinges |d|·relu(x − t), each one convolution with its Relu; falling ones get their sign last."""
    slopes, offset = act.parameters["slopes"][0], act.parameters["offset"][0, 0]
    y = w.affine(x, slopes[0], offset)
    for knot, bend in zip(act.parameters["knots"][0], np.diff(slopes), strict=True):
        hinge = w.node("Relu", w.affine(x, abs(bend), -abs(bend) * knot))
        y = w.node("Add", y, hinge if bend > 0 else w.affine(hinge, -1.0))
    return y


FORMS: Mapping[str, tuple[Form, ...]] = {
    "leaky_relu": (
        Form("relu", _relu, _where(_is_relu)),
        Form("joins", _leaky_joined, _both(_one_for_all, _where(_bends), _blocked, _not_joined)),
        Form("operator", _leaky, _both(_one_for_all, _where(_bends))),
        Form("two_lines", _leaky_two_lines, _both(_blocked, _several, _where(_at_most_one))),
        Form("sum", _leaky_sum, _both(_blocked, _several)),
        Form("maximum", _leaky_flat, _both(_several, _where(_at_most_one))),
        Form("prelu", _leaky_prelu, _several),
    ),
    "clip": (
        Form("joins", _clip_joined, _both(_blocked, _not_joined, _from_opset(11))),
        Form("operator", _clip, _from_opset(11)),
    ),
    "hardsigmoid": (Form("operator", _hard_sigmoid, _one_for_all),),
    "hardswish": (
        Form("operator", _operator("HardSwish"), _from_opset(14)),
        Form("product", _hardswish_product, _before_opset(14)),
    ),
    "squared_relu": (Form("square", _squared_relu, _anywhere),),
    "softsign": (Form("operator", _operator("Softsign"), _anywhere),),
    "gelu": (
        Form("operator", _operator("Gelu"), _from_opset(20)),
        Form("chain", _gelu_chain, _both(_from_opset(9), _before_opset(20))),
    ),
    "gelu_tanh": (Form("operator", _operator("Gelu", approximate="tanh"), _from_opset(20)),),
    "sigmoid": (
        Form("operator", _sigmoid, _where(_is_sigmoid)),
        Form("tanh", _operator("Tanh"), _where(_is_tanh)),
        Form("blocked", _scaled_sigmoid, _both(_blocked, _where(_is_scaled))),
        Form("plain", _scaled_sigmoid_flat, _where(_is_scaled)),
    ),
    "swish": (Form("product", _swish, _anywhere),),
    "acon": (
        Form("of_silu", _acon_of_silu, _both(_blocked, _where(_is_of_silu))),
        Form("blocked", _acon, _both(_blocked, lambda act, context: not _is_of_silu(act))),
        Form("plain", _acon_flat, lambda act, context: not (_is_of_silu(act) and _blocked(act, context))),
    ),
    "mish": (
        Form("negated", _mish_negated, _both(_blocked, _joined), scale=-1.0),
        Form("reflected", _mish_reflected, _blocked),
        Form("softsign", _mish_softsign, _from_opset(11)),
        Form("division", _mish_division, _anywhere),
        Form("operator", _operator("Mish"), _from_opset(18)),
    ),
    "elu": (
        Form("maximum", _elu_max, _both(_from_opset(11), _where(_below_its_line))),
        Form("blocked", _elu_sum_blocked, _both(_blocked, _one_for_all, _from_opset(11))),
        Form("sum", _elu_sum, _both(_from_opset(11), _one_for_all)),
        Form("operator", _selu, _one_for_all),
    ),
    "celu": (
        Form("maximum", _celu_max, _from_opset(11)),
        Form("operator", _celu, _both(_from_opset(12), _one_for_all)),
    ),
    "softplus": (
        Form("rational", _softplus_rational, _where(_is_unit("beta"))),
        Form("logarithm", _softplus_log, _where(_is_unit("beta"))),
        Form("operator", _operator("Softplus"), _where(_is_unit("beta"))),
    ),
    "piecewise_linear": (Form("blocked", _hinges_blocked, _blocked),),
}
