"""How much hypervolume a candidate is expected to gain, where its costs are known and its error isn't."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.strategies.surrogate import Array

_REACH_SD = 4.0
"""A level further below the mean than this is never reached, as far as anybody can tell."""


@dataclass(frozen=True)
class Box:
    """Where a gain counts.

    Attributes:
        worst: the error from which on nothing is gained.
        low: (costs,), no candidate costs less.
        high: (costs,), what costs as much gains nothing.
    """

    worst: float
    low: Array
    high: Array


class Front:
    """The least error so far as a function of what may be spent: steps, whose levels are the front's errors.

    A candidate with error e and costs c dominates the part of cost space from c on; it gains, over that part, what its
    error is below the step there. So its gain is Σ_m weights[c, m]·max(level_m − e, 0), where the weights are the
    volumes of the steps from c on, and they don't depend on the error. In expectation it is a weighted sum of expected
    improvements (Emmerich, Giannakoglou & Naujoks, Single- and multiobjective evolutionary optimization assisted by
    Gaussian random field metamodels, 2006, integrate the improvement; that one factor is certain makes it this simple).

    Exact for one cost. For more, the volumes are shares of points in the box. With no costs there is one step.

    Args:
        errors: (n,) of trials.
        costs: (n, d) of the same.
        box: where gains count.
        points: (samples, d) evenly in the unit cube, for two costs or more; see `even_points`.

    Attributes:
        levels: (m,).
    """

    def __init__(self, errors: Array, costs: Array, box: Box, points: Array) -> None:
        self._box, self._d = box, costs.shape[1]
        if self._d == 0:
            self.levels = np.array([errors.min(initial=box.worst)])
        elif self._d == 1:
            self._step_through(errors, costs[:, 0])
        else:
            self._sample(errors, costs, box.low + (box.high - box.low) * points)

    def _step_through(self, errors: Array, costs: Array) -> None:
        high = float(self._box.high[0])
        levels, starts = [self._box.worst], [-math.inf]
        for i in np.lexsort((errors, costs)):
            if errors[i] < levels[-1] and costs[i] < high:
                levels.append(float(errors[i]))
                starts.append(float(costs[i]))
        self.levels, self._starts = np.array(levels), np.array(starts)
        self._ends = np.append(self._starts[1:], high)

    def _sample(self, errors: Array, costs: Array, points: Array) -> None:
        reached = (costs[None] <= points[:, None]).all(axis=2)
        best = np.where(reached, errors[None], np.inf).min(axis=1, initial=np.inf)
        self.levels, where = np.unique(np.minimum(best, self._box.worst), return_inverse=True)
        self._points = points
        share = np.prod(self._box.high - self._box.low) / len(points)
        self._steps = np.zeros((len(points), len(self.levels)), dtype=np.float32)
        self._steps[np.arange(len(points)), where] = share

    def weights(self, costs: Array) -> Array:
        """(n, m) for candidates' costs (n, d)."""
        if self._d == 0:
            return np.ones((len(costs), 1))
        if self._d == 1:
            return np.asarray(np.maximum(self._ends - np.maximum(costs, self._starts), 0))
        dominated = np.ones((len(costs), len(self._points)), dtype=bool)
        for column, points in zip(costs.T, self._points.T, strict=True):
            dominated &= column[:, None] <= points[None]
        return (dominated.astype(np.float32) @ self._steps).astype(np.float64)


def even_points(count: int, shift: Array) -> Array:
    """(count, d) points in the unit cube, evener than random ones, moved by a shift (d,).

    Multiples of the powers of 1/g, modulo 1, where g solves gᵈ⁺¹ = g + 1: for d = 1 that is the golden ratio.
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (len(shift) + 1))
    steps = ratio ** -np.arange(1.0, len(shift) + 1)
    return np.asarray((shift + np.arange(count)[:, None] * steps) % 1.0)


def expected_hypervolume_gain(mean: Array, sd: Array, levels: Array, weights: Array, shift: float) -> Array:
    """E[Σ_m weights[:, m]·max(levels[m] − e, 0)] (n,), where log(e − shift) is normal.

    Args:
        mean: (n,), of the logarithm.
        sd: (n,), of the logarithm.
        levels: (m,), errors.
        weights: (n, m).
        shift: below all errors.
    """
    logs = np.log(np.maximum(levels - shift, 1e-12))
    rows, steps = np.nonzero((logs[None] > (mean - _REACH_SD * sd)[:, None]) & (weights > 0))
    mu, s = mean[rows], sd[rows]
    z = (logs[steps] - mu) / s
    improvement = (levels[steps] - shift) * ndtr(z) - np.exp(mu + 0.5 * s * s) * ndtr(z - s)
    return np.bincount(rows, weights[rows, steps] * improvement, minlength=len(mean)).astype(np.float64)


def first_best(values: Array, rows: npt.NDArray[np.int64]) -> int:
    """Of rows, the first whose value is the largest but for rounding, so that twins don't depend on it."""
    of_rows = values[rows]
    largest = float(of_rows.max())
    return int(rows[np.argmax(of_rows >= largest - 1e-4 * abs(largest))])
