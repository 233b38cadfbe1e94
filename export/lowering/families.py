"""The families of activations that the lowering knows, and how a function is recognised as one of them.

A part of a graph belongs to a family when it computes the same, in whatever way it is written: the parameters are read
off at a few points, and the two functions are compared over the whole range of float32 networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from export.lowering import elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Function = Callable[[Array], Array]
    Parameters = dict[str, Array]

FAR = 1e4
"""Activations are compared from −FAR to FAR."""
TOLERANCE = 1e-6
"""Two are the same where they differ by no more than this times max(1, |x|, |f(x)|)."""
IDENTICAL = 2e-7
"""Like `TOLERANCE`, for two functions in float64 whose stored parameters are float32."""
_MOST_KNOTS = 16
_BEYOND = np.array([-1e8, -1e6, -1e5, 1e5, 1e6, 1e8])  # where a limit such as float16's would show


_SPECIAL: Mapping[str, tuple[tuple[str, Mapping[str, float]], ...]] = {
    "leaky_relu": (("relu", {"slope": 0.0}),),
    "clip": (("relu6", {"low": 0.0, "high": 6.0}), ("hardtanh", {"low": -1.0, "high": 1.0})),
    "sigmoid": (
        ("sigmoid", {"inner": 1.0, "scale": 1.0, "shift": 0.0}),
        ("tanh", {"inner": 2.0, "scale": 2.0, "shift": -1.0}),
        ("scaled_sigmoid", {}),
    ),
    "swish": (("silu", {"beta": 1.0}), ("swish_beta", {})),
    "elu": (("elu", {"scale": 1.0}), ("selu", {})),
}
_OF_CHANNELS = {"leaky_relu": "prelu_channel", "sigmoid": "scaled_sigmoid", "swish": "swish_beta"}
"""Family → its name where channels have parameters of their own."""


@dataclass(frozen=True)
class Family:
    """Functions that differ in parameters only.

    Attributes:
        name: of the activation.
        value: from x (n,) and parameters (channels, 1) to the function's values (channels, n), in float64.
        fit: from a function to its parameters, each (channels,), if it belongs to the family; None where it can't.
    """

    name: str
    value: Callable[..., Array]
    fit: Callable[[Function], Parameters | None]


@dataclass(frozen=True, eq=False)
class RecognisedActivation:
    """A function recognised as one of a family, with its parameters, each (channels,)."""

    family: str
    parameters: Parameters

    @property
    def channels(self) -> int:
        """Number of channels with parameters of their own; 1 where all share them."""
        return max((len(values) for values in self.parameters.values()), default=1)

    def number(self, name: str) -> float:
        """The value of a parameter that all channels share."""
        return float(self.parameters[name][0])

    def all(self, name: str, value: float) -> bool:
        """Whether a parameter has this value in every channel (to float32's precision)."""
        return bool(np.all(np.float32(self.parameters[name]) == np.float32(value)))

    @property
    def name(self) -> str:
        """Its name in the table of activations, where it has these parameters; otherwise the family's name."""
        if self.channels > 1:
            return _OF_CHANNELS.get(self.family, self.family)
        special = _SPECIAL.get(self.family, ())
        return next((name for name, values in special if self._has(values)), self.family)

    def _has(self, values: Mapping[str, float]) -> bool:
        return all(self.all(name, value) for name, value in values.items())

    def __call__(self, x: Array) -> Array:
        """Evaluate the function at x (n,); returns (channels, n), float64."""
        shaped = {name: values.astype(np.float64)[:, None] for name, values in self.parameters.items()}
        if self.family == "piecewise_linear":  # its parameters have an axis of pieces
            shaped = {name: values.astype(np.float64) for name, values in self.parameters.items()}
        with np.errstate(all="ignore"):
            values = FAMILIES[self.family].value(x.astype(np.float64), **shaped)
        return np.atleast_2d(values)


@lru_cache(maxsize=1)
def range_points() -> Array:
    """Points (n,), float32, from −FAR to FAR, at which functions are compared; densest around 0."""
    far = np.geomspace(1e-6, FAR, 160)
    near = np.linspace(-24, 24, 769)
    return np.unique(np.concatenate([-far, near, far, [0.0]]).astype(np.float32))


@lru_cache(maxsize=1)
def few_points() -> Array:
    """Fewer points than `range_points`, for functions with parameters of each channel."""
    far = np.geomspace(1e-4, FAR, 40)
    return np.unique(np.concatenate([-far, np.linspace(-12, 12, 97), far]).astype(np.float32))


def points_for(channels: int) -> Array:
    """Points at which functions of so many channels are compared."""
    return range_points() if channels == 1 else few_points()


def same(x: Array, values: Array, others: Array, tolerance: float = TOLERANCE) -> bool:
    """Whether two functions agree at the points x (n,); each has values (channels, n), or (1, n) for all channels."""
    size = np.maximum(1.0, np.maximum(np.abs(x), np.abs(values)))
    return bool(np.all(np.abs(values - others) <= tolerance * size))  # NaN is never within it


def recognise(function: Function, tolerance: float = IDENTICAL) -> RecognisedActivation | None:
    """Find the family and the parameters of a function; None where it belongs to no family.

    Args:
        function: x (n,) float64 → (channels, n) or (1, n).
        tolerance: of the comparison, as `same` takes it.
    """
    few = few_points().astype(np.float64)
    values = function(few)
    if not np.isfinite(values).all():
        return None
    if len(values) > 1 and not np.ptp(values, axis=0).any():  # stored for each channel, but the same in all
        return recognise(lambda x: function(x)[:1], tolerance)
    points = np.concatenate([points_for(len(values)).astype(np.float64), _BEYOND])
    values = function(points)
    # Each family evaluates the function at a few points of its own.
    for family in FAMILIES.values():
        with np.errstate(all="ignore"):
            parameters = family.fit(function)
            if parameters is None or not all(np.isfinite(each).all() for each in parameters.values()):
                continue
            act = RecognisedActivation(family.name, parameters)
        if same(points, values, act(points), tolerance):
            return act
    return None


def _at(function: Function, *points: float) -> list[Array]:
    """The function's values, (channels,), at each point."""
    return list(function(np.array(points)).T)


def _same(values: Array, expected: float) -> bool:
    return bool(np.allclose(values, expected, rtol=1e-6, atol=1e-7))


def _logit(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)


def _fixed(function: Function) -> Parameters:
    return {}


# --- the fits ----------------------------------------------------------------------------------------------


def _fit_leaky_relu(function: Function) -> Parameters | None:
    """Fit the slope, but not of x itself nor |x|, which have cheaper operators."""
    low, high = _at(function, -1.0, 1.0)
    return {"slope": -low} if _same(high, 1.0) and not _same(np.abs(low), 1.0) else None


def _fit_clip(function: Function) -> Parameters | None:
    low, high, nearly = _at(function, -FAR, FAR, FAR / 2)
    return {"low": low, "high": high} if _same(high, float(nearly[0])) and len(low) == 1 and low[0] < high[0] else None


def _fit_hard_sigmoid(function: Function) -> Parameters | None:
    zero, little, low, high = _at(function, 0.0, 0.125, -FAR, FAR)
    if len(zero) != 1 or not (_same(low, 0.0) and _same(high, 1.0)):
        return None
    return {"alpha": (little - zero) / 0.125, "beta": zero}


def _fit_elu(function: Function) -> Parameters | None:
    low, high = _at(function, -FAR, FAR)
    scale = high / FAR
    return {"scale": scale, "alpha": -low / scale} if np.all(scale > 0) and np.all(low < 0) else None


def _fit_celu(function: Function) -> Parameters | None:
    low, high = _at(function, -FAR, FAR)
    return {"alpha": -low} if _same(high, FAR) and np.all(low < 0) else None


def _fit_softplus(function: Function) -> Parameters | None:
    zero, high = _at(function, 0.0, FAR)
    return {"beta": np.log(2.0) / zero} if _same(high, FAR) and np.all(zero > 0) else None


def _fit_sigmoid(function: Function) -> Parameters | None:
    low, high, zero, one = _at(function, -FAR, FAR, 0.0, 1.0)
    scale = high - low
    if np.any(np.abs(scale) < 1e-6) or not np.allclose(zero, (low + high) / 2, rtol=1e-5, atol=1e-6):
        return None
    inner = _logit((one - low) / scale)
    # A negative inner scale is the same function with the ends exchanged.
    return {"inner": inner, "scale": scale, "shift": low}


def _fit_swish(function: Function) -> Parameters | None:
    one, zero = _at(function, 1.0, 0.0)
    return {"beta": _logit(one)} if _same(zero, 0.0) and np.all((one > 0) & (one < 1)) else None


def _fit_acon(function: Function) -> Parameters | None:
    low, high, one, zero = _at(function, -FAR, FAR, 1.0, 0.0)
    p2, p1 = low / -FAR, high / FAR
    difference = p1 - p2
    if not _same(zero, 0.0) or np.any(np.abs(difference) < 1e-6):
        return None
    inner = _logit((one - p2) / difference)
    return {"difference": difference, "lower": p2, "inner": inner}


def _fit_piecewise_linear(function: Function) -> Parameters | None:
    """Fit knots as the meeting points of lines through neighbouring points of a grid."""
    step = 1 / 64
    grid = np.arange(-12, 12 + step / 2, step)
    values = function(grid)
    if len(values) != 1:
        return None
    slopes = np.diff(values[0]) / step
    straight = np.abs(np.diff(slopes)) < 1e-5
    starts = [0, *(np.flatnonzero(straight[1:] & ~straight[:-1]) + 1)]
    pieces = [_line(grid, values[0], start) for start in starts if start + 2 < len(grid)]
    if not 2 <= len(pieces) <= _MOST_KNOTS:
        return None
    slope, offset = np.array(pieces).T
    bends = np.diff(slope)
    if np.any(np.abs(bends) < 1e-6):
        return None
    knots = -np.diff(offset) / bends
    return {"knots": knots[None], "slopes": slope[None], "offset": offset[None, :1]}


def _line(grid: Array, values: Array, start: int) -> tuple[float, float]:
    slope = (values[start + 2] - values[start + 1]) / (grid[start + 2] - grid[start + 1])
    return float(slope), float(values[start + 1] - slope * grid[start + 1])


# --- the functions -----------------------------------------------------------------------------------------


def _softplus(x: Array, beta: Array | float = 1.0) -> Array:
    return np.asarray(np.logaddexp(0, beta * x) / beta)


def _piecewise_linear(x: Array, knots: Array, slopes: Array, offset: Array) -> Array:
    """The first line plus a bend at each knot; knots (1, k), slopes (1, k + 1), offset (1, 1)."""
    y = slopes[0, 0] * x + offset[0, 0]
    for knot, bend in zip(knots[0], np.diff(slopes[0]), strict=True):
        y = y + bend * np.maximum(x - knot, 0)
    return np.asarray(y)


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("leaky_relu", lambda x, slope: np.where(x > 0, x, slope * x), _fit_leaky_relu),
        Family("clip", lambda x, low, high: np.clip(x, low, high), _fit_clip),
        Family("hardsigmoid", lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), _fit_hard_sigmoid),
        Family("hardswish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), _fixed),
        Family("mish", lambda x: x * np.tanh(_softplus(x)), _fixed),
        Family("gelu", lambda x: x * special.ndtr(x), _fixed),
        Family("gelu_tanh", elementwise.gelu_tanh, _fixed),
        Family("softsign", lambda x: x / (1 + np.abs(x)), _fixed),
        Family("squared_relu", lambda x: np.maximum(x, 0) ** 2, _fixed),
        Family("sigmoid", lambda x, inner, scale, shift: scale * special.expit(inner * x) + shift, _fit_sigmoid),
        Family("swish", lambda x, beta: x * special.expit(beta * x), _fit_swish),
        Family("softplus", _softplus, _fit_softplus),
        Family("elu", elementwise.elu, _fit_elu),
        Family("celu", elementwise.celu, _fit_celu),
        Family(
            "acon",
            lambda x, difference, lower, inner: x * (difference * special.expit(inner * x) + lower),
            _fit_acon,
        ),
        Family("piecewise_linear", _piecewise_linear, _fit_piecewise_linear),
    )
}
"""In the order in which they are tried: a function that is in two families is that of the first."""
