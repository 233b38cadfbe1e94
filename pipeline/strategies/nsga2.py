"""`nsga2`: NSGA-II, a population that spreads along the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.dominance import DominanceRanks
from pipeline.strategies.neighbours import crossover, mutate, untried_by_choice

if TYPE_CHECKING:
    from pipeline.config.strategy import Nsga2Options
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord

_TRIES = 50


class Nsga2(ProposingStrategy):
    """Steady-state NSGA-II (Deb, Pratap, Agarwal & Meyarivan, 2002).

    Each result joins the population at once, and the last in rank and crowding distance leaves it. Whole generations
    would leave workers idle; on most test problems steady state is better, too (Durillo, Nebro, Luna & Alba, On the
    effect of the steady-state selection scheme in multi-objective genetic algorithms, 2009).

    Attributes:
        population: trials, in the order of the history.
    """

    def __init__(self, options: Nsga2Options, problem: Problem) -> None:
        super().__init__(problem)
        self._options = options
        self.population: list[TrialRecord] = []
        self._order: list[int] = []  # each member's place in tournaments, 0 is the best

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return a child of two tournaments' winners; a random architecture until there is a population."""
        tried = self.tried()
        if self.index >= self._options.population and len(self.population) > 1:
            for _ in range(_TRIES):
                child = self._child(generator)
                if architecture_id(child) not in tried:
                    return child
        return untried_by_choice(self.problem.space, tried, generator)

    def _child(self, generator: np.random.Generator) -> Architecture:
        space, child = self.problem.space, self._winner(generator)
        if generator.random() < self._options.crossover:
            child = crossover(space, child, self._winner(generator), generator)
        return mutate(space, child, generator, self._options.mutation)

    def _winner(self, generator: np.random.Generator) -> Architecture:
        first, second = generator.choice(len(self.population), 2, replace=False).tolist()
        winner: int = first if self._order[first] < self._order[second] else second
        return self.population[winner].architecture

    def learn(self, record: TrialRecord) -> None:
        """Add the record to the population; the worst member of one that is too large leaves it."""
        self.population.append(record)
        dominance = DominanceRanks(self.population, self.problem.objectives)
        ranks = dominance.ranks()
        order = np.lexsort((-dominance.crowding(ranks), ranks))
        if len(order) > self._options.population:
            self.population.pop(order[-1])
            order = np.where(order > order[-1], order - 1, order)[:-1]
        self._order = np.argsort(order).tolist()
