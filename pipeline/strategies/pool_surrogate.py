"""What is learnt of one quantity from the trials so far, for every candidate of a pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from pipeline.strategies.surrogate import Array, Posterior, Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pipeline.strategies.features import Features, Rows

_REFIT_GROWTH = 1.25
_CONTROLLER = ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Linear algebra in one thread: several would make results depend on their number, and gain nothing here."""
    limited: AbstractContextManager[object] = _CONTROLLER.limit(limits=1, user_api="blas")
    return limited


@dataclass(frozen=True)
class Scale:
    """Values as a surrogate sees them: log(value − shift), at most `cap`, minus `middle`, over `spread`."""

    shift: float
    middle: float
    spread: float
    cap: float = math.inf

    @classmethod
    def of(cls, values: Array, shift: float, outliers: float = math.inf) -> Scale:
        """Fitted to values above the shift; those above the median by more than `outliers` times its distance from the
        least, in logarithms, count as if they were there.
        """
        logs = np.log(values - shift)
        middle = float(np.median(logs))
        cap = middle + outliers * max(middle - float(logs.min()), 1e-3) if math.isfinite(outliers) else math.inf
        logs = np.minimum(logs, cap)
        return cls(shift, float(logs.mean()), max(float(logs.std()), 1e-6), cap)

    def __call__(self, values: Array) -> Array:
        """Values → what the surrogate sees; one below the shift, a record far beyond the others, is at the edge."""
        logs = np.log(np.maximum(values - self.shift, 1e-3 * math.exp(self.middle)))
        # Until the next fit, a value unlike all before must not be a number that nothing else counts beside.
        seen: Array = np.clip((np.minimum(logs, self.cap) - self.middle) / self.spread, -20, 20)
        return seen

    def logs(self, seen: Array) -> Array:
        """What the surrogate sees → log(value − shift)."""
        return seen * self.spread + self.middle

    def values(self, seen: Array) -> Array:
        """What the surrogate sees → values."""
        values: Array = np.exp(self.logs(seen)) + self.shift
        return values


def distances_to_best(values: Array) -> Scale:
    """Logarithms of the distance to a value that is as far below the best as the best is below the median.

    Differences near the best matter more than those far from it, and whether errors are of 3 or of 30 per cent makes
    no difference, unlike with log(value). No value of a search so far lies below.
    """
    best, median = float(values.min()), float(np.median(values))
    return Scale.of(values, best - max(median - best, 1e-9 * max(abs(best), 1.0)))


def distances_without_outliers(values: Array) -> Scale:
    """`distances_to_best` for scores, in which failures and broken limits are far away from all others."""
    return Scale.of(values, distances_to_best(values).shift, outliers=3.0)


def ratios(values: Array) -> Scale:
    """Logarithms of costs; a thousandth of the median is added, since there may be a zero."""
    return Scale.of(values, -max(1e-3 * float(np.median(values)), 1e-12))


class PoolSurrogate:
    """A surrogate of one quantity, fitted anew whenever there is a quarter more to learn from, extended in between.

    Args:
        sizes: of the groups of features.
        scale_of: how values become what the surrogate sees; asked at each fit.

    Attributes:
        posterior: over the pool; there is one after the first `learn`.
        scale: of the last fit.
    """

    posterior: Posterior
    scale: Scale

    def __init__(self, sizes: tuple[int, ...], scale_of: Callable[[Array], Scale]) -> None:
        self._model, self._scale_of = Surrogate(sizes), scale_of
        self._known, self._refit_at = 0, 0

    @property
    def ready(self) -> bool:
        """Whether there was something to learn from."""
        return self._known > 0

    def restart(self) -> None:
        """What was learnt from isn't what it was: the next `learn` begins with a fit."""
        self._refit_at = 0

    def learn(self, pool: Features, seen: Features, values: Array) -> bool:
        """Take in the observations `values` (n,), n ≥ 1, of which the first are those of the last time.

        Returns:
            Whether all was fitted anew.
        """
        if refit := len(values) >= self._refit_at:
            self.scale = self._scale_of(values)
            y = self.scale(values)
            self._model.fit(seen, y)
            self.posterior = Posterior(self._model, pool, seen, y)
            self._refit_at = max(len(values) + 1, math.ceil(len(values) * _REFIT_GROWTH))
        else:
            for row in range(self._known, len(values)):
                self.posterior.add(seen.take(np.array([row])), float(self.scale(values[row : row + 1])[0]))
        self._known = len(values)
        return refit

    def replace(self, kept: Rows, fresh: Features) -> None:
        """The pool changes; see `Posterior.replace`."""
        if self.ready:
            self.posterior.replace(kept, fresh)

    def logs(self) -> tuple[Array, Array]:
        """Mean and standard deviation (pool,) of log(value − scale.shift)."""
        sd = np.sqrt(np.maximum(self.posterior.variance, 1e-8))
        return self.scale.logs(self.posterior.mean), sd * self.scale.spread

    def medians(self) -> Array:
        """(pool,): the values to expect."""
        return self.scale.values(self.posterior.mean)

    def probability_below(self, limit: float) -> Array:
        """(pool,): that the value is at most the limit."""
        mean, sd = self.logs()
        within: Array = ndtr((math.log(max(limit - self.scale.shift, 1e-300)) - mean) / sd)
        return within

    def fantasize(self, point: Features) -> float:
        """The value to expect of a point, taken for observed until `drop_fantasies`."""
        return float(self.scale.values(np.array([self.posterior.fantasize(point)]))[0])

    def drop_fantasies(self) -> None:
        """Without what was only believed."""
        if self.ready:
            self.posterior.drop_fantasies()
