"""The config's section `evaluator`, for each name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.base import Cost, Count, Positive, Section, Strict, is_empty
from pipeline.errors import nearest

SCORE_NAMES = ("params", "macs", "synflow", "naswot", "jacob_cov", "grad_norm")
"""Names of zero-cost scores; repeats `pipeline.evaluators.zero_cost.scores.SCORES`, which imports torch."""


def _stops_nothing(value: object) -> bool:
    """Leave the default out when serialising, as `is_empty`."""
    return isinstance(value, StoppingOptions) and value.rule == "none"


class StoppingOptions(Strict):
    """The rule by which a training is stopped early; see `pipeline.evaluators.stopping_rules`.

    Attributes:
        first: number of epochs that every training has before the rule applies; the first rung of `halving`.
        min_peers: least number of earlier trials to compare with; with fewer, nothing is stopped.
        factor: of `halving`: one trial in so many goes on after `first`, `first` · factor, `first` · factor², … epochs.
        aim: `front` compares trials with regard to the costs among the objectives, `accuracy` without.
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
    """Options of `train`: each candidate is trained for a few epochs."""

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
    """Columns of published zero-cost scores, for strategies with `proxies`; see `pipeline.evaluators.published_scores`.

    Attributes:
        path: their file; by default the evaluator's own.
        key: the column by which rows of both files are matched; by default the evaluator's own `key`.
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
    """Options of `table`, which looks up accuracy and costs; see `pipeline.evaluators.lookup`.

    Attributes:
        path: a CSV file with a header, compressed by gzip where it ends with `.gz`.
        key: the column of the architectures' names, as `SearchSpace.key` writes them.
        accuracy: the column of accuracies, which are from 0 to 1 after multiplication by `scale`.
        costs: metric → column.
        proxies: zero-cost scores, if there are any.
    """

    name: Literal["table"]
    path: str
    key: str
    accuracy: str
    scale: Positive = 1.0
    costs: dict[Cost, str] = {}
    proxies: Annotated[PublishedProxies | None, Field(exclude_if=is_empty)] = None


class ZeroCostOptions(Section):
    """Options of `zero_cost`: a score of the untrained network; see `pipeline.evaluators.zero_cost.scores`.

    Attributes:
        score: its name.
        batch_size: number of training images that the score is computed on.
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


class SupernetOptions(Section):
    """Options of `supernet`: one set of weights for all networks; see `pipeline.evaluators.supernet`.

    Attributes:
        epochs: of the shared weights' training, before the first trial; 0 where `weights` are given, which stay.
        sampling: the networks that a step draws: over the range of `cost`, or `uniform` in the choices.
        networks: that a step draws, beside the largest and the smallest.
        distill: whether the others learn from what the largest network says in place of the labels.
        recalibrate: training images by which a candidate's batch norms get their statistics; 0: each batch's.
        weights: the file of the trained weights; by default the run trains its own before the first trial.
    """

    name: Literal["supernet"]
    epochs: Annotated[int, Field(ge=0)] = 20
    sampling: Literal["cost", "uniform"] = "cost"
    networks: Count = 2
    distill: bool = True
    recalibrate: Annotated[int, Field(ge=0)] = 512
    weights: str | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> SupernetOptions:
        if self.epochs == 0 and self.weights is None:
            raise PydanticCustomError("epochs", "epochs is 0, but there are no weights; valid: 1 and more")
        return self
