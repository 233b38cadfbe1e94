"""NNI's own strategies as rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipeline.nni_types import Random, RegularizedEvolution, Strategy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config import EvolutionOptions
    from pipeline.spaces.base import SearchSpace

_SMALLEST, _LARGEST = 8, 50
_TOURNAMENT_SHARE = 0.25  # Real et al. use 25 of 100


def random(options: BaseModel, space: SearchSpace, seed: int) -> Strategy:
    """Uniform random search."""
    return Random(seed=seed)


def evolution(options: BaseModel, space: SearchSpace, seed: int) -> Strategy:
    """Aging evolution (Real et al., Regularized evolution for image classifier architecture search, 2019)."""
    section = cast("EvolutionOptions", options)
    population = section.population or _SMALLEST
    sample = section.sample or max(2, round(population * _TOURNAMENT_SHARE))
    return RegularizedEvolution(
        population_size=population,
        sample_size=sample,
        mutation_prob=section.mutation,
        crossover=section.crossover,
        seed=seed,
    )


def default_population(trials: int) -> int:
    """A quarter of the budget: NNI's 100 would make a short search a random one."""
    return max(_SMALLEST, min(_LARGEST, trials // 4))


def resolve(options: Any, trials: int) -> Any:
    """Evolution's options with the population written out, so that a longer budget later changes nothing before."""
    if options.name != "evolution" or options.population is not None:
        return options
    return options.model_copy(update={"population": max(default_population(trials), options.sample or 0)})
