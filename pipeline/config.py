"""The whole config as strict models; an error names file, key, what was found and what is valid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from pipeline.errors import ConfigError, nearest
from pipeline.registry import is_dotted

if TYPE_CHECKING:
    from pathlib import Path

Metric = Literal["accuracy", "latency_ms", "peak_memory_mb", "size_mb", "params", "macs", "energy_mj"]
Limited = Literal["latency_ms", "peak_memory_mb", "size_mb", "params", "macs", "energy_mj"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no changes after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ThirdParty(BaseModel):
    """A section whose name is a dotted path: its options are its owner's to check."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str


# --- data --------------------------------------------------------------------------------------------------


class DigitsOptions(Strict):
    """scikit-learn's 1,797 grey 8×8 digits, embedded in that library."""

    name: Literal["digits"]


class TorchvisionOptions(Strict):
    """A torchvision set under a local root; nothing is downloaded."""

    name: Literal["fashion_mnist", "cifar10"]
    root: str
    train_samples: Count | None = None
    validation_samples: Count = 5000
    image_size: Annotated[int, Field(ge=8, le=224)] | None = None


# --- space -------------------------------------------------------------------------------------------------


class ConvNetOptions(Strict):
    """Stages of convolutional blocks; see `pipeline.spaces.convnet`."""

    name: Literal["convnet"]
    stages: Annotated[int, Field(ge=1, le=6)] | None = None
    width: Annotated[int, Field(ge=8, le=256)] = 16
    width_multipliers: list[Positive] = [0.5, 1.0, 1.5, 2.0]
    depths: list[Annotated[int, Field(ge=1, le=8)]] = [1, 2, 3]
    blocks: list[Literal["residual", "fused", "inverted"]] = ["residual", "fused", "inverted"]
    kernels: list[Literal[3, 5, 7]] = [3, 5]
    expansions: list[Annotated[int, Field(ge=1, le=8)]] = [2, 4]
    squeeze_excitation: list[bool] = [False, True]
    activations: list[str] = ["relu", "hardswish", "silu", "leaky_relu"]
    activation_scope: Literal["network", "stage", "block"] = "stage"

    @field_validator(
        "width_multipliers", "depths", "blocks", "kernels", "expansions", "squeeze_excitation", "activations"
    )
    @classmethod
    def _choices(cls, values: list[Any]) -> list[Any]:
        if not values:
            raise PydanticCustomError("choices", "needs at least one choice")
        if len(set(values)) != len(values):
            raise PydanticCustomError("choices", "lists a choice twice")
        return values


# --- strategy ----------------------------------------------------------------------------------------------


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


# --- the rest ----------------------------------------------------------------------------------------------


class TrainEvaluatorOptions(Strict):
    """Train each candidate for a few epochs and take its validation accuracy."""

    name: Literal["train"]
    epochs: Count = 3


class DeviceOptions(Strict):
    """Hardware + runtime + settings that costs are measured on."""

    name: str = "cpu"
    threads: Count = 1
    batch_size: Count = 1
    precision: Literal["fp32"] = "fp32"


class TrainOptions(Strict):
    """The recipe that candidates and the winner are trained with."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 128
    augment: Literal["none", "light"] = "light"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RewardOptions(Strict):
    """accuracy × (cost / target)^exponent, for strategies that take one number (Tan et al., MnasNet, 2019)."""

    target_ms: Positive | None = None
    exponent: Annotated[float, Field(le=0)] = -0.07


class BudgetOptions(Strict):
    """When the search ends: whatever comes first."""

    trials: Count = 30
    minutes: Positive = 60.0
    infeasible: Count | None = None

    @property
    def infeasible_cap(self) -> int:
        """Candidates that may break a limit before the search gives up looking."""
        return self.infeasible if self.infeasible is not None else max(200, 20 * self.trials)


class InlineOptions(Strict):
    """One persistent child process, replaced when it dies, hangs or takes too much memory."""

    name: Literal["inline"]
    trial_minutes: Positive = 30.0
    memory_gb: Positive | None = None


class FinalOptions(Strict):
    """What happens to the winner."""

    pick: str = "knee"
    epochs: Count = 20
    patience: Count = 8


class ExportOptions(Strict):
    """The file that is deployed."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    quantize: Literal["never"] = "never"


SECTIONS: dict[str, dict[str, type[Strict]]] = {
    "data": {"digits": DigitsOptions, "fashion_mnist": TorchvisionOptions, "cifar10": TorchvisionOptions},
    "space": {"convnet": ConvNetOptions},
    "strategy": {"random": RandomOptions, "grid": GridOptions, "evolution": EvolutionOptions},
    "evaluator": {"train": TrainEvaluatorOptions},
    "engine": {"inline": InlineOptions},
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
    strategy: Section = EvolutionOptions(name="evolution")
    evaluator: Section = TrainEvaluatorOptions(name="train")
    device: DeviceOptions = DeviceOptions()
    cost_model: Literal["auto", "measure"] = "auto"
    train: TrainOptions = TrainOptions()
    reward: RewardOptions = RewardOptions()
    objectives: list[Metric] = ["accuracy", "latency_ms"]
    constraints: dict[Limited, Positive] = {}
    budget: BudgetOptions = BudgetOptions()
    engine: Section = InlineOptions(name="inline")
    final: FinalOptions = FinalOptions()
    export: ExportOptions = ExportOptions()

    @field_validator("objectives")
    @classmethod
    def _objectives(cls, values: list[str]) -> list[str]:
        if len(set(values)) != len(values):
            raise PydanticCustomError("objectives", "lists an objective twice")
        if "accuracy" not in values or len(values) < 2:
            raise PydanticCustomError("objectives", "needs accuracy and at least one cost")
        return values

    @model_validator(mode="after")
    def _strategy_fits(self) -> RunConfig:
        evolution = self.strategy
        if (
            isinstance(evolution, EvolutionOptions)
            and evolution.population is not None
            and evolution.sample is not None
            and evolution.sample > evolution.population
        ):
            raise PydanticCustomError("strategy", "strategy.sample must not exceed strategy.population")
        return self

    def metrics(self) -> tuple[str, ...]:
        """Objectives and limited metrics, each once."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a config file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` texts; the value is read as YAML.

    Raises:
        ConfigError: the file is missing, no YAML, or wrong in a key, a type or a value.
    """
    values = _read_yaml(path)
    for text in overrides or []:
        _override(values, text)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """Check a mapping against the models; `source` is named in errors.

    Raises:
        ConfigError: with one sentence for each wrong key.
    """
    problems: list[str] = []
    resolved = dict(values)
    for kind in SECTIONS:
        if kind in values:
            try:
                resolved[kind] = _read_section(kind, values[kind])
            except _Wrong as wrong:
                problems += wrong.sentences
                resolved.pop(kind)
    try:
        config = RunConfig.model_validate(resolved)
    except ValidationError as error:
        own = [_sentence(RunConfig, (), e) for e in error.errors() if not _answered(e, values)]
        raise ConfigError(source, problems + own) from None
    if problems:
        raise ConfigError(source, problems)
    return config


def parse_section(kind: str, value: Any, source: str) -> BaseModel:
    """One section that is chosen by name, on its own; `source` is named in errors.

    Raises:
        ConfigError: with one sentence for each wrong key.
    """
    try:
        return _read_section(kind, value)
    except _Wrong as wrong:
        raise ConfigError(source, wrong.sentences) from None


class _Wrong(Exception):  # noqa: N818 - carries sentences from a section to the message of the whole config
    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences


def _read_section(kind: str, value: Any) -> BaseModel:
    """A section by its `name`, so that its errors speak of that one's options only."""
    table = SECTIONS[kind]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise _Wrong([f"{kind}: needs a mapping with a name, found {value!r}; valid names: {', '.join(table)}"])
    name = value["name"]
    if name not in table and not is_dotted(name):
        raise _Wrong([f"{kind}.name: unknown {kind} {name!r}{nearest(name, table)}"])
    model = table.get(name, ThirdParty)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _Wrong([_sentence(model, (kind,), e) for e in error.errors()]) from None


def _answered(error: ErrorDetails, values: dict[str, Any]) -> bool:
    """Whether a missing section is only missing because its own check failed before."""
    return error["type"] == "missing" and error["loc"][0] in SECTIONS and error["loc"][0] in values


def dump_config(config: RunConfig) -> str:
    """The resolved config, every default written out, as YAML."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file" + _near_file(path)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"can't be read: {error}"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(str(path), [f"{where}no valid YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(str(path), [f"needs a mapping of keys to values, found {found}"])
    return values


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    others = [str(p) for p in sorted(path.parent.glob("*.y*ml"))]
    return nearest(str(path), others) if others else ""


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}", ["needs the form key.path=value"])
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}", [f"the value is no valid YAML: {error}"]) from None
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {text}", [f"{parent} is a {type(child).__name__}, not a mapping"])
        node = child
    node[last] = value


def _sentence(model: type[BaseModel], prefix: tuple[str, ...], error: ErrorDetails) -> str:
    """One sentence: key path, what was found, what is valid, the nearest match."""
    location = [part for part in error["loc"] if part != "[key]"]
    path = ".".join(str(part) for part in (*prefix, *location)) or "the config"
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
        case "missing":
            names = SECTIONS.get(path)
            return f"{path}: is required" + (f"; valid names: {', '.join(names)}" if names else "")
        case "literal_error":
            valid = [v.strip(" '") for v in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
            return f"{path}: found {found!r}{nearest(str(found), valid)}"
        case _:
            message = error["msg"][:1].lower() + error["msg"][1:]
            return f"{path}: {message}" + ("" if isinstance(found, (dict, BaseModel)) else f", found {found!r}")


def _keys_at(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """The valid keys of the mapping at a place inside a model."""
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
