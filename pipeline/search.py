"""A search: space, strategy and engine, as NNI objects, until the budget ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latency_models.counters.energy import require_energy
from pipeline.config.device import device_of
from pipeline.config.evaluator import SupernetOptions
from pipeline.costs.known_costs import known_costs
from pipeline.costs.precision import INT8
from pipeline.costs.predictor_file import check_cost_model
from pipeline.data import load_data
from pipeline.errors import ConfigError, EvaluatorError, config_errors_at
from pipeline.evaluators.stopping_rules import stopping_of
from pipeline.evaluators.supernet.checkpoint import load_into
from pipeline.evaluators.supernet.prepare import train_supernet
from pipeline.evaluators.supernet.shared_weights import SharedWeights
from pipeline.evaluators.zero_cost.candidates import check_proxies, proxies_of
from pipeline.registry import load, make
from pipeline.spaces.light_space import LightModelSpace
from pipeline.spaces.make import make_space
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.tables import ENGINES, EVALUATORS, STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.winner.pick import check_pick

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import Journal
    from pipeline.trials.reporter import Reporter


def load_inputs(config: RunConfig, source: str) -> tuple[DataSet, SearchSpace]:
    """Load a search's data and space, and check all that can be wrong before the first trial.

    Args:
        config: of a run, or of one that is to begin.
        source: the place that errors name.

    Raises:
        HwnasError: the data, the space, the device, an objective or a third party's code can't be used.
    """
    with config_errors_at(source, "device"):
        resolved = device_of(config.device)
    if "energy_mj" in config.metrics():
        where = "objectives" if "energy_mj" in config.objectives else "constraints"
        with config_errors_at(source, where, "; valid: accuracy, latency_ms, peak_memory_mb, size_mb, params, macs"):
            require_energy(resolved)
    with config_errors_at(source, "final.pick"):
        check_pick(config.final.pick)
    load("strategy", config.strategy.name, STRATEGIES)
    load("engine", config.engine.name, ENGINES)
    with config_errors_at(source, "strategy.proxies"):
        check_proxies(config)
    evaluator = load("evaluator", config.evaluator.name, EVALUATORS)
    try:
        stopping_of(config.evaluator, evaluator)
    except EvaluatorError as error:
        raise ConfigError(source, [str(error)]) from error
    if not getattr(evaluator, "builds", True):
        problem = "looks up what is published: there is nothing to train, measure or export; `hwnas bench` compares"
        raise ConfigError(source, [f"evaluator: {config.evaluator.name} {problem} strategies on it"])
    if resolved.precision == INT8 and not getattr(evaluator, "trains", True):
        problem = "knows accuracies without training, so not those of quantised networks; valid: one that trains"
        raise ConfigError(source, [f"evaluator: {config.evaluator.name} {problem}, or device.precision fp32"])
    return load_data_and_space(config, source)


def load_data_and_space(config: RunConfig, source: str) -> tuple[DataSet, SearchSpace]:
    """Load a config's data and space alone.

    Args:
        config: of a run, or of one that is to begin.
        source: the place that errors name.

    Raises:
        HwnasError: the data or the space can't be used.
    """
    with config_errors_at(source, "data"):
        data = load_data(config.data)
    with config_errors_at(source, "space"):
        space = make_space(config, data)
    if not space.buildable:
        problem = "has names of networks only, which can't be built; `hwnas bench` searches it"
        raise ConfigError(source, [f"space: {config.space.name} {problem}"])
    return data, space


def check_costs(config: RunConfig, data: DataSet, space: SearchSpace, source: str) -> None:
    """Check that a cost model's file that a config names is of its space and device.

    Raises:
        ConfigError: it isn't, or there is none.
    """
    if config.cost_model.endswith(".json"):
        with config_errors_at(source, "cost_model"):
            check_cost_model(config, data, space)


def check_weights(config: RunConfig, space: SearchSpace, source: str) -> None:
    """Check that shared weights that a config names are of its space.

    Raises:
        ConfigError: they aren't, or there are none.
    """
    section = config.evaluator
    if isinstance(section, SupernetOptions) and section.weights is not None:
        path = Path(section.weights)
        if not path.is_file():
            raise ConfigError(source, [f"evaluator.weights: there is no file {path}"])
        with config_errors_at(source, "evaluator.weights"), torch.random.fork_rng(devices=[]):
            load_into(path, SharedWeights.of(space))


def run_search(run: RunDirectory, journal: Journal, data: DataSet, space: SearchSpace, reporter: Reporter) -> str:
    """Search until the budget ends; the journal gets every result.

    Returns:
        The reason why the search ended, in words.
    """
    config = run.config
    records = journal.trials()
    budget = Budget(config.budget, records)
    reporter.search_started(config, budget, records)
    known = known_costs(run, data, space, begun=bool(records))
    proxies = proxies_of(config, data, space, reporter, run.scores)
    if isinstance(config.evaluator, SupernetOptions):
        train_supernet(run, data, space, reporter)
    problem = Problem(space, config.seed, tuple(config.objectives), config.limits, known, proxies)
    strategy = strategy_of(config.strategy, problem)
    engine = make("engine", config.engine.name, ENGINES, config, space, journal, budget, reporter, run.log)
    try:
        if budget.exhausted() is None:
            strategy(LightModelSpace.from_model(space.model_space()), engine)
            engine.finish()
    finally:
        engine.shutdown()
    journal.check_present()
    reason = budget.exhausted() or "the strategy has no more candidates"
    reporter.search_ended(reason)
    return reason
