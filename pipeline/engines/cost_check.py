"""A worker's look at candidates before their trials: which of them break a limit by what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.metrics import COUNTED
from pipeline.costs.target import Target
from pipeline.data import load_data
from pipeline.spaces.base import architecture_id, trial_seed
from pipeline.spaces.make import make_space
from pipeline.trials.objectives import excess
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.engines.quiet import Quiet
    from pipeline.spaces.base import Value


class CostCheck:
    """Builds candidates and counts what they cost; no clock is asked, so the answer is always the same.

    Args:
        config: of the run.
        data: the data set, where it was loaded already.
        quiet: the room shared with trainings and measurements.

    Raises:
        HwnasError: the data, the space or the device can't be used.
    """

    def __init__(self, config: RunConfig, data: DataSet | None, quiet: Quiet) -> None:
        self._config, self._quiet = config, quiet
        self._data = data if data is not None else load_data(config.data)
        self._space = make_space(config, self._data)
        self._target = Target.of(self._space, LatencyMeter(device_of(config.device)))

    def run(self, architecture: Mapping[str, Value]) -> TrialResult | None:
        """The result of a candidate that breaks a limit; None where its trial has to show.

        Raises:
            Exception: whatever building the candidate raises.
        """
        seed = trial_seed(self._config.seed, architecture_id(architecture))
        with self._quiet.working():
            torch.manual_seed(seed)
            graph = self._target.graph_of(self._space.build(architecture), self._data.input_shape)
            costs = self._target.counted(graph, self._config.metrics())
        details: dict[str, Any] = {"graph": graph.built_by, "seed": seed}
        over = excess(costs, self._config.limits)
        return TrialResult("infeasible", costs, {**details, "excess": over}) if over else None


def counts_break_limits(config: RunConfig) -> bool:
    """Whether a candidate may break a limit by what is counted."""
    return any(name in COUNTED for name in config.limits)
