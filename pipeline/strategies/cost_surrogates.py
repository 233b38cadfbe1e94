"""What candidates cost and whether they keep the limits: known, or learnt from the trials so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.pool_surrogate import PoolSurrogate, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.features import Features
    from pipeline.strategies.pool import Pool
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array
    from pipeline.trials.journal import TrialRecord

_IMPROBABLE = 0.05


class CostSurrogates:
    """Costs of a pool's candidates.

    What `Problem.known` knows is taken as it is. Of every other objective and limited metric the logarithm is learnt
    by a surrogate like the error's, from all trials that have it: those that broke a limit have been measured, too.

    Args:
        problem: what is searched.
        pool: the candidates.
        objectives: the costs to trade off.
    """

    def __init__(self, problem: Problem, pool: Pool, objectives: Sequence[str]) -> None:
        self._problem, self._pool, self._objectives = problem, pool, tuple(objectives)
        wanted = dict.fromkeys([*objectives, *problem.limits])
        self._learnt = {
            name: PoolSurrogate(pool.featurizer.sizes, ratios) for name in wanted if name not in pool.metrics
        }

    def learners(self) -> list[PoolSurrogate]:
        """Of what isn't known."""
        return list(self._learnt.values())

    def learn(self, history: Sequence[TrialRecord], seen: Features) -> None:
        """Take in what is new in the history, whose architectures are `seen`."""
        for name, surrogate in self._learnt.items():
            rows = np.array([row for row, record in enumerate(history) if name in record.objectives], dtype=np.int64)
            if len(rows) > 1:
                values = np.array([history[row].objectives[name] for row in rows])
                surrogate.learn(self._pool.points, seen.take(rows), values)

    def expected(self) -> Array:
        """(pool, objectives). Averaging gains over what learnt costs may be instead was seen to gain nothing."""
        return np.column_stack([np.empty((len(self._pool), 0)), *(self._of(name) for name in self._objectives)])

    def _of(self, name: str) -> Array:
        if name in self._pool.metrics:
            return self._pool.known[:, self._pool.metrics.index(name)]
        return self._learnt[name].medians()

    def high(self, observed: Array, percentile: float) -> Array:
        """(objectives,): what is as dear as that gains nothing.

        A percentile of the costs of the candidates that stand for the space and keep the limits, or the limit where
        that is less; of costs that are learnt, not less than the largest one `observed` (n, objectives) so far.
        """
        within = np.flatnonzero(self._pool.within_limits())
        fixed = within[within < self._pool.fixed]
        costs = np.vstack([self.expected()[fixed], observed])  # the few trials hardly move the percentile
        high = np.percentile(costs, percentile, axis=0) if len(costs) else np.ones(len(self._objectives))
        for column, name in enumerate(self._objectives):
            if name not in self._pool.metrics:
                high[column] = max(high[column], observed[:, column].max(initial=-np.inf))
            high[column] = min(high[column], self._problem.limits.get(name, math.inf))
        return np.asarray(high)

    def feasible(self) -> Array:
        """(pool,): the probability that the limits of what is learnt hold; the others are exact, see the pool.

        0 where it is much lower than elsewhere: when hardly anything is left to gain within the limits, the largest
        gains beyond them would be asked for one after the other, however improbable they are.
        """
        probability = np.ones(len(self._pool))
        for name, limit in self._problem.limits.items():
            if name in self._learnt and self._learnt[name].ready:
                probability *= self._learnt[name].probability_below(limit)
        return np.where(probability < _IMPROBABLE * probability.max(), 0.0, probability)

    def fantasize(self, architecture: Architecture, point: Features) -> Array:
        """(objectives,) of a pending architecture, taken for observed where they are learnt."""
        expected = {name: surrogate.fantasize(point) for name, surrogate in self._learnt.items() if surrogate.ready}
        if self._problem.known is not None:
            row = self._problem.known.costs([architecture])[0].tolist()
            expected |= dict(zip(self._pool.metrics, row, strict=True))
        return np.array([expected[name] for name in self._objectives], dtype=float)
