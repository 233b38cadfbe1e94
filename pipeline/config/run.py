"""The whole config as strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    InstanceOf,
    SerializeAsAny,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from latency_models.devices.device import DEVICES
from latency_models.devices.device_file import NAME_PATTERN, DeviceDefinition
from pipeline.config.base import Cost, Count, Positive, Strict
from pipeline.config.engine import InlineOptions, ProcessesOptions
from pipeline.config.evaluator import TableEvaluatorOptions, TrainEvaluatorOptions, ZeroCostOptions
from pipeline.config.space import ConvNetOptions, NasBench201Options, TableSpaceOptions
from pipeline.config.strategy import (
    BayesianOptions,
    ControllerOptions,
    EvolutionOptions,
    GridOptions,
    GuidedOptions,
    LocalSearchOptions,
    Nsga2Options,
    RandomOptions,
    TpeOptions,
)
from pipeline.errors import nearest
from pipeline.registry import is_dotted, third_party
from pipeline.tables import REFERENCES

ImageSize = Annotated[int, Field(ge=8, le=224)]
Metric = Literal["accuracy", Cost]


COST_MODELS = ("auto", "measure", "predict")
"""How a candidate's latency is known, beside the name of a file that `hwnas calibrate` wrote."""


# --- data --------------------------------------------------------------------------------------------------


class DigitsOptions(Strict):
    """scikit-learn's 1,797 grey 8×8 digits, embedded in that library."""

    name: Literal["digits"]
    image_size: ImageSize | None = None


class TorchvisionOptions(Strict):
    """A torchvision set under a local root; nothing is downloaded."""

    def resolved(self) -> TorchvisionOptions:
        """With an absolute root, so that a run and a bundle can be used from any directory."""
        return self.model_copy(update={"root": str(Path(self.root).expanduser().absolute())})

    name: Literal["fashion_mnist", "cifar10"]
    root: str
    train_samples: Count | None = None
    validation_samples: Count = 5000
    image_size: ImageSize | None = None


# --- the rest ----------------------------------------------------------------------------------------------


class DeviceOptions(DeviceDefinition):
    """Hardware + runtime + settings that costs are measured on.

    The name is a built-in's, one of the user's file of devices, or a new one with its definition beside it. A
    config that was read holds the definition in any case, so that a run doesn't depend on the file later.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "cpu"
    threads: Count = 1
    batch_size: Count = 1
    precision: Literal["fp32", "int8"] = "fp32"

    @model_validator(mode="after")
    def _keeps_built_ins(self) -> DeviceOptions:
        if self.name in DEVICES and (keys := [key for key in DeviceDefinition.model_fields if key in self.defined]):
            raise PydanticCustomError(
                "device",
                "{name} is a built-in device and takes no {keys}; give this one a name of its own",
                {"name": repr(self.name), "keys": " or ".join(keys)},
            )
        return self

    @property
    def defined(self) -> dict[str, Any]:
        """The keys that define a device, as far as they were given."""
        given = {key: getattr(self, key) for key in DeviceDefinition.model_fields}
        return {key: value for key, value in given.items() if value is not None}

    def definition(self) -> DeviceDefinition | None:
        """The definition, None where the name alone has to do."""
        return DeviceDefinition(**self.defined) if self.defined else None

    @model_serializer(mode="plain")
    def _given(self) -> dict[str, Any]:
        """The settings, and of a definition what it says."""
        settings = {key: getattr(self, key) for key in ("name", "threads", "batch_size", "precision")}
        return {**settings, **self.defined}


class TrainOptions(Strict):
    """The recipe that candidates and the winner are trained with."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 0.002
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 128
    augment: Literal["none", "light"] = "light"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RewardOptions(Strict):
    """accuracy × (cost / target)^exponent, for strategies that take one number (Tan et al., MnasNet, 2019)."""

    target_ms: Positive | None = None
    exponent: Annotated[float, Field(le=0, allow_inf_nan=False)] = -0.07


class BudgetOptions(Strict):
    """When the search ends: whatever comes first."""

    trials: Count = 30
    minutes: Positive = 60.0
    infeasible: Count | None = None

    @property
    def infeasible_cap(self) -> int:
        """Candidates that may break a limit before the search gives up looking."""
        return self.infeasible if self.infeasible is not None else max(200, 20 * self.trials)


class FinalOptions(Strict):
    """What happens to the winner."""

    pick: str = "knee"
    epochs: Count = 20
    patience: Count = 8


class ReferencesOptions(Strict):
    """The networks that `--references` sets the winner against."""

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
    """The file that is deployed."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    quantize: Literal["auto", "never"] = "auto"
    max_accuracy_loss: Annotated[float, Field(ge=0, le=1)] = 0.01
    image_model: bool = False


SECTIONS: dict[str, dict[str, type[Strict]]] = {
    "data": {"digits": DigitsOptions, "fashion_mnist": TorchvisionOptions, "cifar10": TorchvisionOptions},
    "space": {"convnet": ConvNetOptions, "nasbench201": NasBench201Options, "table": TableSpaceOptions},
    "strategy": {
        "guided": GuidedOptions,
        "random": RandomOptions,
        "grid": GridOptions,
        "evolution": EvolutionOptions,
        "local_search": LocalSearchOptions,
        "nsga2": Nsga2Options,
        "tpe": TpeOptions,
        "bayesian": BayesianOptions,
        "controller": ControllerOptions,
    },
    "evaluator": {
        "train": TrainEvaluatorOptions,
        "zero_cost": ZeroCostOptions,
        "table": TableEvaluatorOptions,
    },
    "engine": {"inline": InlineOptions, "processes": ProcessesOptions},
}
"""Each section that is chosen by name: name → the model of its options."""


Section = SerializeAsAny[InstanceOf[BaseModel]]
"""A section that was already read by the model that its name stands for."""


class RunConfig(Strict):
    """One search, whole. Every key has a default but `data` and `space`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "hwnas"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: Section
    space: Section
    strategy: Section = GuidedOptions(name="guided")
    evaluator: Section = TrainEvaluatorOptions(name="train")
    device: DeviceOptions = DeviceOptions()
    cost_model: str = "auto"
    train: TrainOptions = TrainOptions()
    reward: RewardOptions = RewardOptions()
    objectives: list[Metric] = ["accuracy", "latency_ms"]
    constraints: dict[Cost, Positive] = {}
    budget: BudgetOptions = BudgetOptions()
    engine: Section = InlineOptions(name="inline")
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

    def metrics(self) -> tuple[str, ...]:
        """Objectives and limited metrics, each once."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))
