"""Base of strategies with surrogates over a pool of candidates."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.acquisition import first_best
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.integer_codes import keys
from pipeline.strategies.neighbours import untried_at_random
from pipeline.strategies.pool import Pool
from pipeline.strategies.pool_surrogate import one_blas_thread

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.features import Features
    from pipeline.strategies.integer_codes import Codes
    from pipeline.strategies.pool_surrogate import PoolSurrogate
    from pipeline.strategies.posterior import Places
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_DRAWS = 200


class PoolBasedStrategy(ProposingStrategy):
    """Proposes the candidate of a pool with the highest acquisition value.

    Order of calls: the first proposal builds the pool and calls `begin`. While `is_beginning`, `first` chooses
    without a model. After that, `update` passes new results to the surrogates, and `acquisition_values` is asked
    twice: to renew a pool that isn't the whole space, and to choose, after `fantasize` has conditioned the surrogates
    on what is pending.

    Attributes:
        pool: the candidates.
        seen: features of the history's architectures.
        codes: integer codes of the same.
        ranking: rows of the pool, the best candidates first, as they were ranked last; None before.
    """

    pool: Pool
    seen: Features
    codes: Codes
    ranking: Places | None

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._begun = False
        self.ranking = None

    @abstractmethod
    def begin(self, generator: np.random.Generator) -> None:
        """Prepare for proposals; called once, when the pool has been built and before the first proposal."""

    @abstractmethod
    def is_beginning(self) -> bool:
        """Whether there are too few results for a model."""

    @abstractmethod
    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """Choose one of the free rows of the pool, of which there is at least one, without a model."""

    @abstractmethod
    def update(self) -> None:
        """Pass what is new in the history to the surrogates."""

    @abstractmethod
    def fantasize(self, pending: Features) -> None:
        """Condition the surrogates on pending architectures, with predicted means as observations.

        `PoolSurrogate.drop_fantasies` undoes it.
        """

    @abstractmethod
    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """Acquisition value of each candidate, shape (pool,), at least 0."""

    @abstractmethod
    def uncertainty(self) -> Array:
        """Uncertainty of each candidate, shape (pool,); decides where all acquisition values are 0."""

    @abstractmethod
    def parents(self) -> list[int]:
        """Rows of the history's trials whose neighbours a renewed pool should contain."""

    @abstractmethod
    def surrogates(self) -> list[PoolSurrogate]:
        """All surrogates over the pool."""

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return the best candidate, or None when all that may keep the limits were tried."""
        with one_blas_thread():
            self._follow_history(generator)
            tried = {*keys(self.codes), *keys(self.pool.encoder.encode(self.pending))}
            if not self.is_beginning():
                self.update()
                if not self.pool.whole:
                    self._renew(tried, generator)
                elif self.ranking is not None:
                    for surrogate in self.surrogates():
                        surrogate.follow_best(self.ranking, self.pool.features)
            free = np.flatnonzero(self.pool.untried(tried) & self.pool.within_limits())
            if not len(free):
                return self._left_over(tried, generator)
            row = self.first(free, generator) if self.is_beginning() else self._best(free, generator)
            return self.pool.architecture(row)

    def _follow_history(self, generator: np.random.Generator) -> None:
        if not self._begun:
            self._begun = True
            self.pool = Pool(self.problem, generator)
            self.codes = self.pool.codes[:0]
            self.seen = self.pool.featurizer.features(self.codes)
            self.begin(generator)
        if new := self.history[len(self.codes) :]:
            codes = self.pool.encoder.encode([record.architecture for record in new])
            self.codes = np.vstack([self.codes, codes])
            self.seen = self.seen.joined(self.pool.featurizer.features(codes))

    def _renew(self, tried: set[bytes], generator: np.random.Generator) -> None:
        within = self.pool.within_limits()
        ranking = np.where(within, self.acquisition_values(generator), -np.nan_to_num(self.pool.excess, nan=np.inf))
        kept = self.pool.renew(ranking, self.codes[self.parents()], tried, generator)
        self.ranking = np.argsort(-ranking[kept], kind="stable")
        for surrogate in self.surrogates():
            surrogate.replace(kept, self.pool.features, self.ranking)
        self.ranking = np.append(self.ranking, np.arange(len(kept), len(self.pool)))

    def _best(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        if self.pending:
            self.fantasize(self.pool.featurizer.features(self.pool.encoder.encode(self.pending)))
        values = self.acquisition_values(generator)
        row = first_best(values if values[free].any() else self.uncertainty(), free)
        if self.pool.whole:
            self.ranking = free[np.argsort(-values[free], kind="stable")]
        for surrogate in self.surrogates():
            surrogate.drop_fantasies()
        return row

    def _left_over(self, tried: set[bytes], generator: np.random.Generator) -> Architecture | None:
        """An architecture that isn't known to break a limit, when none of the pool is known to keep all."""
        if self.pool.whole:
            rows = np.flatnonzero(self.pool.untried(tried) & ~(self.pool.excess > 0))
            return self.pool.architecture(int(generator.choice(rows))) if len(rows) else None
        known = self.tried()
        for _ in range(_DRAWS):
            drawn = untried_at_random(self.problem.space, known, generator)
            if drawn is None or self.pool.keeps_limits(drawn):
                return drawn
        return None
