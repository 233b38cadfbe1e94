"""NNI's own strategies, made with the problem's seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.nni_types import Random, RegularizedEvolution, Strategy

if TYPE_CHECKING:
    from pipeline.config.strategy import EvolutionOptions, RandomOptions
    from pipeline.strategies.problem import Problem

_TOURNAMENT_SHARE = 0.25  # Real et al. use 25 of 100


def random(options: RandomOptions, problem: Problem) -> Strategy:
    """NNI's uniform random search."""
    return Random(seed=problem.seed)


def evolution(options: EvolutionOptions, problem: Problem) -> Strategy:
    """NNI's aging evolution (Real et al., Regularized evolution for image classifier architecture search, 2019)."""
    population = options.population
    assert population is not None, "a run's config is resolved"
    sample = options.sample or max(2, round(population * _TOURNAMENT_SHARE))
    return RegularizedEvolution(
        population_size=population,
        sample_size=sample,
        mutation_prob=options.mutation,
        crossover=options.crossover,
        seed=problem.seed,
    )
