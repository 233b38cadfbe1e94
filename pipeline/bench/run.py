"""One search of a benchmark: a strategy, a device and a seed, through the engine and a journal in memory."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.bench.curves import Steps, Truth
from pipeline.engines.direct import DirectEngine
from pipeline.errors import ConfigError, config_errors_at
from pipeline.evaluators.lookup import Lookup, PublishedTable, TableError, read_table
from pipeline.evaluators.published_scores import PublishedScores
from pipeline.registry import load, make
from pipeline.spaces.base import ArchitectureError
from pipeline.spaces.light_space import LightModelSpace
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.tables import SPACES, STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.bench.config import BenchConfig
    from pipeline.config.base import Section
    from pipeline.config.run import RunConfig
    from pipeline.evaluators.published_scores import SelectedScores
    from pipeline.nni_types import ExecutableModelSpace
    from pipeline.spaces.base import SearchSpace

_IMAGES, _CLASSES = (3, 32, 32), 10  # a space wants to know; nothing is built


@dataclass(frozen=True)
class Task:
    """One search to run.

    Attributes:
        strategy: its index in the config.
        device: the column that is the first cost.
        seed: of the search.
    """

    strategy: int
    device: str
    seed: int


@dataclass(frozen=True)
class Result:
    """Outcome of one search.

    Attributes:
        trials: number of trials that counted; less than the budget where the strategy or the space was exhausted.
        seconds_per_trial: the strategy's own time, without engine and journal.
        hypervolume: share of the table's hypervolume over the number of trials.
        regret: the table's best accuracy minus the best one so far, over the number of trials.
        proxy_seconds: published time of the zero-cost scores of all candidates that the strategy looked at; None
            without scores, or where the table has no times.
    """

    trials: int
    seconds_per_trial: float
    hypervolume: Steps
    regret: Steps
    proxy_seconds: float | None = None


class Workbench:
    """The table, the space and each device's `Truth`, which the searches of one process share.

    Args:
        config: of the benchmark.
        source: the config's name in errors.

    Raises:
        HwnasError: the table, the space or a strategy can't be used.
    """

    def __init__(self, config: BenchConfig, source: str) -> None:
        self.config, self._source = config, source
        # NNI logs every trial; errors are raised anyway.
        logging.getLogger("nni").setLevel(logging.CRITICAL)
        self.table = self._read()
        with config_errors_at(source, "space"):
            self.space: SearchSpace = make("space", config.space.name, SPACES, config.space, _IMAGES, _CLASSES)
        with self._table_errors():
            self.scores = PublishedScores(self.table, self.space, config.table)
        self.truth = cache(self._truth)
        self.limits = cache(self._limits)

    def check(self) -> None:
        """Check everything that can be wrong, before the first search.

        Raises:
            HwnasError: a strategy can't be imported, or a device's column can't be a cost.
        """
        for index, strategy in enumerate(self.config.strategies):
            with config_errors_at(self._source, f"strategies.{index}"):
                load("strategy", strategy.name, STRATEGIES)
                self._proxies(strategy)
        for device in self.config.columns():
            self.truth(device)

    def run(self, task: Task) -> Result:
        """Run one search until its budget ends."""
        config = self._config(task)
        limits = self.limits(task.device)
        lookup = self._lookup(task.device, limits)
        journal = Journal.in_memory(config.objectives)
        budget = Budget(config.budget, [])
        proxies = self._proxies(config.strategy)
        problem = Problem(self.space, task.seed, tuple(config.objectives), limits, lookup.known, proxies)
        began = time.perf_counter()
        strategy = strategy_of(config.strategy, problem)
        engine = DirectEngine(config, self.space, journal, budget, Reporter(), lookup.run)
        strategy(self._model_space, engine)
        seconds = time.perf_counter() - began - engine.answering_s
        shares, regrets = self.truth(task.device).curves(journal.trials())
        journal.close()
        proxy_seconds = proxies.seconds if proxies else None
        return Result(budget.trials, seconds / max(1, budget.trials), shares, regrets, proxy_seconds)

    def _proxies(self, strategy: Section) -> SelectedScores | None:
        """The zero-cost scores that a strategy's section names."""
        names = getattr(strategy, "proxies", [])
        return self.scores.of(names) if names else None

    def _config(self, task: Task) -> RunConfig:
        strategy = self.config.strategy_of(task.strategy)
        changes = {"strategy": strategy, "seed": task.seed, "constraints": self.limits(task.device)}
        return self.config.model_copy(update={**changes, "evaluator": self.config.table_of(task.device)})

    @cached_property
    def _model_space(self) -> ExecutableModelSpace:
        return LightModelSpace.from_model(self.space.model_space())

    def _read(self) -> PublishedTable:
        options = self.config.table
        columns = {column: f"costs.{metric}" for metric, column in options.costs.items() if metric != self.config.cost}
        devices = dict.fromkeys(self.config.columns(), "devices")
        with self._table_errors():
            path = Path(options.path).expanduser()
            return read_table(path, options.key, {options.accuracy: "accuracy", **columns, **devices})

    def _lookup(self, device: str, limits: dict[str, float]) -> Lookup:
        options = self.config.table_of(device)
        with self._table_errors():
            return Lookup(self.table, self.space, options, self._costs, limits)

    @property
    def _costs(self) -> list[str]:
        return [name for name in self.config.metrics() if name != "accuracy"]

    def _limits(self, device: str) -> dict[str, float]:
        """The config's own limits, and those that are percentiles of this device's costs."""
        _, costs = self._lookup(device, {}).valid()
        shares = {str(name): share for name, share in self.config.limit_percentiles.items()}
        percentiles = {name: float(np.percentile(costs[:, self._costs.index(name)], p)) for name, p in shares.items()}
        return {**self.config.limits, **percentiles}

    def _truth(self, device: str) -> Truth:
        limits = self.limits(device)
        truth = Truth.of(self._lookup(device, limits), self.config.objectives, limits)
        if truth.reachable <= 0 and truth.best_accuracy <= 0:
            raise ConfigError(self._source, [f"constraints: none of the table's rows keeps them on {device!r}"])
        if truth.hypervolume <= 0:
            raise ConfigError(self._source, [f"devices: all rows of {device!r} are alike: there is no front to find"])
        return truth

    @contextmanager
    def _table_errors(self) -> Iterator[None]:
        """Turn errors in the table into config errors at the key that they come from."""
        try:
            yield
        except TableError as error:
            of_device = error.option in ("devices", f"costs.{self.config.cost}")
            key = "devices" if of_device else f"evaluator.{error.option}"
            raise ConfigError(self._source, [f"{key}: {error.problem}"]) from error
        except ArchitectureError as error:
            raise ConfigError(self._source, [f"space: {error}"]) from error
