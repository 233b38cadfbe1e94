"""`guided`: models the one dear objective, and takes the costs as known."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from pipeline.evaluators.learning_curve import expected_errors
from pipeline.strategies.acquisition import Box, Front, even_points, expected_hypervolume_gain
from pipeline.strategies.cost_surrogates import CostSurrogates
from pipeline.strategies.pool_based import PoolBasedStrategy
from pipeline.strategies.pool_surrogate import PoolSurrogate, distances_to_best
from pipeline.trials.objectives import pareto_front

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydantic import BaseModel

    from pipeline.config.strategy import GuidedOptions
    from pipeline.nni_types import Strategy
    from pipeline.strategies.features import Features
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_WORST_PERCENTILE, _COST_PERCENTILE = 90.0, 99.0
_VOLUME_POINTS = 512
_FAILURES = 0.1
"""From this share of the trials on, failures are no accidents, and count as the worst error there was."""


class Guided(PoolBasedStrategy):
    """Expected gain in hypervolume over a pool of candidates, by a surrogate of the error alone.

    The accuracy of a candidate takes a training; what it costs is known of the whole pool at once, or learnt with
    much less noise. So the next trial is the candidate whose error is expected to add most to the dominated
    hypervolume at its costs, times the probability that it keeps the limits. Where only the most accurate one is
    wanted, it is the expected improvement of the best accuracy within the limits.
    """

    def __init__(self, options: GuidedOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._initial = options.initial
        costs = tuple(name for name in problem.objectives if name != "accuracy")
        self._objectives = () if options.aim == "accuracy" else costs

    def begin(self, generator: np.random.Generator) -> None:
        """See the base class."""
        self._error = PoolSurrogate(self.pool.featurizer.sizes, distances_to_best)
        self._costs = CostSurrogates(self.problem, self.pool, self._objectives)
        self._fantasies: list[tuple[float, Array]] = []
        self._counts_failures = False
        self._learnt: Array = np.empty(0)
        self._planned = self._plan(generator)

    def _plan(self, generator: np.random.Generator) -> list[int]:
        """The first trials, spread over the known costs: one from each of as many slices by mean rank of the costs."""
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
        """Until so many results have, or will have, an accuracy; where most fail, not much longer than that."""
        known = self._accuracies()
        failed = sum(record.status == "failed" for record in self.history)
        if len(known) < 2:
            return True
        coming = len(known) + len(self.pending)
        return coming < self._initial and coming + failed < 2 * self._initial

    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """As planned; then at random, the likelier the more probably the limits hold."""
        if self.index < len(self._planned) and self._planned[self.index] in free:
            return self._planned[self.index]
        self._costs.learn(self.history, self.seen)
        likely = self._costs.feasible()[free]
        return int(generator.choice(free, p=likely / likely.sum() if likely.sum() > 0 else None))

    def update(self) -> None:
        """See the base class."""
        self._costs.learn(self.history, self.seen)
        failed = sum(record.status == "failed" for record in self.history)
        counts = failed >= max(2, _FAILURES * len(self.history))
        if counts != self._counts_failures:
            self._counts_failures = counts
            self._error.restart()
        errors = self._errors()
        if not np.array_equal(errors[: len(self._learnt)], self._learnt, equal_nan=True):
            self._error.restart()  # what a stopped trial would have come to is judged anew with each that wasn't
        self._learnt = errors
        rows = np.flatnonzero(np.isfinite(errors))
        if self._error.learn(self.pool.points, self.seen.take(rows), errors[rows]):
            self._worst = self._worst_of_interest()
            self._high = self._costs.high(self._front_costs(), _COST_PERCENTILE)

    def _accuracies(self) -> list[int]:
        return [row for row, record in enumerate(self.history) if "accuracy" in record.objectives]

    def _errors(self) -> Array:
        """(history,), NaN where there is none; a failed trial is as bad as the worst, where many fail, and of one that
        was stopped early it's the error to be expected in the end.
        """
        errors = expected_errors(self.history)
        if self._counts_failures:
            failed = [record.status == "failed" for record in self.history]
            errors[failed] = np.nanmax(errors)
        return errors

    def _worst_of_interest(self) -> float:
        """The error from which on a gain is none: the 90th percentile of what is expected of the space."""
        seen = self._error.posterior.mean[: self.pool.fixed]
        return float(self._error.scale.values(np.percentile(seen, [_WORST_PERCENTILE]))[0])

    def _front_errors(self) -> Array:
        return np.array([1.0 - record.objectives["accuracy"] for record in self.history if record.status == "ok"])

    def _front_costs(self) -> Array:
        rows = [[r.objectives[name] for name in self._objectives] for r in self.history if r.status == "ok"]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._objectives))

    def fantasize(self, pending: Features) -> None:
        """See the base class."""
        for place, architecture in enumerate(self.pending):
            point = pending.take(np.array([place]))
            self._fantasies.append((self._error.fantasize(point), self._costs.fantasize(architecture, point)))

    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """The expected gain, times the probability that the limits hold."""
        fantasies, self._fantasies = self._fantasies, []
        errors = np.append(self._front_errors(), [error for error, _ in fantasies])
        costs = np.vstack([self._front_costs(), *(costs[None] for _, costs in fantasies)])
        candidates = self._costs.expected()
        low = np.minimum(np.nanmin(candidates, axis=0, initial=np.inf), self._high)
        points = even_points(_VOLUME_POINTS, generator.random(len(self._objectives)))
        front = Front(errors, costs, Box(self._worst, low, self._high), points)
        mean, sd = self._error.logs()
        gain = expected_hypervolume_gain(mean, sd, front.levels, front.weights(candidates), self._error.scale.shift)
        return gain * self._costs.feasible()

    def uncertainty(self) -> Array:
        """See the base class."""
        return self._error.logs()[1] * self._costs.feasible()

    def parents(self) -> list[int]:
        """The front."""
        rows = [row for row, record in enumerate(self.history) if record.status == "ok"]
        losses = np.column_stack([self._front_errors(), self._front_costs()])
        return [rows[place] for place in pareto_front(losses)]

    def learners(self) -> list[PoolSurrogate]:
        """See the base class."""
        return [self._error, *self._costs.learners()]


def guided(options: BaseModel, problem: Problem) -> Strategy:
    """Expected gain in hypervolume, costs known."""
    return Guided(cast("GuidedOptions", options), problem)
