"""The config's section `strategy`, for each name."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.config.base import Count, Positive, Section, is_empty

Share = Annotated[float, Field(ge=0, le=1)]


class RandomOptions(Section):
    """Options of `random`: none."""

    name: Literal["random"]


class GridOptions(Section):
    """Options of `grid`."""

    name: Literal["grid"]
    shuffle: bool = True


class EvolutionOptions(Section):
    """Options of `evolution`, NNI's regularized evolution; the population depends on the budget by default."""

    name: Literal["evolution"]
    population: Annotated[int, Field(ge=2)] | None = None
    sample: Annotated[int, Field(ge=1)] | None = None
    mutation: Annotated[float, Field(gt=0, le=1)] = 0.1
    crossover: bool = False

    @field_validator("sample")
    @classmethod
    def _fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        population = info.data.get("population")
        if value is not None and population is not None and value > population:
            raise PydanticCustomError("sample", "must not exceed the population, {of}", {"of": population})
        return value

    def resolved(self, *, trials: int, pick: str) -> Self:
        """The section with its population written out, so that a longer budget later changes nothing before.

        It is a quarter of the trials, from 8 to 50: with NNI's own 100 a short search would be a random one.
        """
        if self.population is not None:
            return self
        return self.model_copy(update={"population": max(8, min(50, trials // 4), self.sample or 0)})


class LocalSearchOptions(Section):
    """Options of `local_search`; each climb begins with `starts` random architectures."""

    name: Literal["local_search"]
    starts: Count = 10


class Nsga2Options(Section):
    """Options of `nsga2`; `mutation` is the probability for each active choice, by default one over their number."""

    name: Literal["nsga2"]
    population: Annotated[int, Field(ge=2)] = 16
    crossover: Share = 0.9
    mutation: Annotated[float, Field(gt=0, le=1)] | None = None


class TpeOptions(Section):
    """Options of `tpe`, with the defaults of NNI's Tree-structured Parzen Estimator."""

    name: Literal["tpe"]
    startup: Count = 20
    candidates: Count = 24
    gamma: Positive = 0.25
    liar: Literal["best", "worst", "mean"] = "best"


class GuidedOptions(Section):
    """Options of `guided`.

    Attributes:
        initial: number of trials before the first model.
        aim: `auto` is `accuracy` where the most accurate architecture within the limits is picked, else `front`.
        proxies: names of zero-cost scores that the surrogate of the error sees beside the architectures.
    """

    name: Literal["guided"]
    initial: Annotated[int, Field(ge=2)] = 8
    aim: Literal["auto", "front", "accuracy"] = "auto"
    proxies: Annotated[list[str], Field(exclude_if=is_empty)] = []

    @field_validator("proxies")
    @classmethod
    def _distinct(cls, values: list[str]) -> list[str]:
        if len(set(values)) != len(values):
            raise PydanticCustomError("proxies", "lists a score twice")
        return values

    def resolved(self, *, trials: int, pick: str) -> Self:
        """The section with its aim written out, so that another pick later changes no proposal."""
        if self.aim != "auto":
            return self
        return self.model_copy(update={"aim": "accuracy" if pick == "most-accurate" else "front"})


class BayesianOptions(Section):
    """Options of `bayesian`; `kappa` is the number of standard deviations in the bound of `ucb`."""

    name: Literal["bayesian"]
    initial: Annotated[int, Field(ge=2)] = 8
    acquisition: Literal["ei", "ucb"] = "ei"
    kappa: Positive = 1.0


class ControllerOptions(Section):
    """Options of `controller`, an LSTM policy trained by REINFORCE."""

    name: Literal["controller"]
    hidden_size: Count = 64
    learning_rate: Positive = 0.005
    entropy: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    baseline_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Count = 1
    repeats: Annotated[int, Field(ge=0)] = 4
