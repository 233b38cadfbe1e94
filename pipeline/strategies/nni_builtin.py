"""NNI's own strategies as rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pipeline.nni_types import Random, RegularizedEvolution, Strategy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.strategy import EvolutionOptions
    from pipeline.strategies.problem import Problem

_TOURNAMENT_SHARE = 0.25  # Real et al. use 25 of 100


def random(options: BaseModel, problem: Problem) -> Strategy:
    """Uniform random search."""
    return Random(seed=problem.seed)


def evolution(options: BaseModel, problem: Problem) -> Strategy:
    """Aging evolution (Real et al., Regularized evolution for image classifier architecture search, 2019)."""
    section = cast("EvolutionOptions", options)
    population = section.population
    assert population is not None, "a run's config is resolved"
    sample = section.sample or max(2, round(population * _TOURNAMENT_SHARE))
    return RegularizedEvolution(
        population_size=population,
        sample_size=sample,
        mutation_prob=section.mutation,
        crossover=section.crossover,
        seed=problem.seed,
    )
