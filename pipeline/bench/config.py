"""The config of a benchmark: a search's, but with several strategies, seeds and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from latency_models.strict_yaml import shown
from pipeline.config.base import Cost, Count, Section
from pipeline.config.data import DigitsOptions
from pipeline.config.evaluator import TableEvaluatorOptions
from pipeline.config.file import WrongSection, parse_as, read_section, read_values
from pipeline.config.run import AnySection, RunConfig
from pipeline.errors import ConfigError
from pipeline.tables import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

_NO_LIMIT_MINUTES = 1e9
Percentile = Annotated[float, Field(gt=0, le=100)]


class BenchConfig(RunConfig):
    """A benchmark's config; all keys but `space`, `evaluator` and `strategies` have defaults.

    Attributes:
        strategies: each with its options.
        seeds: number of seeds, which are 0, 1, …
        report_at: numbers of trials after which hypervolume and regret are reported.
        devices: columns of the table that take turns as the first cost; by default the evaluator's own column.
        limit_percentiles: metric → percentile of the table's valid rows that is its limit, on each device anew.
    """

    data: AnySection = DigitsOptions(name="digits")
    evaluator: AnySection
    strategies: Annotated[list[AnySection], Field(min_length=1)]
    seeds: Count = 20
    report_at: Annotated[list[Count], Field(min_length=1)] = [25, 50, 100, 200]
    devices: Annotated[list[str], Field(min_length=1)] | None = None
    limit_percentiles: dict[Cost, Percentile] = {}

    @field_validator("objectives")
    @classmethod
    def _objectives(cls, values: list[str]) -> list[str]:
        """Check as in a search, but accuracy may be alone; `_fits_together` then requires a limit."""
        return super()._objectives(values) if values != ["accuracy"] else values

    @field_validator("report_at", "devices")
    @classmethod
    def _distinct(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) != len(values):
            raise PydanticCustomError("distinct", "lists one twice")
        return sorted(values) if values and isinstance(values[0], int) else values

    @model_validator(mode="after")
    def _fits_together(self) -> BenchConfig:
        if not isinstance(self.evaluator, TableEvaluatorOptions):
            name = self.evaluator.name
            message = f"evaluator.name: a benchmark looks up what trials are worth, found {name!r}; valid: table"
            raise PydanticCustomError("evaluator", "{message}", {"message": message})
        if twice := sorted(set(self.limit_percentiles) & set(self.constraints)):
            message = f"limit_percentiles: {', '.join(twice)} has a limit in constraints already"
            raise PydanticCustomError("limits", "{message}", {"message": message})
        if self.objectives == ["accuracy"] and not self._limited():
            message = "objectives: accuracy alone needs a limit on the cost that devices are; valid: limit_percentiles"
            raise PydanticCustomError("objectives", "{message}", {"message": message})
        if self.devices is None and self.cost not in self.evaluator.costs:
            message = f"devices: needs columns of the table, or evaluator.costs a column of {self.cost}"
            raise PydanticCustomError("devices", "{message}", {"message": message})
        if self.budget.trials < self.report_at[-1] and "trials" in self.budget.model_fields_set:
            message = f"budget.trials: {self.budget.trials} is less than the {self.report_at[-1]} of report_at"
            raise PydanticCustomError("budget", "{message}", {"message": message})
        return self

    @property
    def table(self) -> TableEvaluatorOptions:
        """The evaluator's section."""
        return cast("TableEvaluatorOptions", self.evaluator)

    @property
    def cost(self) -> Cost:
        """The metric of the devices' columns: the first cost among the objectives, else among the limits."""
        return next(name for name in (*self.objectives, *self._limited()) if name != "accuracy")

    def _limited(self) -> tuple[Cost, ...]:
        return (*self.limit_percentiles, *self.constraints)

    def strategy_of(self, number: int) -> Section:
        """The section of a strategy with all that decides its searches written out."""
        return self.strategies[number].resolved(trials=self.budget.trials, pick=self.final.pick)

    def metrics(self) -> tuple[str, ...]:
        """Objectives and limited metrics, each once."""
        return tuple(dict.fromkeys([*super().metrics(), *self.limit_percentiles]))

    def columns(self) -> tuple[str, ...]:
        """The columns of the devices."""
        return tuple(self.devices) if self.devices is not None else (self.table.costs[self.cost],)

    def table_of(self, device: str) -> TableEvaluatorOptions:
        """The evaluator's section with a device's column as the first cost."""
        return self.table.model_copy(update={"costs": {**self.table.costs, self.cost: device}})

    def labels(self) -> tuple[str, ...]:
        """Names of the strategies, with options where the same name occurs twice."""
        names = [strategy.name for strategy in self.strategies]
        return tuple(
            name if names.count(name) == 1 else _with_options(name, strategy)
            for name, strategy in zip(names, self.strategies, strict=True)
        )


def load_bench(path: Path, overrides: list[str]) -> BenchConfig:
    """Read a benchmark's config.

    Args:
        path: a YAML file.
        overrides: `key.path=value` texts; the value is read as YAML.

    Raises:
        ConfigError: the file is missing, no YAML, or wrong in a key, a type or a value.
    """
    values, problems = read_values(path, overrides), []
    for key, instead in (("strategy", "strategies: [random, evolution]"), ("seed", "seeds: 20")):
        if values.pop(key, None) is not None:
            problems.append(f"{key}: a benchmark has several; valid: {instead}")
    strategies = values.pop("strategies", None)
    try:
        values["strategies"] = _read_strategies(strategies)
        reported = []
    except WrongSection as wrong:
        problems += wrong.sentences
        reported = ["strategies"]
    config = parse_as(BenchConfig, values, str(path), problems, reported)
    if len(set(config.labels())) != len(config.labels()):
        raise ConfigError(str(path), ["strategies: lists one twice with the same options"])
    return _with_budget(config)


def _read_strategies(found: Any) -> list[Section]:
    """Sections of strategies, each of which is given as a name or as a mapping."""
    valid = f"valid names: {', '.join(STRATEGIES)}"
    if not isinstance(found, list) or not found:
        what = "is required" if found is None else f"needs a list of names or mappings, found {shown(found)}"
        raise WrongSection([f"strategies: {what}; {valid}"])
    sections, sentences = [], []
    for index, each in enumerate(found):
        try:
            named = {"name": each} if isinstance(each, str) else each
            sections.append(read_section("strategy", named, place=f"strategies.{index}"))
        except WrongSection as wrong:
            sentences += wrong.sentences
    if sentences:
        raise WrongSection(sentences)
    return sections


def _with_budget(config: BenchConfig) -> BenchConfig:
    """The config with as many trials as are reported and no limit of time, unless it says something else."""
    given = config.budget.model_fields_set
    changes: dict[str, Any] = {}
    if "trials" not in given:
        changes["trials"] = config.report_at[-1]
    if "minutes" not in given:
        changes["minutes"] = _NO_LIMIT_MINUTES
    return config.model_copy(update={"budget": config.budget.model_copy(update=changes)})


def _with_options(name: str, strategy: Section) -> str:
    given = {**strategy.model_dump(include=strategy.model_fields_set - {"name"}), **(strategy.model_extra or {})}
    return f"{name}({', '.join(f'{key}={value}' for key, value in sorted(given.items()))})" if given else name
