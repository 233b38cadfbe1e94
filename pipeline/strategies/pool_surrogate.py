"""A surrogate of one quantity over the candidates of a pool, in a logarithmic scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from pipeline.strategies.posterior import Posterior
from pipeline.strategies.surrogate import Array, Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pipeline.strategies.features import Features
    from pipeline.strategies.posterior import Places

_REFIT_GROWTH = 1.25
_CONTROLLER = ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit linear algebra to one thread: with several, results would depend on their number."""
    limited: AbstractContextManager[object] = _CONTROLLER.limit(limits=1, user_api="blas")
    return limited


@dataclass(frozen=True)
class Scale:
    """The transform from values to what a surrogate models: (min(log(value − shift), cap) − middle) / spread."""

    shift: float
    middle: float
    spread: float
    cap: float = math.inf

    @classmethod
    def of(cls, values: Array, shift: float, outliers: float = math.inf) -> Scale:
        """A scale fitted to values above the shift.

        Values further above the median than `outliers` times its distance to the least, in logarithms, are capped.
        """
        logs = np.log(values - shift)
        middle = float(np.median(logs))
        cap = middle + outliers * max(middle - float(logs.min()), 1e-3) if math.isfinite(outliers) else math.inf
        logs = np.minimum(logs, cap)
        return cls(shift, float(logs.mean()), max(float(logs.std()), 1e-6), cap)

    def __call__(self, values: Array) -> Array:
        """Transform values to the scale; one below the shift, a record far beyond the others, is cut off near it."""
        logs = np.log(np.maximum(values - self.shift, 1e-3 * math.exp(self.middle)))
        # Until the next fit, a value unlike all before must not outweigh all others.
        seen: Array = np.clip((np.minimum(logs, self.cap) - self.middle) / self.spread, -20, 20)
        return seen

    def logs(self, seen: Array) -> Array:
        """Transform back to log(value − shift)."""
        return seen * self.spread + self.middle

    def values(self, seen: Array) -> Array:
        """Transform back to values."""
        values: Array = np.exp(self.logs(seen)) + self.shift
        return values


def distances_to_best(values: Array) -> Scale:
    """A scale of distances to a value that is as far below the best as the best is below the median.

    Differences near the best matter more than others, and unlike with log(value) it makes no difference whether
    errors are around 3 % or 30 %. No value so far lies below.
    """
    best, median = float(values.min()), float(np.median(values))
    return Scale.of(values, best - max(median - best, 1e-9 * max(abs(best), 1.0)))


def distances_without_outliers(values: Array) -> Scale:
    """`distances_to_best` with outliers capped, for scores, where failures and broken limits are far from the rest."""
    return Scale.of(values, distances_to_best(values).shift, outliers=3.0)


def ratios(values: Array) -> Scale:
    """A logarithmic scale of costs; a thousandth of the median is added, since there may be a zero."""
    return Scale.of(values, -max(1e-3 * float(np.median(values)), 1e-12))


class PoolSurrogate:
    """A surrogate of one quantity, refitted whenever there are 25 % more observations, and extended in between.

    Args:
        sizes: columns of the groups of features.
        scale_of: makes the scale from all values, at each fit.

    Attributes:
        posterior: over the pool; exists after the first `learn`.
        scale: of the last fit.
    """

    posterior: Posterior
    scale: Scale

    def __init__(self, sizes: tuple[int, ...], scale_of: Callable[[Array], Scale]) -> None:
        self._model, self._scale_of = Surrogate(sizes), scale_of
        self._known, self._refit_at = 0, 0

    @property
    def ready(self) -> bool:
        """Whether there is a posterior."""
        return self._known > 0

    def restart(self) -> None:
        """Earlier observations have changed: the next `learn` refits from scratch."""
        self._refit_at = 0

    def learn(self, pool: Features, seen: Features, values: Array, ranking: Places | None = None) -> bool:
        """Learn from observations.

        Args:
            pool: features of the candidates.
            seen: features of trials, of which some are observations.
            values: (trials,), at least one of them a number, NaN where nothing was observed. They begin with those of
                the last call.
            ranking: rows of the pool, the best candidates first; see `Posterior`.

        Returns:
            Whether the surrogate was refitted.
        """
        rows = np.flatnonzero(np.isfinite(values))
        if refit := len(rows) >= self._refit_at:
            observed, values = seen.take(rows), values[rows]
            self.scale = self._scale_of(values)
            y = self.scale(values)
            self._model.fit(observed, y)
            self.posterior = Posterior.of(self._model, pool, observed, y, ranking)
            self._refit_at = max(len(rows) + 1, math.ceil(len(rows) * _REFIT_GROWTH))
        else:
            for row in rows[self._known :]:
                self.posterior.add(seen.take(np.array([row])), float(self.scale(values[row : row + 1])[0]))
        self._known = len(rows)
        return refit

    def replace(self, kept: Places, pool: Features, ranking: Places) -> None:
        """Follow a change of the pool; see `Posterior.replace`."""
        if self.ready:
            self.posterior.replace(kept, pool, ranking)

    def follow_best(self, ranking: Places, pool: Features) -> None:
        """Choose the candidates whose posterior is kept up to date: those ranked best."""
        if self.ready:
            self.posterior.follow_best(ranking, pool)

    def logs(self) -> tuple[Array, Array]:
        """Mean and standard deviation (pool,) of log(value − scale.shift)."""
        sd = np.sqrt(np.maximum(self.posterior.variance, 1e-8))
        return self.scale.logs(self.posterior.mean), sd * self.scale.spread

    def medians(self) -> Array:
        """Median of the predicted value of each candidate, shape (pool,)."""
        return self.scale.values(self.posterior.mean)

    def probability_below(self, limit: float) -> Array:
        """Probability that the value is at most the limit, shape (pool,)."""
        mean, sd = self.logs()
        within: Array = ndtr((math.log(max(limit - self.scale.shift, 1e-300)) - mean) / sd)
        return within

    def fantasize(self, features: Features) -> float:
        """The predicted median of one architecture, taken as an observation until `drop_fantasies`."""
        return float(self.scale.values(np.array([self.posterior.fantasize(features)]))[0])

    def drop_fantasies(self) -> None:
        """Forget the observations of `fantasize`."""
        if self.ready:
            self.posterior.drop_fantasies()
