"""NSGA-II: a population that spreads along the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.dominance import DominanceRanks
from pipeline.strategies.neighbours import crossed, drawn_untried, mutated

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.strategy import Nsga2Options
    from pipeline.nni_types import Strategy
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord

_TRIES = 50


class Nsga2(ProposingStrategy):
    """Deb, Pratap, Agarwal & Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.

    Steady state: each result joins the population at once, and who then stands last leaves it. A generation that
    waits for its last member would leave workers idle, and the variant of one by one is the better one on most test
    problems (Durillo, Nebro, Luna & Alba, On the effect of the steady-state selection scheme, 2009).
    """

    def __init__(self, options: Nsga2Options, problem: Problem) -> None:
        super().__init__(problem)
        self._options = options
        self._population: list[TrialRecord] = []  # in the order of the history
        self._order: list[int] = []  # each one's place in the tournament, 0 is the best

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """A child of two tournaments' winners; a random architecture until there is a population."""
        tried = self.tried()
        if self.index >= self._options.population and len(self._population) > 1:
            for _ in range(_TRIES):
                child = self._child(generator)
                if architecture_id(child) not in tried:
                    return child
        return drawn_untried(self.problem.space, tried, generator)

    def _child(self, generator: np.random.Generator) -> Architecture:
        space, child = self.problem.space, self._winner(generator)
        if generator.random() < self._options.crossover:
            child = crossed(space, child, self._winner(generator), generator)
        return mutated(space, child, generator, self._options.mutation)

    def _winner(self, generator: np.random.Generator) -> Architecture:
        first, second = generator.choice(len(self._population), 2, replace=False).tolist()
        winner: int = first if self._order[first] < self._order[second] else second
        return self._population[winner].architecture

    def learn(self, record: TrialRecord) -> None:
        """The record joins the population; the last one of too many leaves it."""
        self._population.append(record)
        standings = DominanceRanks(self._population, self.problem.objectives)
        ranks = standings.ranks()
        order = np.lexsort((-standings.crowding(ranks), ranks))
        if len(order) > self._options.population:
            self._population.pop(order[-1])
            order = np.where(order > order[-1], order - 1, order)[:-1]
        self._order = np.argsort(order).tolist()


def nsga2(options: BaseModel, problem: Problem) -> Strategy:
    """Non-dominated sorting, crowding distance, crossover and mutation."""
    return Nsga2(cast("Nsga2Options", options), problem)
