"""The config's section `strategy`, for each name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.strict import Strict


class RandomOptions(Strict):
    """NNI's uniform random search."""

    name: Literal["random"]


class GridOptions(Strict):
    """Every architecture once, in a shuffled order."""

    name: Literal["grid"]
    shuffle: bool = True


class EvolutionOptions(Strict):
    """NNI's regularized evolution; the population follows the budget unless it is given."""

    name: Literal["evolution"]
    population: Annotated[int, Field(ge=2)] | None = None
    sample: Annotated[int, Field(ge=1)] | None = None
    mutation: Annotated[float, Field(gt=0, le=1)] = 0.1
    crossover: bool = False

    def resolved(self, trials: int) -> EvolutionOptions:
        """With the population written out, so that a longer budget later changes nothing before.

        A quarter of the trials within 8 to 50: with NNI's own 100 a short search would be a random one.
        """
        if self.population is not None:
            return self
        return self.model_copy(update={"population": max(8, min(50, trials // 4), self.sample or 0)})
