"""Pareto local search: better architectures are looked for next to the best ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.dominance import DominanceRanks
from pipeline.strategies.neighbours import changed, drawn_untried, moves
from pipeline.trials.objectives import FAILED_SCORE

if TYPE_CHECKING:
    from collections.abc import Set

    import numpy as np
    from pydantic import BaseModel

    from pipeline.config.strategy import LocalSearchOptions
    from pipeline.nni_types import Strategy
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.neighbours import Move
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord


class LocalSearch(ProposingStrategy):
    """Pareto local search (Paquete, Chiarandini & Stützle, 2004), on one objective a hill climb.

    A climb begins with random architectures. Those of its trials that no other one beats are its front. The member
    that was explored least comes first; its neighbours, which make one choice otherwise, are tried in random order.
    As soon as one of them joins the front it is a place to go on from too (first improvement: trials are too dear to
    see a whole neighbourhood before the first step). When all neighbourhoods of the front are tried, the next climb
    begins elsewhere.
    """

    def __init__(self, options: LocalSearchOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._starts = options.starts
        self._begin()

    def _begin(self) -> None:
        self._started = 0
        self._front: list[TrialRecord] = []
        self._moves: dict[str, list[Move]] = {}
        self._made: dict[str, int] = {}  # how many neighbours of each were tried for its sake

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """A neighbour of the climb's front, or a start."""
        tried = self.tried()
        if self._started >= self._starts:
            step = self._step(tried, generator)
            if step is not None:
                return step
            if not self.pending:  # what is pending may still open new neighbourhoods
                self._begin()
        self._started += 1
        return drawn_untried(self.problem.space, tried, generator)

    def _step(self, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
        members = [self._front[place] for place in generator.permutation(len(self._front))]
        for member in sorted(members, key=lambda member: self._made.get(member.id, 0)):
            left = self._left(member, generator)
            while left:
                label, value = left.pop()
                neighbour = changed(self.problem.space, member.architecture, {label: value}, generator)
                if architecture_id(neighbour) not in tried:
                    self._made[member.id] = self._made.get(member.id, 0) + 1
                    return neighbour
        return None

    def _left(self, member: TrialRecord, generator: np.random.Generator) -> list[Move]:
        """A member's moves that weren't made yet, in the random order in which they will be."""
        if member.id not in self._moves:
            every = moves(self.problem.space, member.architecture)
            self._moves[member.id] = [every[place] for place in generator.permutation(len(every))]
        return self._moves[member.id]

    def learn(self, record: TrialRecord) -> None:
        """The record joins the front, leaves it as it is, or throws others out."""
        if record.score == FAILED_SCORE:
            return
        ranks = DominanceRanks([*self._front, record], self.problem.objectives)
        if ranks.beats[:, -1].any() or (record.status == "ok" and ranks.has_duplicate(-1)):
            return
        beaten = ranks.beats[-1]
        self._front = [member for member, gone in zip(self._front, beaten, strict=False) if not gone]
        self._front.append(record)
        kept = {member.id for member in self._front}
        self._moves = {identity: left for identity, left in self._moves.items() if identity in kept}


def local_search(options: BaseModel, problem: Problem) -> Strategy:
    """Pareto local search from random starts."""
    return LocalSearch(cast("LocalSearchOptions", options), problem)
