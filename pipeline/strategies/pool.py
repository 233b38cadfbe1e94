"""Candidates that a surrogate is asked about: the whole space, or a sample that follows the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.features import Featurizer
from pipeline.strategies.integer_codes import IntegerCodes, keys
from pipeline.strategies.neighbours import random_architecture
from pipeline.trials.objectives import excess

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.features import Features
    from pipeline.strategies.integer_codes import Codes
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_FEASIBLE_ROUNDS = 20
_PARENTS = 10


@dataclass(frozen=True)
class Sizes:
    """How many candidates there are.

    Attributes:
        whole: the largest space that is taken whole.
        sample: of a larger one, those that stay.
        kept: the most of those that were brought in later, and stay until there are better ones.
        fresh: new ones at each renewal.
    """

    whole: int
    sample: int
    kept: int
    fresh: int


FREE = Sizes(20_000, 2000, 2500, 500)
EXPENSIVE = Sizes(400, 400, 600, 24)
"""Where each candidate has to be built and scored, which takes a tenth of a second or more."""


class Pool:
    """Candidates with what is known of them.

    A space of up to 20,000 architectures is taken whole. Of a larger one it is a random sample, which stays, and
    changed copies of the best candidates, of which the best stay. So there are never more than 5,000; about 1,000
    where each has to be scored first.

    Args:
        problem: what is searched.
        generator: of the sample.

    Attributes:
        coding: of the space.
        featurizer: of the space.
        codes: (n, choices), each candidate once.
        points: of the same.
        known: (n, metrics), costs that are known without a trial; NaN where they aren't.
        fixed: how many candidates, the first ones, stay: they stand for the space.
        whole: whether these are all architectures.
    """

    def __init__(self, problem: Problem, generator: np.random.Generator) -> None:
        self._problem = problem
        self._sizes = EXPENSIVE if problem.proxies is not None and problem.proxies.expensive else FREE
        self.metrics = problem.known.metrics if problem.known else ()
        self.coding = IntegerCodes(problem.space.choices)
        self.whole = problem.space.size() <= self._sizes.whole
        codes = self.coding.every() if self.whole else self._sample(generator)
        self.featurizer = Featurizer(problem.space, self.coding, codes, problem.proxies)
        self.codes, self.fixed = codes, len(codes)
        self.points, self.known = self.featurizer.sample, self._known(codes)
        self._index()
        if not self.whole:
            self._look_for_feasible(generator)

    def _sample(self, generator: np.random.Generator) -> Codes:
        """Half of them uniform over architectures, which are nearly all as deep as can be; half choice by choice."""
        count = self._sizes.sample
        uniform = [random_architecture(self._problem.space, generator) for _ in range(count // 2)]
        drawn = self.coding.drawn(count - len(uniform), generator)
        return _distinct(np.vstack([self.coding.codes(uniform), drawn]))

    def _known(self, codes: Codes) -> Array:
        if self._problem.known is None:
            return np.empty((len(codes), 0))
        return self._problem.known.costs(self.coding.architectures(codes))

    def _index(self) -> None:
        self._row_of = {key: row for row, key in enumerate(keys(self.codes))}
        limits = [(self.metrics.index(name), limit) for name, limit in self._problem.limits.items() if self._is(name)]
        over = [self.known[:, column] / limit - 1 for column, limit in limits]
        self.excess: Array = np.maximum(over, 0).sum(axis=0) if over else np.zeros(len(self.codes))

    def _is(self, metric: str) -> bool:
        return metric in self.metrics

    def _look_for_feasible(self, generator: np.random.Generator) -> None:
        """Where limits are so tight that the sample has hardly any candidate within, go towards them."""
        for _ in range(_FEASIBLE_ROUNDS):
            if (self.excess == 0).sum() >= _PARENTS:
                return
            self.renew(-np.nan_to_num(self.excess, nan=np.inf), self.codes[:0], set(), generator)

    def __len__(self) -> int:
        return len(self.codes)

    def architecture(self, row: int) -> Architecture:
        """One candidate."""
        return self.coding.architectures(self.codes[row : row + 1])[0]

    def untried(self, tried: set[bytes]) -> npt.NDArray[np.bool_]:
        """(n,): who isn't among the tried ones' keys (see `coding.keys`)."""
        left = np.ones(len(self), dtype=bool)
        left[[self._row_of[key] for key in tried if key in self._row_of]] = False
        return left

    def within_limits(self) -> npt.NDArray[np.bool_]:
        """(n,): who keeps the limits, as far as that is known without a trial; not who isn't known."""
        known: npt.NDArray[np.bool_] = (self.excess == 0) & np.isfinite(self.known).all(axis=1)
        return known

    def keeps_limits(self, architecture: Architecture) -> bool:
        """Whether an architecture, of the pool or not, breaks no limit as far as that is known."""
        known = self._known(self.coding.codes([architecture]))[0].tolist()
        return not excess(dict(zip(self.metrics, known, strict=True)), self._problem.limits)

    def renew(
        self, ranking: Array, parents: Codes, tried: set[bytes], generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], Features]:
        """Bring in changed copies of the parents and of the best by `ranking` (n,), drop the worst of earlier ones.

        One active choice is changed, in half of them up to three.

        Returns:
            The rows that stayed, and the new candidates, which follow them.
        """
        order = np.argsort(-ranking, kind="stable")
        best = order[: max(_PARENTS, 2 * len(parents))]
        parents = np.vstack([parents, parents, self.codes[best]])
        mutants = order[order >= self.fixed]
        left = self.untried(tried)
        kept = np.concatenate([np.arange(self.fixed), np.sort(mutants[left[mutants]][: self._sizes.kept])])
        count = self._sizes.fresh
        changes = np.where(generator.random(count) < 0.5, generator.integers(1, 4, count), 1)
        children = self.coding.mutated(parents[_in_turn(len(parents), count)], changes, generator)
        fresh = self._new(children, kept, tried)
        points = self.featurizer.points(fresh)
        self.known = np.vstack([self.known[kept], self._known(fresh)])
        self.codes, self.points = np.vstack([self.codes[kept], fresh]), self.points.take(kept).joined(points)
        self._index()
        return kept, points

    def _new(self, children: Codes, kept: npt.NDArray[np.int64], tried: set[bytes]) -> Codes:
        there = set(kept.tolist())
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys(children)):
            if key not in tried and self._row_of.get(key) not in there:
                rows.setdefault(key, row)
        return children[list(rows.values())]


def _in_turn(parents: int, children: int) -> npt.NDArray[np.int64]:
    """(children,): whose child each is; where there are more parents than children, evenly over all of them."""
    step = np.arange(children)
    return step % parents if parents <= children else step * parents // children


def _distinct(codes: Codes) -> Codes:
    """Each row once, where it first was."""
    rows = {key: row for row, key in reversed(list(enumerate(keys(codes))))}
    return codes[sorted(rows.values())]
