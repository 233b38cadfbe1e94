"""`bayesian`: Bayesian optimization of the score."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.acquisition import expected_hypervolume_improvement
from pipeline.strategies.pool_based import PoolBasedStrategy
from pipeline.strategies.pool_surrogate import PoolSurrogate, distances_without_outliers

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.config.strategy import BayesianOptions
    from pipeline.strategies.features import Features
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_PARENTS = 5


class Bayesian(PoolBasedStrategy):
    """Bayesian optimization with a Gaussian process of the score.

    Limits, failures and costs matter as far as they are in the score. The acquisition function is the expected
    improvement (Mockus, Tiesis & Zilinskas, 1978) or an upper confidence bound (Srinivas, Krause, Kakade & Seeger,
    2010), both of the logarithm of the distance to a score beyond the best.
    """

    def __init__(self, options: BayesianOptions, problem: Problem) -> None:
        super().__init__(replace(problem, known=None))
        self._options = options

    def begin(self, generator: np.random.Generator) -> None:
        self._loss = PoolSurrogate(self.pool.featurizer.sizes, distances_without_outliers)

    def is_beginning(self) -> bool:
        """Whether fewer than `initial` results are in or pending."""
        return len(self.history) < 2 or len(self.history) + len(self.pending) < self._options.initial

    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """Return a random row."""
        return int(generator.choice(free))

    def update(self) -> None:
        self._loss.learn(self.pool.features, self.seen, self._losses(), self.ranking)

    def _losses(self) -> Array:
        return np.array([-record.score for record in self.history])

    def fantasize(self, pending: Features) -> None:
        for place in range(len(pending)):
            self._loss.fantasize(pending.take(np.array([place])))

    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """Expected improvement, or how much a candidate's bound exceeds the lowest one; shape (pool,)."""
        mean, sd = self._loss.logs()
        if self._options.acquisition == "ucb":
            bound = self._options.kappa * sd - mean
            return np.asarray(bound - bound.min())
        best = self._losses().min(keepdims=True)
        return expected_hypervolume_improvement(mean, sd, best, np.ones((len(mean), 1)), self._loss.scale.shift)

    def uncertainty(self) -> Array:
        return self._loss.logs()[1]

    def parents(self) -> list[int]:
        """Rows of the best trials."""
        rows: list[int] = np.argsort(self._losses(), kind="stable")[:_PARENTS].tolist()
        return rows

    def surrogates(self) -> list[PoolSurrogate]:
        return [self._loss]
