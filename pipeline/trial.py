"""One candidate's life: build → quick ONNX graph → cost → limits → train. Runs in a worker process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from export.graph_builder import quick_graph
from latency_models.device import resolve_device
from latency_models.profile import energy_of, static_costs
from latency_models.timing import LatencyMeter
from pipeline.costs import SEARCH_MEASURE_S, available, counted, interval
from pipeline.data import load_data
from pipeline.errors import EvaluatorError
from pipeline.evaluators.table import EVALUATORS
from pipeline.objectives import excess
from pipeline.registry import make
from pipeline.spaces.base import architecture_id
from pipeline.spaces.table import SPACES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pipeline.config import RunConfig
    from pipeline.data import DataSet
    from pipeline.evaluators.base import CandidateEvaluator, Progress
    from pipeline.spaces.base import SearchSpace, Value


@dataclass(frozen=True)
class TrialResult:
    """What a candidate turned out to be.

    Attributes:
        objectives: metric → value, as far as known; a candidate that breaks a limit has no accuracy.
        details: the latency's interval and warnings, the broken limits, the seed.
        error: why it failed.
    """

    status: Literal["ok", "infeasible", "failed"]
    objectives: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class TrialRunner:
    """Judges candidates, one after the other; holds what they share.

    Raises:
        HwnasError: the data, the space or the device can't be used.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.data = load_data(config.data)
        self.space = make_space(config, self.data)
        device = config.device
        self.device = resolve_device(device.name, device.threads, device.batch_size, device.precision)
        self.meter = LatencyMeter(self.device)
        self.evaluator: CandidateEvaluator = make(
            "evaluator", cast("Any", config.evaluator).name, EVALUATORS, config.evaluator, self.data, config.train
        )

    def run(self, architecture: Mapping[str, Value], progress: Progress | None = None) -> TrialResult:
        """Judge one architecture; limits that are known to be broken spare it the training.

        Whatever a candidate raises is the caller's to record.
        """
        seed = trial_seed(self.config.seed, architecture_id(architecture))
        torch.manual_seed(seed)
        model = self.space.build(architecture)
        objectives, details = self.cost(model)
        details["seed"] = seed
        broken = excess(objectives, cast("Mapping[str, float]", self.config.constraints))
        if broken:
            return TrialResult("infeasible", objectives, {**details, "excess": broken})
        accuracy = checked_accuracy(self.evaluator.evaluate(model, progress))
        return TrialResult("ok", {"accuracy": accuracy, **objectives}, details)

    def cost(self, model: nn.Module) -> tuple[dict[str, float], dict[str, Any]]:
        """All that a network costs: first what is counted, then, where no limit is broken yet, its latency."""
        graph, built_by = quick_graph(model, self.data.input_shape)
        content = graph.SerializeToString()
        objectives = counted(static_costs(content, self.device.batch_size))
        details: dict[str, Any] = {"graph": built_by}
        if not excess(objectives, cast("Mapping[str, float]", self.config.constraints)):
            latency = self.meter.measure(content, budget_s=SEARCH_MEASURE_S)
            objectives["latency_ms"] = latency.latency_ms
            details["latency"] = interval(latency)
            if "energy_mj" in self.config.metrics():
                objectives["energy_mj"] = available(energy_of(content, self.device))
        return objectives, details


def checked_accuracy(value: object) -> float:
    """An evaluator's answer as a plain number.

    Raises:
        EvaluatorError: it is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise EvaluatorError(f"the evaluator returned {value!r}, not an accuracy from 0 to 1")
    return float(value)


def make_space(config: RunConfig, data: DataSet) -> SearchSpace:
    """The search space that a config names, for its data."""
    name = cast("Any", config.space).name
    return cast("SearchSpace", make("space", name, SPACES, config.space, data.input_shape, len(data.classes)))


def trial_seed(run_seed: int, identity: str) -> int:
    """The training seed: a function of the run's seed and the architecture alone."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{identity}".encode()).digest()[:4], "big")
