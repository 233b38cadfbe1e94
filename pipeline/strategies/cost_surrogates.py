"""Costs of candidates and their probability of feasibility: known, or learned from the trials so far."""

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
    from pipeline.strategies.posterior import Places
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array
    from pipeline.trials.journal import TrialRecord

_IMPROBABLE = 0.05


class CostSurrogates:
    """Costs of a pool's candidates.

    Costs of `Problem.known` are taken as they are. Each other objective or limited metric has a surrogate of its
    logarithm, fitted to all trials that have it: those that broke a limit were measured, too.

    Args:
        problem: what is searched.
        pool: the candidates.
        objectives: the costs to trade off.
    """

    def __init__(self, problem: Problem, pool: Pool, objectives: Sequence[str]) -> None:
        self._problem, self._pool, self._objectives = problem, pool, tuple(objectives)
        wanted = dict.fromkeys([*objectives, *problem.limits])
        self._surrogates = {
            name: PoolSurrogate(pool.featurizer.sizes, ratios) for name in wanted if name not in pool.metrics
        }

    def surrogates(self) -> list[PoolSurrogate]:
        """The surrogates of costs that aren't known."""
        return list(self._surrogates.values())

    def learn(self, history: Sequence[TrialRecord], seen: Features, ranking: Places | None = None) -> None:
        """Pass what is new in the history, whose features are `seen`, to the surrogates."""
        for name, surrogate in self._surrogates.items():
            values = np.array([record.objectives.get(name, math.nan) for record in history], dtype=float)
            if np.isfinite(values).sum() > 1:
                surrogate.learn(self._pool.features, seen, values, ranking)

    def expected(self) -> Array:
        """Costs, shape (pool, objectives): known ones, or medians of predictions.

        Averaging the improvement over the distribution of predicted costs was tried, and found nothing better.
        """
        return np.column_stack([np.empty((len(self._pool), 0)), *(self._of(name) for name in self._objectives)])

    def _of(self, name: str) -> Array:
        if name in self._pool.metrics:
            return self._pool.known[:, self._pool.metrics.index(name)]
        return self._surrogates[name].medians()

    def high(self, observed: Array, percentile: float) -> Array:
        """Upper bounds of the costs that count, shape (objectives,).

        A percentile over the pool's sample of the space within the limits, or the limit where that is lower. For
        predicted costs at least the largest one that was `observed` (n, objectives).
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
        """Probability that predicted costs keep their limits, shape (pool,); known costs are up to the pool.

        0 where it is much lower than elsewhere. Else, once little is left to improve within the limits, candidates
        with a large improvement beyond them would be tried one after the other, however improbable.
        """
        probability = np.ones(len(self._pool))
        for name, limit in self._problem.limits.items():
            if name in self._surrogates and self._surrogates[name].ready:
                probability *= self._surrogates[name].probability_below(limit)
        return np.where(probability < _IMPROBABLE * probability.max(), 0.0, probability)

    def fantasize(self, architecture: Architecture, point: Features) -> Array:
        """Expected costs (objectives,) of a pending architecture; surrogates take them as observations."""
        expected = {name: surrogate.fantasize(point) for name, surrogate in self._surrogates.items() if surrogate.ready}
        if self._problem.known is not None:
            row = self._problem.known.costs([architecture])[0].tolist()
            expected |= dict(zip(self._pool.metrics, row, strict=True))
        return np.array([expected[name] for name in self._objectives], dtype=float)
