"""Space + strategy + engine, as NNI objects, until the budget ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from export.errors import UnknownActivationError
from latency_models.device import resolve_device
from pipeline.budget import Budget
from pipeline.data import load_data
from pipeline.engines.table import ENGINES
from pipeline.errors import ConfigError, UnavailableObjectiveError
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.registry import load
from pipeline.strategies.table import STRATEGIES
from pipeline.trial import make_space

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.console import Reporter
    from pipeline.data import DataSet
    from pipeline.journal import Journal
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace


def prepare(config: RunConfig) -> tuple[DataSet, SearchSpace]:
    """Everything that can be wrong before the first trial is found here.

    Raises:
        HwnasError: data, space, device or an objective can't be had.
        CostError: the device is unknown or not available.
    """
    device = config.device
    resolve_device(device.name, device.threads, device.batch_size, device.precision)
    check_objectives(config)
    data = load_data(config.data)
    try:
        space = make_space(config, data)
    except UnknownActivationError as error:
        raise ConfigError("the config", [f"space.activations: {error}"]) from error
    return data, space


def check_objectives(config: RunConfig) -> None:
    """Every objective and limit must be one that the device gives.

    Raises:
        UnavailableObjectiveError: names the first that it doesn't.
    """
    if "energy_mj" in config.metrics():
        where = "objectives" if "energy_mj" in config.objectives else "constraints"
        raise UnavailableObjectiveError(
            f"{where}: device {config.device.name!r} can't give energy_mj: its runtime has no energy counter;"
            " valid: accuracy, latency_ms, peak_memory_mb, size_mb, params, macs"
        )


def run_search(run: RunDirectory, journal: Journal, space: SearchSpace, reporter: Reporter) -> str:
    """Search until the budget ends; every result is in the journal.

    Returns:
        Why it ended.
    """
    config = run.config
    records = journal.trials()
    budget = Budget(config.budget, records)
    reporter.search_started(config, budget, records)
    strategy = load("strategy", _name(config.strategy), STRATEGIES)(config.strategy, space, config.seed)
    engine_factory = load("engine", _name(config.engine), ENGINES)
    engine = engine_factory(config, space, journal, budget, reporter, run.log)
    try:
        if budget.exhausted() is None:
            strategy(SimplifiedModelSpace.from_model(space.model_space()), engine)
    finally:
        engine.shutdown()
    reason = budget.exhausted() or "the strategy has no more candidates"
    reporter.search_ended(reason)
    return reason


def _name(section: Any) -> str:
    return cast("str", section.name)
