"""The whole config as strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, InstanceOf, SerializeAsAny, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.base import Cost, Count, Positive, Section, Strict
from pipeline.config.device import DeviceOptions
from pipeline.config.engine import AutoOptions
from pipeline.config.evaluator import TrainEvaluatorOptions
from pipeline.config.strategy import GuidedOptions
from pipeline.errors import nearest
from pipeline.registry import is_dotted, third_party
from pipeline.tables import REFERENCES, SECTIONS

Metric = Literal["accuracy", Cost]


def _is_auto(value: object) -> bool:
    """Leave the default out when serialising, as `is_empty`."""
    return value == "auto"


COST_MODELS = ("auto", "measure", "predict")
"""Ways to know a candidate's latency, beside a file that `hwnas calibrate` wrote."""


class TrainOptions(Strict):
    """The training recipe of candidates and of the winner."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 0.002
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 128
    augment: Literal["none", "light"] = "light"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Annotated[Literal["auto", "fp32", "bf16"], Field(exclude_if=_is_auto)] = "auto"


class RewardOptions(Strict):
    """The score for strategies with one objective: accuracy × (cost / target)^exponent (Tan et al., MnasNet, 2019)."""

    target_ms: Positive | None = None
    exponent: Annotated[float, Field(le=0, allow_inf_nan=False)] = -0.07


class BudgetOptions(Strict):
    """The budget of a search, which ends at whichever limit comes first."""

    trials: Count = 30
    minutes: Positive = 60.0
    infeasible: Count | None = None

    @property
    def infeasible_cap(self) -> int:
        """Number of infeasible candidates after which the search gives up."""
        return self.infeasible if self.infeasible is not None else max(200, 20 * self.trials)


class FinalOptions(Strict):
    """The pick of the winner and its training to the end."""

    pick: str = "knee"
    epochs: Count = 20
    patience: Count = 8


class ReferencesOptions(Strict):
    """The published networks that `--references` compares the winner with."""

    names: list[str] = list(REFERENCES)

    @field_validator("names")
    @classmethod
    def _known(cls, values: list[str]) -> list[str]:
        if not values:
            raise PydanticCustomError("names", "needs at least one reference")
        if len(set(values)) != len(values):
            raise PydanticCustomError("names", "lists a reference twice")
        for name in values:
            if name not in REFERENCES and not is_dotted(name) and name not in third_party("reference"):
                unknown = f"unknown reference {name!r}{nearest(name, REFERENCES)}"
                raise PydanticCustomError("names", "{message}", {"message": unknown})
        return values


class ExportOptions(Strict):
    """The format and precision of the deployed file."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    quantize: Literal["auto", "never"] = "auto"
    max_accuracy_loss: Annotated[float, Field(ge=0, le=1)] = 0.01
    image_model: bool = False


AnySection = SerializeAsAny[InstanceOf[Section]]
"""A section that was already read by the model of its name."""


class RunConfig(Strict):
    """The config of one search; all keys but `data` and `space` have defaults."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "hwnas"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: AnySection
    space: AnySection
    strategy: AnySection = GuidedOptions(name="guided")
    evaluator: AnySection = TrainEvaluatorOptions(name="train")
    device: DeviceOptions = DeviceOptions()
    cost_model: str = "auto"
    train: TrainOptions = TrainOptions()
    reward: RewardOptions = RewardOptions()
    objectives: list[Metric] = ["accuracy", "latency_ms"]
    constraints: dict[Cost, Positive] = {}
    budget: BudgetOptions = BudgetOptions()
    engine: AnySection = AutoOptions(name="auto")
    final: FinalOptions = FinalOptions()
    export: ExportOptions = ExportOptions()
    references: ReferencesOptions = ReferencesOptions()

    @field_validator("objectives")
    @classmethod
    def _objectives(cls, values: list[str]) -> list[str]:
        if len(set(values)) != len(values):
            raise PydanticCustomError("objectives", "lists an objective twice")
        if "accuracy" not in values or len(values) < 2:
            raise PydanticCustomError("objectives", "needs accuracy and at least one cost")
        return values

    @field_validator("cost_model")
    @classmethod
    def _cost_model(cls, value: str) -> str:
        if value in COST_MODELS:
            return value
        if not value.endswith(".json"):
            raise PydanticCustomError(
                "cost_model", "{message}", {"message": f"found {value!r}{nearest(value, COST_MODELS)}, or a .json file"}
            )
        return str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _precision_fits(self) -> RunConfig:
        if self.device.precision == "int8" and self.export.quantize == "never":
            raise PydanticCustomError(
                "precision",
                "export.quantize is 'never', but device.precision 'int8' deploys the quantised model; valid: auto",
            )
        return self

    @property
    def limits(self) -> dict[str, float]:
        """Highest allowed value of each limited metric."""
        return {str(name): limit for name, limit in self.constraints.items()}

    def resolved(self) -> Self:
        """The config with what its sections take from each other, or from the working directory, written out."""
        trials, pick = self.budget.trials, self.final.pick
        return self.model_copy(update={k: getattr(self, k).resolved(trials=trials, pick=pick) for k in SECTIONS})

    def metrics(self) -> tuple[str, ...]:
        """Names of the objectives and limited metrics, each once."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))
