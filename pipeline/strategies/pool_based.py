"""The base of strategies that ask surrogates about a pool of candidates."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.acquisition import first_best
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.integer_codes import keys
from pipeline.strategies.neighbours import random_untried
from pipeline.strategies.pool import Pool
from pipeline.strategies.pool_surrogate import one_blas_thread

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.features import Features
    from pipeline.strategies.integer_codes import Codes
    from pipeline.strategies.pool_surrogate import PoolSurrogate
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_DRAWS = 200


class PoolBasedStrategy(ProposingStrategy):
    """Proposes the candidate of a pool that promises most.

    Order of calls: at the first proposal the pool is made and `begin` is called. From then on, `is_beginning` tells
    whether `first` chooses, which needs no model; else `update` takes in what is new in the history, and
    `acquisition_values` tells what each candidate promises: once to renew a pool that isn't the whole space, and once,
    after `fantasize` has taken what is pending for done as predicted, to choose.

    Attributes:
        pool: the candidates.
        seen: the history's architectures, as points.
        codes: of the same.
    """

    pool: Pool
    seen: Features
    codes: Codes

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._begun = False

    @abstractmethod
    def begin(self, generator: np.random.Generator) -> None:
        """The pool is there."""

    @abstractmethod
    def is_beginning(self) -> bool:
        """Whether there is too little to learn from."""

    @abstractmethod
    def first(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        """One of the free rows of the pool, at least one, without a model."""

    @abstractmethod
    def update(self) -> None:
        """Take in what is new in the history."""

    @abstractmethod
    def fantasize(self, pending: Features) -> None:
        """Take these for done, as predicted, until `drop_fantasies`."""

    @abstractmethod
    def acquisition_values(self, generator: np.random.Generator) -> Array:
        """(pool,): not negative."""

    @abstractmethod
    def uncertainty(self) -> Array:
        """(pool,): how little is known of each; decides where nothing promises anything."""

    @abstractmethod
    def parents(self) -> list[int]:
        """Which trials of the history a pool should look around."""

    @abstractmethod
    def learners(self) -> list[PoolSurrogate]:
        """All that follow the pool."""

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """The most promising candidate; None when all that can keep the limits were tried."""
        with one_blas_thread():
            self._take_in(generator)
            tried = {*keys(self.codes), *keys(self.pool.coding.codes(self.pending))}
            if not self.is_beginning():
                self.update()
                if not self.pool.whole:
                    self._renew(tried, generator)
            free = np.flatnonzero(self.pool.untried(tried) & self.pool.within_limits())
            if not len(free):
                return self._left_over(tried, generator)
            row = self.first(free, generator) if self.is_beginning() else self._best(free, generator)
            return self.pool.architecture(row)

    def _take_in(self, generator: np.random.Generator) -> None:
        if not self._begun:
            self._begun = True
            self.pool = Pool(self.problem, generator)
            self.codes = self.pool.codes[:0]
            self.seen = self.pool.featurizer.points(self.codes)
            self.begin(generator)
        if new := self.history[len(self.codes) :]:
            codes = self.pool.coding.codes([record.architecture for record in new])
            self.codes = np.vstack([self.codes, codes])
            self.seen = self.seen.joined(self.pool.featurizer.points(codes))

    def _renew(self, tried: set[bytes], generator: np.random.Generator) -> None:
        within = self.pool.within_limits()
        ranking = np.where(within, self.acquisition_values(generator), -np.nan_to_num(self.pool.excess, nan=np.inf))
        kept, fresh = self.pool.renew(ranking, self.codes[self.parents()], tried, generator)
        for surrogate in self.learners():
            surrogate.replace(kept, fresh)

    def _best(self, free: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
        if self.pending:
            self.fantasize(self.pool.featurizer.points(self.pool.coding.codes(self.pending)))
        promised = self.acquisition_values(generator)
        row = first_best(promised if promised[free].any() else self.uncertainty(), free)
        for surrogate in self.learners():
            surrogate.drop_fantasies()
        return row

    def _left_over(self, tried: set[bytes], generator: np.random.Generator) -> Architecture | None:
        """What isn't known to break a limit, when the pool has nothing that is known to keep all."""
        if self.pool.whole:
            rows = np.flatnonzero(self.pool.untried(tried) & ~(self.pool.excess > 0))
            return self.pool.architecture(int(generator.choice(rows))) if len(rows) else None
        known = self.tried()
        for _ in range(_DRAWS):
            drawn = random_untried(self.problem.space, known, generator)
            if drawn is None or self.pool.keeps_limits(drawn):
                return drawn
        return None
