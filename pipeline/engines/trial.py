"""One candidate's life: build → quick ONNX graph → cost → limits → train. Runs in a worker process.

On an INT8 device costs are those of the quantised graph, and the accuracy is the quantised network's, calibrated
on training images after the training.
"""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import torch

from export.exporter.graph_builder import cost_graph, quick_graph
from export.quantization.quantize import quantize_int8
from latency_models.model_profile import energy_of
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.activation_forms import forms_of
from pipeline.costs.costs import available, counted_as_run
from pipeline.costs.latency_source import LatencySource
from pipeline.costs.precision import INT8, calibration, quantized_accuracy, quantizer_for
from pipeline.data import load_data
from pipeline.errors import EvaluatorError
from pipeline.evaluators.learning_curve import CurveMonitor, curves_of
from pipeline.evaluators.stopping import stopping_of
from pipeline.evaluators.stopping_rules import LearningCurve, verdict
from pipeline.registry import make
from pipeline.spaces.base import architecture_id, trial_seed
from pipeline.spaces.make import make_space
from pipeline.tables import EVALUATORS
from pipeline.trials.objectives import excess
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from pipeline.config.run import RunConfig
    from pipeline.evaluators.base import CandidateEvaluator
    from pipeline.spaces.base import Value
    from pipeline.trials.result import Progress


class TrialRunner:
    """Judges candidates, one after the other; holds what they share.

    `history` are the search's finished trials: `architecture`, `status`, `objectives` and `details` of each.

    Raises:
        HwnasError: the data, the space or the device can't be used.
    """

    def __init__(self, config: RunConfig, history: Iterable[Mapping[str, Any]] = ()) -> None:
        self.config = config
        self.data = load_data(config.data)
        self.space = make_space(config, self.data)
        self.device = device_of(config.device)
        self.prepare = quantizer_for(self.device.precision)
        self.meter = LatencyMeter(self.device)
        self.forms = forms_of(self.space, self.device, self.meter)
        self.latencies = LatencySource(config, self.data, self.space, self.meter)
        self.latencies.restore(history)
        self.evaluator: CandidateEvaluator = make(
            "evaluator", cast("Any", config.evaluator).name, EVALUATORS, config.evaluator, self.data, config.train
        )
        self._stopping = stopping_of(config.evaluator, self.evaluator)
        self._compared = [n for n in config.objectives if n != "accuracy" and self._stopping.aim == "front"]
        self._peers: list[LearningCurve] = []

    def add_peers(self, peers: Iterable[Mapping[str, Any]]) -> None:
        """Take in more trials that later ones are compared with: see `pipeline.evaluators.learning_curve.peers_of`."""
        self._peers += curves_of(peers, self._compared)

    def run(self, architecture: Mapping[str, Value], progress: Progress | None = None) -> TrialResult:
        """Judge one architecture; limits that are known to be broken spare it the training.

        Whatever a candidate raises is the caller's to record.
        """
        seed = trial_seed(self.config.seed, architecture_id(architecture))
        torch.manual_seed(seed)
        model = self.space.build(architecture)
        content, objectives, details = self.cost(architecture, model)
        details["seed"] = seed
        if broken := self._broken(objectives):
            return TrialResult("infeasible", objectives, {**details, "excess": broken})
        accuracy = self._accuracy(model, objectives, progress, details)
        if self.device.precision == INT8:
            details["accuracy_fp32"], accuracy = accuracy, self._quantized_accuracy(model)
        objectives = {"accuracy": accuracy, **objectives}
        objectives["latency_ms"], details["latency"] = self.latencies.after_training(
            architecture, objectives, details["latency"], content
        )
        if broken := self._broken(objectives):  # a prediction kept the limit, the measurement doesn't
            return TrialResult("infeasible", objectives, {**details, "excess": broken})
        return TrialResult("ok", objectives, details)

    def _accuracy(
        self, model: nn.Module, costs: Mapping[str, float], progress: Progress | None, details: dict[str, Any]
    ) -> float:
        """The evaluator's; how it came about is added to the details."""
        own = tuple(costs[name] for name in self._compared)

        def decide(accuracies: tuple[float, ...], epochs: int) -> str | None:
            return verdict(self._stopping, LearningCurve(accuracies, own), self._peers, epochs)

        monitor = CurveMonitor(decide, progress)
        # Nobody listens, nobody decides: then nothing has to be evaluated for it.
        listens = progress is not None or self._stopping.rule != "none"
        accuracy = checked_accuracy(self.evaluator.evaluate(model, monitor if listens else None))
        details |= {**self.evaluator.details(), **monitor.details()}
        return accuracy

    def _broken(self, objectives: Mapping[str, float]) -> dict[str, float]:
        return excess(objectives, cast("Mapping[str, float]", self.config.constraints))

    def _quantized_accuracy(self, model: nn.Module) -> float:
        graph, _ = quick_graph(model.cpu(), self.data.input_shape, forms=self.forms)
        threads = torch.get_num_threads()
        quantized = quantize_int8(graph, self._calibration, threads=threads).SerializeToString()
        return quantized_accuracy(quantized, self.data, threads)

    @cached_property
    def _calibration(self) -> npt.NDArray[np.float32]:
        return calibration(self.data)

    def cost(
        self, architecture: Mapping[str, Value], model: nn.Module
    ) -> tuple[bytes, dict[str, float], dict[str, Any]]:
        """All that a network costs: first what is counted, then, where no limit is broken yet, its latency.

        Returns:
            The graph as the device runs it, the costs, and what is to be told of them.
        """
        graph, built_by = cost_graph(model, self.data.input_shape, forms=self.forms)
        source = graph.SerializeToString()
        content = self.prepare(source)
        objectives = counted_as_run(source, content, self.device)
        details: dict[str, Any] = {"graph": built_by}
        if not self._broken(objectives):
            ms, details["latency"] = self.latencies.before_training(architecture, objectives, content)
            objectives["latency_ms"] = ms
            if "energy_mj" in self.config.metrics():
                objectives["energy_mj"] = available(energy_of(content, self.device))
        return content, objectives, details


def checked_accuracy(value: object) -> float:
    """An evaluator's answer as a plain number.

    Raises:
        EvaluatorError: it is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise EvaluatorError(f"the evaluator returned {value!r}, not an accuracy from 0 to 1")
    return float(value)
