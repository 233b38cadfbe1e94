"""`bayesian`: Bayesian optimization of the one number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from pipeline.strategies.acquisition import expected_hypervolume_gain
from pipeline.strategies.pool_based import PoolBasedStrategy
from pipeline.strategies.pool_surrogate import PoolSurrogate, distances_without_outliers

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydantic import BaseModel

    from pipeline.config.strategy import BayesianOptions
    from pipeline.nni_types import Strategy
    from pipeline.strategies.features import Features
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_PARENTS = 5


class Bayesian(PoolBasedStrategy):
    """A Gaussian process of the score; the next trial has the largest expected improvement, or the best bound.

    It sees the score alone: limits, failures and costs as far as they are in it. Expected improvement is that of
    Mockus, Tiesis & Zilinskas, The application of Bayesian methods for seeking the extremum, 1978; the bound is the
    mean and so many standard deviations (Srinivas, Krause, Kakade & Seeger, Gaussian process optimization in the bandit
    setting, 2010). Both are taken in logarithms of the distance to a score beyond the best.
    """

    def __init__(self, options: BayesianOptions, problem: Problem) -> None:
        super().__init__(replace(problem, known=None))
        self._options = options

    def begin(self, generator: np.random.Generator) -> None:
        """See the base class."""
        self._loss = PoolSurrogate(self.pool.featurizer.sizes, distances_without_outliers)

    def is_beginning(self) -> bool:
        """Until there are, or will be, so many results."""
        return len(self.history) < 2 or len(self.history) + len(self.pending) < self._options.initial

    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """At random."""
        return int(generator.choice(free))

    def update(self) -> None:
        """See the base class."""
        self._loss.learn(self.pool.points, self.seen, self._losses())

    def _losses(self) -> Array:
        return np.array([-record.score for record in self.history])

    def fantasize(self, pending: Features) -> None:
        """See the base class."""
        for place in range(len(pending)):
            self._loss.fantasize(pending.take(np.array([place])))

    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """Expected improvement, or how much the bound is above the worst candidate's."""
        mean, sd = self._loss.logs()
        if self._options.acquisition == "ucb":
            bound = self._options.kappa * sd - mean
            return np.asarray(bound - bound.min())
        best = self._losses().min(keepdims=True)
        return expected_hypervolume_gain(mean, sd, best, np.ones((len(mean), 1)), self._loss.scale.shift)

    def uncertainty(self) -> Array:
        """See the base class."""
        return self._loss.logs()[1]

    def parents(self) -> list[int]:
        """The best trials."""
        rows: list[int] = np.argsort(self._losses(), kind="stable")[:_PARENTS].tolist()
        return rows

    def learners(self) -> list[PoolSurrogate]:
        """See the base class."""
        return [self._loss]


def bayesian(options: BaseModel, problem: Problem) -> Strategy:
    """A Gaussian process of the score."""
    return Bayesian(cast("BayesianOptions", options), problem)
