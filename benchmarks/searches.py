"""Searches whose answers come at once: a strategy and an engine within this process, without a run directory.

`TABLE_SECTIONS` are the config's sections of a search in NAS-Bench-201's table, `table_lookup` answers its trials.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

from networks import NASBENCH201, nasbench201

from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.engines.direct import DirectEngine
from pipeline.evaluators.lookup import Lookup, read_table
from pipeline.nni_types import ExecutableModelSpace, ExecutionEngine
from pipeline.spaces.base import Architecture, SearchSpace, architecture_id
from pipeline.spaces.light_space import LightModelSpace
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import KnownCosts, Problem
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

_ACCURACY, _LATENCY = "cifar10_test_200", "gold_6226_ms"
TABLE_SECTIONS: dict[str, Any] = {
    "space": {"name": "nasbench201"},
    "evaluator": {
        "name": "table",
        "path": str(NASBENCH201),
        "key": "arch_str",
        "accuracy": _ACCURACY,
        "scale": 0.01,
        "costs": {"latency_ms": _LATENCY},
    },
}


def table_lookup(limits: dict[str, float]) -> Lookup:
    """Accuracies and latencies of all networks of NAS-Bench-201, under limits."""
    options: Any = config_of(1, **TABLE_SECTIONS).evaluator
    table = read_table(NASBENCH201, options.key, {_ACCURACY: "accuracy", _LATENCY: "costs.latency_ms"})
    return Lookup(table, nasbench201(), options, ["latency_ms"], limits)


def config_of(trials: int, **sections: Any) -> RunConfig:
    """A search's config; what a strategy's options take from the budget is worked out for so many trials."""
    given = {"data": {"name": "digits"}, "budget": {"trials": trials}, **sections}
    config = parse_config(given, "the benchmark's config")
    strategy = config.strategy.resolved(trials=trials, pick=config.final.pick)
    return config.model_copy(update={"strategy": strategy})


def direct_engine(
    config: RunConfig,
    space: SearchSpace,
    journal: Journal,
    judge: Callable[[Architecture], TrialResult],
    *,
    reporter: Reporter | None = None,
    kind: type[DirectEngine] = DirectEngine,
) -> DirectEngine:
    """An engine that asks a function for each trial's result, and keeps the config's budget."""
    return kind(config, space, journal, Budget(config.budget, journal.trials()), reporter or Reporter(), judge)


def strategy_on(
    config: RunConfig, space: SearchSpace, known: KnownCosts | None = None
) -> Callable[[ExecutionEngine], None]:
    """A config's strategy, ready to search the space on an engine until the budget ends."""
    problem = Problem(space, config.seed, tuple(config.objectives), config.limits, known)
    strategy = strategy_of(config.strategy, problem)
    model_space = LightModelSpace.from_model(space.model_space())
    return lambda engine: strategy(model_space, engine)


def in_a_fork(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, so that the peak of its memory is its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, arguments)


class Listening:
    """What an engine notes beside its work: `asked`, the ids that it was asked for, repeats and all."""

    _space: SearchSpace

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.asked: list[str] = []

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Note the models, then answer them as the engine does."""
        self.asked += [architecture_id(self._space.canonical(model.sample)) for model in models]
        super().submit_models(*models)  # type: ignore[misc]  # an engine follows in the order of bases


class ListeningEngine(Listening, DirectEngine):
    """A `DirectEngine` that listens."""
