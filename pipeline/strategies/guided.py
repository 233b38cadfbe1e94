"""`guided`: a surrogate of the one expensive objective, the accuracy; costs are known or easy to learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluators.learning_curve import expected_errors
from pipeline.strategies.acquisition import Box, Front, even_points, expected_hypervolume_improvement
from pipeline.strategies.cost_surrogates import CostSurrogates
from pipeline.strategies.pool_based import PoolBasedStrategy
from pipeline.strategies.pool_surrogate import PoolSurrogate, distances_to_best
from pipeline.trials.objectives import pareto_front

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.config.strategy import GuidedOptions
    from pipeline.strategies.features import Features
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_WORST_PERCENTILE, _COST_PERCENTILE = 90.0, 99.0
_VOLUME_POINTS = 512
_FAILURES = 0.1
"""From this share of failed trials on, a failure counts as the worst error so far."""


class Guided(PoolBasedStrategy):
    """Expected hypervolume improvement over a pool of candidates, from a surrogate of the error alone.

    The accuracy of a candidate takes a training. Its costs are known for the whole pool, or learned with much less
    noise. So the next trial has the largest expected improvement of the dominated hypervolume at the candidate's
    costs, times its probability of feasibility. Where only the most accurate architecture is wanted, it is the
    expected improvement of the best accuracy within the limits.
    """

    def __init__(self, options: GuidedOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._initial = options.initial
        costs = tuple(name for name in problem.objectives if name != "accuracy")
        self._objectives = () if options.aim == "accuracy" else costs

    def begin(self, generator: np.random.Generator) -> None:
        self._error = PoolSurrogate(self.pool.featurizer.sizes, distances_to_best)
        self._costs = CostSurrogates(self.problem, self.pool, self._objectives)
        self._fantasies: list[tuple[float, Array]] = []
        self._counts_failures = False
        self._last_errors: Array = np.empty(0)
        self._front: list[int] = []
        self._looked_at = 0
        self._planned = self._plan(generator)

    def _plan(self, generator: np.random.Generator) -> list[int]:
        """Rows of the first trials, spread over the known costs: one from each slice by mean rank of the costs."""
        rows = np.flatnonzero(self.pool.within_limits()[: self.pool.fixed])
        wanted = dict.fromkeys([*self.problem.objectives, *self.problem.limits])
        columns = [self.pool.metrics.index(name) for name in wanted if name in self.pool.metrics]
        if not columns or not len(rows):
            return []
        ranks = np.argsort(np.argsort(self.pool.known[rows][:, columns], axis=0), axis=0).mean(axis=1)
        ordered = rows[np.lexsort((generator.random(len(rows)), ranks))]
        slices = np.array_split(ordered, min(self._initial, len(rows)))
        return [int(generator.choice(slices[place])) for place in generator.permutation(len(slices))]

    def is_beginning(self) -> bool:
        """Whether too few trials have an accuracy or are pending: `initial`, or twice that with failed ones."""
        known = self._accuracies()
        failed = sum(record.status == "failed" for record in self.history)
        if len(known) < 2:
            return True
        coming = len(known) + len(self.pending)
        return coming < self._initial and coming + failed < 2 * self._initial

    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """Return the planned row; then a random one, in proportion to its probability of feasibility."""
        if self.index < len(self._planned) and self._planned[self.index] in free:
            return self._planned[self.index]
        self._costs.learn(self.history, self.seen)
        likely = self._costs.feasible()[free]
        return int(generator.choice(free, p=likely / likely.sum() if likely.sum() > 0 else None))

    def update(self) -> None:
        self._costs.learn(self.history, self.seen, self.ranking)
        failed = sum(record.status == "failed" for record in self.history)
        counts = failed >= max(2, _FAILURES * len(self.history))
        if counts != self._counts_failures:
            self._counts_failures = counts
            self._error.restart()
        errors = self._errors()
        if not np.array_equal(errors[: len(self._last_errors)], self._last_errors, equal_nan=True):
            self._error.restart()  # extrapolations of stopped trials change with each trial that wasn't stopped
        self._last_errors = errors
        if self._error.learn(self.pool.features, self.seen, errors, self.ranking):
            self._worst = self._worst_of_interest()
            feasible = [row for row, record in enumerate(self.history) if record.status == "ok"]
            self._high = self._costs.high(self._losses(feasible)[:, 1:], _COST_PERCENTILE)
        self._follow_front()

    def _accuracies(self) -> list[int]:
        return [row for row, record in enumerate(self.history) if "accuracy" in record.objectives]

    def _errors(self) -> Array:
        """Errors of the history, shape (history,), NaN where there is none.

        A trial that was stopped early has the error that is expected at its end; where many trials fail, a failed one
        has the worst error.
        """
        errors = expected_errors(self.history)
        if self._counts_failures:
            failed = [record.status == "failed" for record in self.history]
            errors[failed] = np.nanmax(errors)
        return errors

    def _worst_of_interest(self) -> float:
        """The error from which on nothing is gained: the 90th percentile of the space's predicted errors."""
        seen = self._error.posterior.mean[: self.pool.fixed]
        return float(self._error.scale.values(np.percentile(seen, [_WORST_PERCENTILE]))[0])

    def _follow_front(self) -> None:
        """Bring the Pareto front up to date: what was dominated once is so for ever."""
        later = range(self._looked_at, len(self.history))
        rows = [*self._front, *(row for row in later if self.history[row].status == "ok")]
        self._front = [rows[place] for place in pareto_front(self._losses(rows))]
        self._looked_at = len(self.history)

    def _losses(self, rows: Sequence[int]) -> Array:
        """Errors and costs of trials of the history, shape (rows, 1 + objectives)."""
        names = ("accuracy", *self._objectives)
        losses = np.array([[self.history[row].objectives[name] for name in names] for row in rows], dtype=float)
        losses = losses.reshape(len(rows), len(names))
        losses[:, 0] = 1.0 - losses[:, 0]
        return losses

    def fantasize(self, pending: Features) -> None:
        for place, architecture in enumerate(self.pending):
            point = pending.take(np.array([place]))
            self._fantasies.append((self._error.fantasize(point), self._costs.fantasize(architecture, point)))

    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """Expected hypervolume improvement times the probability of feasibility, shape (pool,)."""
        fantasies, self._fantasies = self._fantasies, []
        losses = self._losses(self._front)
        errors = np.append(losses[:, 0], [error for error, _ in fantasies])
        costs = np.vstack([losses[:, 1:], *(costs[None] for _, costs in fantasies)])
        candidates = self._costs.expected()
        low = np.minimum(np.nanmin(candidates, axis=0, initial=np.inf), self._high)
        points = even_points(_VOLUME_POINTS, generator.random(len(self._objectives)))
        front = Front(errors, costs, Box(self._worst, low, self._high), points)
        mean, sd = self._error.logs()
        shift, weights = self._error.scale.shift, front.weights(candidates)
        gain = expected_hypervolume_improvement(mean, sd, front.levels, weights, shift)
        return gain * self._costs.feasible()

    def uncertainty(self) -> Array:
        return self._error.logs()[1] * self._costs.feasible()

    def parents(self) -> list[int]:
        """Rows of the Pareto front."""
        return self._front

    def surrogates(self) -> list[PoolSurrogate]:
        return [self._error, *self._costs.surrogates()]
