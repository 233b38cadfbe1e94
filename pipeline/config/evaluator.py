"""The config's section `evaluator`, for each name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.base import Cost, Count, Positive, Section, Strict
from pipeline.errors import nearest

SCORE_NAMES = ("params", "macs", "synflow", "naswot", "jacob_cov", "grad_norm")
"""The rows of `pipeline.evaluators.zero_cost.scores.SCORES`, which needs torch."""


def _is_none(value: object) -> bool:
    """Whether a key is left out where it is written: what was there before it stays valid."""
    return value is None


def _stops_nothing(value: object) -> bool:
    """As `_is_none`."""
    return isinstance(value, StoppingOptions) and value.rule == "none"


class StoppingOptions(Strict):
    """When a training is ended early; see `pipeline.evaluators.stopping_rules`.

    Attributes:
        first: the epoch after which the rule speaks first; every training has so many. Of `halving` the first rung.
        min_peers: with fewer earlier trials to compare with, the rule says nothing.
        factor: halving: one in so many goes on, after `first`, `first` · factor, `first` · factor², … epochs.
        aim: `front` compares with regard to the costs among the objectives, `accuracy` without.
    """

    rule: Literal["none", "median", "halving"] = "none"
    first: Count = 1
    min_peers: Count = 5
    factor: Annotated[int, Field(ge=2)] = 3
    aim: Literal["front", "accuracy"] = "front"

    @model_validator(mode="after")
    def _takes_what_is_given(self) -> StoppingOptions:
        every = {name: field.default for name, field in type(self).model_fields.items()}
        taken = {"none": {"rule"}, "median": {*every} - {"factor"}, "halving": {*every}}[self.rule]
        if others := [name for name in every if name not in taken and getattr(self, name) != every[name]]:
            raise PydanticCustomError(
                "stopping", "rule {rule} takes no {others}", {"rule": self.rule, "others": " and no ".join(others)}
            )
        return self


class TrainEvaluatorOptions(Section):
    """Train each candidate for a few epochs and take its validation accuracy."""

    name: Literal["train"]
    epochs: Count = 3
    stopping: Annotated[StoppingOptions, Field(exclude_if=_stops_nothing)] = StoppingOptions()

    @model_validator(mode="after")
    def _leaves_something_to_stop(self) -> TrainEvaluatorOptions:
        if self.stopping.rule != "none" and self.stopping.first >= self.epochs:
            valid = f"1 to {self.epochs - 1}" if self.epochs > 1 else "none; raise epochs"
            raise PydanticCustomError(
                "stopping",
                "stopping.first is {first}, but of {epochs} epochs none is left to be spared then; valid: {valid}",
                {"first": self.stopping.first, "epochs": self.epochs, "valid": valid},
            )
        return self


class PublishedProxies(Strict):
    """Columns of zero-cost scores, for strategies with `proxies`; see `pipeline.evaluators.published_scores`.

    Attributes:
        path: the file that has them; the evaluator's own where it isn't given.
        key: a column that both files have, and that tells which rows belong together; the evaluator's own `key`
            where it isn't given.
        columns: score → column.
        seconds: score → column of the seconds that it took.
    """

    path: str | None = None
    key: str | None = None
    columns: Annotated[dict[str, str], Field(min_length=1)]
    seconds: dict[str, str] = {}

    @model_validator(mode="after")
    def _timed_scores_are_there(self) -> PublishedProxies:
        for name in self.seconds:
            if name not in self.columns:
                message = f"seconds.{name}: is no score of columns{nearest(name, self.columns)}"
                raise PydanticCustomError("seconds", "{message}", {"message": message})
        return self


class TableEvaluatorOptions(Section):
    """Look accuracy and costs up in a published table; see `pipeline.evaluators.lookup`.

    Attributes:
        path: a CSV file with a line of names, packed with gzip where it ends with `.gz`.
        key: the column of the architectures' names, as the space writes them.
        accuracy: the column of the accuracies; times `scale` they are from 0 to 1.
        costs: metric → column.
        proxies: where zero-cost scores are, if there are any.
    """

    name: Literal["table"]
    path: str
    key: str
    accuracy: str
    scale: Positive = 1.0
    costs: dict[Cost, str] = {}
    proxies: Annotated[PublishedProxies | None, Field(exclude_if=_is_none)] = None


class ZeroCostOptions(Section):
    """A score of the untrained network in place of an accuracy; see `pipeline.evaluators.zero_cost.scores`.

    Attributes:
        score: which one.
        batch_size: training images that it sees.
    """

    name: Literal["zero_cost"]
    score: str
    batch_size: Annotated[int, Field(ge=2)] = 32

    @field_validator("score")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SCORE_NAMES:
            message = f"unknown score {value!r}{nearest(value, SCORE_NAMES)}"
            raise PydanticCustomError("score", "{message}", {"message": message})
        return value
