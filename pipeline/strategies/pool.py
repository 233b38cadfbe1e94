"""The pool of candidates: the whole space, or a sample that follows the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.features import Featurizer
from pipeline.strategies.integer_codes import IntegerEncoder, keys
from pipeline.strategies.neighbours import random_architecture
from pipeline.trials.objectives import excess

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.integer_codes import Codes
    from pipeline.strategies.problem import Problem
    from pipeline.strategies.surrogate import Array

_FEASIBLE_ROUNDS = 20
_PARENTS = 10


@dataclass(frozen=True)
class Sizes:
    """Sizes of a pool, in candidates.

    Attributes:
        whole: the largest space that is taken whole.
        sample: random candidates of a larger space, which stay.
        kept: at most so many candidates of earlier renewals stay.
        fresh: new candidates at each renewal.
    """

    whole: int
    sample: int
    kept: int
    fresh: int


FREE = Sizes(20_000, 2000, 2500, 500)
EXPENSIVE = Sizes(400, 400, 600, 24)
"""Sizes where each candidate has to be built and scored, which takes a tenth of a second or more."""


class Pool:
    """Candidates with their features and known costs.

    A space of up to 20,000 architectures is taken whole. Of a larger one the pool is a random sample, which stays,
    and mutants of the best candidates, of which the best stay. So there are at most 5,000 candidates, or about 1,000
    where each has to be scored first.

    Args:
        problem: what is searched.
        generator: draws the sample.

    Attributes:
        encoder: architectures ↔ integer codes.
        featurizer: integer codes → features.
        codes: (n, choices), each candidate once.
        features: of the same, (n, …).
        metrics: names of the known costs.
        known: (n, metrics), costs that need no trial; NaN where one is unknown.
        excess: (n,), by how much the known costs break the limits in total, relative to them; 0 within all limits.
        fixed: how many candidates stay, the first ones: the sample of the space.
        whole: whether the pool is the whole space.
    """

    def __init__(self, problem: Problem, generator: np.random.Generator) -> None:
        self._problem = problem
        self._sizes = EXPENSIVE if problem.proxies is not None and problem.proxies.expensive else FREE
        self.metrics = problem.known.metrics if problem.known else ()
        self.encoder = IntegerEncoder(problem.space.choices)
        self.whole = problem.space.size() <= self._sizes.whole
        codes = self.encoder.every() if self.whole else self._sample(generator)
        self.featurizer = Featurizer(problem.space, self.encoder, codes, problem.proxies)
        self.codes, self.fixed = codes, len(codes)
        self.features, self.known = self.featurizer.sample, self._known(codes)
        self._index()
        if not self.whole:
            self._look_for_feasible(generator)

    def _sample(self, generator: np.random.Generator) -> Codes:
        """Draw random codes, one half uniform over architectures (nearly all deep), one half choice by choice."""
        count = self._sizes.sample
        uniform = [random_architecture(self._problem.space, generator) for _ in range(count // 2)]
        drawn = self.encoder.sample(count - len(uniform), generator)
        return _distinct(np.vstack([self.encoder.encode(uniform), drawn]))

    def _known(self, codes: Codes) -> Array:
        if self._problem.known is None:
            return np.empty((len(codes), 0))
        return self._problem.known.costs(self.encoder.decode(codes))

    def _index(self) -> None:
        self._row_of = {key: row for row, key in enumerate(keys(self.codes))}
        limits = [(name, limit) for name, limit in self._problem.limits.items() if name in self.metrics]
        over = [self.known[:, self.metrics.index(name)] / limit - 1 for name, limit in limits]
        self.excess: Array = np.maximum(over, 0).sum(axis=0) if over else np.zeros(len(self.codes))

    def _look_for_feasible(self, generator: np.random.Generator) -> None:
        """Renew the pool towards the limits while hardly any candidate is within them."""
        for _ in range(_FEASIBLE_ROUNDS):
            if (self.excess == 0).sum() >= _PARENTS:
                return
            self.renew(-np.nan_to_num(self.excess, nan=np.inf), self.codes[:0], set(), generator)

    def __len__(self) -> int:
        return len(self.codes)

    def architecture(self, row: int) -> Architecture:
        """The candidate of a row."""
        return self.encoder.decode(self.codes[row : row + 1])[0]

    def untried(self, tried: set[bytes]) -> npt.NDArray[np.bool_]:
        """Mask of candidates, shape (n,), whose keys (`integer_codes.keys`) aren't among the tried ones."""
        left = np.ones(len(self), dtype=bool)
        left[[self._row_of[key] for key in tried if key in self._row_of]] = False
        return left

    def within_limits(self) -> npt.NDArray[np.bool_]:
        """Mask of candidates, shape (n,), whose costs are all known and within the limits."""
        known: npt.NDArray[np.bool_] = (self.excess == 0) & np.isfinite(self.known).all(axis=1)
        return known

    def keeps_limits(self, architecture: Architecture) -> bool:
        """Whether no known cost of an architecture, of the pool or not, breaks a limit."""
        known = self._known(self.encoder.encode([architecture]))[0].tolist()
        return not excess(dict(zip(self.metrics, known, strict=True)), self._problem.limits)

    def renew(
        self, ranking: Array, parents: Codes, tried: set[bytes], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Add mutants of the parents and of the best candidates, and drop the worst earlier mutants.

        Half of the mutants differ from their parent in one active choice, the others in up to three.

        Args:
            ranking: (n,), higher is better.
            parents: integer codes of architectures to mutate beside the best candidates.
            tried: keys of architectures that aren't wanted again.
            generator: draws the mutants.

        Returns:
            The rows that stayed; the new candidates follow them.
        """
        order = np.argsort(-ranking, kind="stable")
        best = order[: max(_PARENTS, 2 * len(parents))]
        parents = np.vstack([parents, parents, self.codes[best]])
        mutants = order[order >= self.fixed]
        left = self.untried(tried)
        kept = np.concatenate([np.arange(self.fixed), np.sort(mutants[left[mutants]][: self._sizes.kept])])
        count = self._sizes.fresh
        changes = np.where(generator.random(count) < 0.5, generator.integers(1, 4, count), 1)
        children = self.encoder.mutate(parents[_in_turn(len(parents), count)], changes, generator)
        fresh = self._new(children, kept, tried)
        features = self.featurizer.features(fresh)
        self.known = np.vstack([self.known[kept], self._known(fresh)])
        self.codes, self.features = np.vstack([self.codes[kept], fresh]), self.features.take(kept).joined(features)
        self._index()
        return kept

    def _new(self, children: Codes, kept: npt.NDArray[np.int64], tried: set[bytes]) -> Codes:
        there = set(kept.tolist())
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys(children)):
            if key not in tried and self._row_of.get(key) not in there:
                rows.setdefault(key, row)
        return children[list(rows.values())]


def _in_turn(parents: int, children: int) -> npt.NDArray[np.int64]:
    """Each child's parent, shape (children,): in turn, or evenly over all parents where these are more."""
    step = np.arange(children)
    return step % parents if parents <= children else step * parents // children


def _distinct(codes: Codes) -> Codes:
    """The distinct rows, each at its first place."""
    rows = {key: row for row, key in reversed(list(enumerate(keys(codes))))}
    return codes[sorted(rows.values())]
