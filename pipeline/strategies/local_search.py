"""`local_search`: neighbours of the best architectures so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.dominance import DominanceRanks
from pipeline.strategies.neighbours import change, moves, untried_by_choice
from pipeline.trials.objectives import FAILED_SCORE

if TYPE_CHECKING:
    from collections.abc import Set

    import numpy as np

    from pipeline.config.strategy import LocalSearchOptions
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.neighbours import Move
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord


class LocalSearch(ProposingStrategy):
    """Pareto local search (Paquete, Chiarandini & Stützle, 2004), on one objective a hill climb.

    A climb begins with random architectures; its non-dominated trials are its front. Neighbours differ in one choice.
    Those of the least explored member of the front are tried first, in random order. A neighbour that joins the front
    is explored like the others at once (first improvement: trials are too expensive to see a whole neighbourhood
    before the first step). When all neighbourhoods are explored, a new climb begins from random architectures.
    """

    def __init__(self, options: LocalSearchOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._starts = options.starts
        self._begin()

    def _begin(self) -> None:
        self._started = 0
        self._front: list[TrialRecord] = []
        self._moves: dict[str, list[Move]] = {}
        self._explored: dict[str, int] = {}  # id of a member → how many of its neighbours were proposed

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return a neighbour of the climb's front, or a random start."""
        tried = self.tried()
        if self._started >= self._starts:
            step = self._step(tried, generator)
            if step is not None:
                return step
            if not self.pending:  # what is pending may still open new neighbourhoods
                self._begin()
        self._started += 1
        return untried_by_choice(self.problem.space, tried, generator)

    def _step(self, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
        members = [self._front[place] for place in generator.permutation(len(self._front))]
        for member in sorted(members, key=lambda member: self._explored.get(member.id, 0)):
            left = self._moves_left(member, generator)
            while left:
                label, value = left.pop()
                neighbour = change(self.problem.space, member.architecture, {label: value}, generator)
                if architecture_id(neighbour) not in tried:
                    self._explored[member.id] = self._explored.get(member.id, 0) + 1
                    return neighbour
        return None

    def _moves_left(self, member: TrialRecord, generator: np.random.Generator) -> list[Move]:
        """A member's moves that weren't proposed yet, in random order; the last one is the next."""
        if member.id not in self._moves:
            every = moves(self.problem.space, member.architecture)
            self._moves[member.id] = [every[place] for place in generator.permutation(len(every))]
        return self._moves[member.id]

    def learn(self, record: TrialRecord) -> None:
        """Add the record to the front unless it is dominated, and remove what it dominates."""
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
