"""The acquisition function: expected hypervolume improvement, where costs are known and the error isn't."""

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
"""Standard deviations below the mean from which on a level counts as out of reach."""

_BLOCK = 512
"""Candidates whose improvement is computed at a time."""


@dataclass(frozen=True)
class Box:
    """The region of errors and costs whose hypervolume counts.

    Attributes:
        worst: the error's upper bound.
        low: (costs,), lower bounds: no candidate costs less.
        high: (costs,), upper bounds.
    """

    worst: float
    low: Array
    high: Array


class Front:
    """The Pareto front as a step function: the least error so far for given costs.

    A candidate with error e and costs c dominates all costs from c on, and improves the error there down to e. Its
    hypervolume improvement is Σ_m weights[c, m]·max(levels[m] − e, 0): the weight of step m is the volume of its part
    from c on, which doesn't depend on e. Its expectation is a weighted sum of expected improvements (Emmerich,
    Giannakoglou & Naujoks, Single- and multiobjective evolutionary optimization assisted by Gaussian random field
    metamodels, 2006, for the case that the costs are uncertain as well).

    Exact for one cost. For several, volumes are counted in points of the box. Without costs there is one step.

    Args:
        errors: (n,) of trials.
        costs: (n, d) of the same.
        box: the region that counts.
        points: (samples, d) in the unit cube, for two costs or more; see `even_points`.

    Attributes:
        levels: (m,), the errors of the steps.
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
        reached = np.ones((len(points), len(costs)), dtype=bool)
        for column, bounds in zip(costs.T, points.T, strict=True):
            reached &= column[None] <= bounds[:, None]
        best = np.where(reached, errors[None], np.inf).min(axis=1, initial=np.inf)
        self.levels, where = np.unique(np.minimum(best, self._box.worst), return_inverse=True)
        self._points = points
        share = np.prod(self._box.high - self._box.low) / len(points)
        self._steps = np.zeros((len(points), len(self.levels)), dtype=np.float32)
        self._steps[np.arange(len(points)), where] = share

    def weights(self, costs: Array) -> Array:
        """Volumes of the steps, shape (n, m), that candidates with costs (n, d) dominate."""
        if self._d == 0:
            return np.ones((len(costs), 1))
        if self._d == 1:
            return np.asarray(np.maximum(self._ends - np.maximum(costs, self._starts), 0))
        dominated = np.ones((len(costs), len(self._points)), dtype=bool)
        for column, points in zip(costs.T, self._points.T, strict=True):
            dominated &= column[:, None] <= points[None]
        return (dominated.astype(np.float32) @ self._steps).astype(np.float64)


def even_points(count: int, shift: Array) -> Array:
    """Low-discrepancy points in the unit cube, shape (count, d), moved by a shift (d,).

    The sequence R_d of Roberts, The unreasonable effectiveness of quasirandom sequences, 2018: multiples of powers of
    1/g, modulo 1, where g solves gᵈ⁺¹ = g + 1; for d = 1 the golden ratio.
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (len(shift) + 1))
    steps = ratio ** -np.arange(1.0, len(shift) + 1)
    return np.asarray((shift + np.arange(count)[:, None] * steps) % 1.0)


def expected_hypervolume_improvement(mean: Array, sd: Array, levels: Array, weights: Array, shift: float) -> Array:
    """Expected improvement E[Σ_m weights[:, m]·max(levels[m] − e, 0)], shape (n,), where log(e − shift) is normal.

    Args:
        mean: (n,), of the logarithm.
        sd: (n,), of the logarithm.
        levels: (m,), errors of the front's steps.
        weights: (n, m), see `Front.weights`.
        shift: a value below all errors.
    """
    parts = [slice(start, start + _BLOCK) for start in range(0, len(mean), _BLOCK)]
    return np.concatenate([np.empty(0), *(_improvement(mean[p], sd[p], levels, weights[p], shift) for p in parts)])


def _improvement(mean: Array, sd: Array, levels: Array, weights: Array, shift: float) -> Array:
    """`expected_hypervolume_improvement` of one block: its intermediate results are as large as all weights."""
    logs = np.log(np.maximum(levels - shift, 1e-12))
    rows, steps = np.nonzero((logs[None] > (mean - _REACH_SD * sd)[:, None]) & (weights > 0))
    mu, s = mean[rows], sd[rows]
    z = (logs[steps] - mu) / s
    improvement = (levels[steps] - shift) * ndtr(z) - np.exp(mu + 0.5 * s * s) * ndtr(z - s)
    return np.bincount(rows, weights[rows, steps] * improvement, minlength=len(mean)).astype(np.float64)


def first_best(values: Array, rows: npt.NDArray[np.int64]) -> int:
    """The first of the rows whose value is the largest, up to rounding: equal candidates are chosen in order."""
    of_rows = values[rows]
    largest = float(of_rows.max())
    return int(rows[np.argmax(of_rows >= largest - 1e-4 * abs(largest))])
