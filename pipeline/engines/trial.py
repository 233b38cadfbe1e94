"""The life of one candidate: build → quick ONNX graph → costs → limits → training. Runs in a worker process.

On an INT8 device costs are those of the quantised graph, and the accuracy is the quantised network's, calibrated
on training images after the training.
"""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from export.exporter.graph_builder import quick_graph
from export.quantization.quantize import quantize_int8
from latency_models.counters.unavailable import Unavailable
from latency_models.model_profile import energy_of
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.latency_source import LatencySource
from pipeline.costs.precision import INT8, calibration_images, validation_accuracy
from pipeline.costs.target import Target
from pipeline.data import load_data
from pipeline.engines.quiet import Quiet
from pipeline.errors import EvaluatorError, ReadingError
from pipeline.evaluators.learning_curve import CurveMonitor, LearningCurve, curves_of
from pipeline.evaluators.stopping_rules import stopping_of, verdict
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
    from pipeline.data import DataSet
    from pipeline.evaluators.base import CandidateEvaluator
    from pipeline.spaces.base import Value
    from pipeline.trials.result import Progress


class TrialRunner:
    """Runs trials, one after the other.

    Args:
        config: of the run.
        history: trials to begin with, as `learn` takes them.
        data: the data set, where it was loaded already.
        quiet: the room that trainings and measurements of several runners share; each has its own by default.

    Raises:
        HwnasError: the data, the space or the device can't be used.
    """

    def __init__(
        self,
        config: RunConfig,
        history: Iterable[Mapping[str, Any]] = (),
        *,
        data: DataSet | None = None,
        quiet: Quiet | None = None,
    ) -> None:
        self.config = config
        self._quiet = quiet if quiet is not None else Quiet()
        self.data = data if data is not None else load_data(config.data)
        self.space = make_space(config, self.data)
        self.target = Target.of(self.space, LatencyMeter(device_of(config.device)))
        self.latencies = LatencySource(config, self.data, self.space, self.target.meter, self._quiet.alone)
        self.learn(history)
        self.evaluator: CandidateEvaluator = make(
            "evaluator", config.evaluator.name, EVALUATORS, config.evaluator, self.data, config.train
        )
        self._stopping = stopping_of(config.evaluator, self.evaluator)
        self._compared = [n for n in config.objectives if n != "accuracy" and self._stopping.aim == "front"]
        self._peers: list[LearningCurve] = []

    def learn(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Learn from trials whose results were given to the strategy, as `pipeline.costs.latency_source.history_of`."""
        self.latencies.learn(history)

    def add_peers(self, peers: Iterable[Mapping[str, Any]]) -> None:
        """Add trials that later ones are compared with, as `pipeline.evaluators.learning_curve.peers_of` gives them."""
        self._peers += curves_of(peers, self._compared)

    def run(self, architecture: Mapping[str, Value], progress: Progress | None = None) -> TrialResult:
        """Run the trial of one architecture; one that breaks a limit isn't trained.

        Raises:
            Exception: whatever building or training the candidate raises; it is the caller's to record.
        """
        seed = trial_seed(self.config.seed, architecture_id(architecture))
        torch.manual_seed(seed)
        model = self.space.build(architecture)
        content, objectives, details = self.cost(architecture, model)
        details["seed"] = seed
        if broken := self._broken(objectives):
            return TrialResult("infeasible", objectives, {**details, "excess": broken})
        accuracy = self._accuracy(model, objectives, progress, details)
        if self.target.device.precision == INT8:
            with self._quiet.working():
                details["accuracy_fp32"], accuracy = accuracy, self._quantized_accuracy(model)
        objectives = {"accuracy": accuracy, **objectives}
        latency = self.latencies.after_training(objectives, details["latency"], content)
        objectives["latency_ms"], details["latency"] = latency
        if broken := self._broken(objectives):  # a prediction kept the limit, the measurement doesn't
            return TrialResult("infeasible", objectives, {**details, "excess": broken})
        return TrialResult("ok", objectives, details)

    def _accuracy(
        self, model: nn.Module, costs: Mapping[str, float], progress: Progress | None, details: dict[str, Any]
    ) -> float:
        """The evaluator's accuracy; its learning curve and own details are added to `details`."""
        own = tuple(costs[name] for name in self._compared)

        def decide(accuracies: tuple[float, ...], epochs: int) -> str | None:
            return verdict(self._stopping, LearningCurve(accuracies, own), self._peers, epochs)

        monitor = CurveMonitor(decide, progress)
        # Nobody listens, nobody decides: then nothing has to be evaluated for it.
        listens = progress is not None or self._stopping.rule != "none"
        with self._quiet.working():
            accuracy = checked_accuracy(self.evaluator.evaluate(model, monitor if listens else None))
        details |= {**self.evaluator.details(), **monitor.details()}
        return accuracy

    def _broken(self, objectives: Mapping[str, float]) -> dict[str, float]:
        return excess(objectives, self.config.limits)

    def _quantized_accuracy(self, model: nn.Module) -> float:
        graph, _ = quick_graph(model.cpu(), self.data.input_shape, forms=self.target.forms)
        threads = torch.get_num_threads()
        quantized = quantize_int8(graph, self._calibration, threads=threads).SerializeToString()
        return validation_accuracy(quantized, self.data, threads)

    @cached_property
    def _calibration(self) -> npt.NDArray[np.float32]:
        return calibration_images(self.data)

    def cost(
        self, architecture: Mapping[str, Value], model: nn.Module
    ) -> tuple[bytes, dict[str, float], dict[str, Any]]:
        """All that a network costs: counted metrics first, then, where they break no limit, its latency and energy.

        Returns:
            The graph as the device runs it, the costs, and the trial's details on them.

        Raises:
            ReadingError: the device gave no energy this time.
            CostError: an objective or a limited metric can't be counted.
        """
        graph = self.target.graph_of(model, self.data.input_shape)
        costs = self.target.counted(graph, self.config.metrics())
        details: dict[str, Any] = {"graph": graph.built_by}
        if not self._broken(costs):
            costs["latency_ms"], details["latency"] = self.latencies.before_training(architecture, costs, graph.content)
            if "energy_mj" in self.config.metrics():
                with self._quiet.alone():
                    energy = energy_of(graph.content, self.target.device)
                if isinstance(energy, Unavailable):
                    raise ReadingError(energy.reason)
                costs["energy_mj"] = energy
        return graph.content, costs, details


def checked_accuracy(value: object) -> float:
    """The answer of an evaluator as a plain number.

    Raises:
        EvaluatorError: it is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise EvaluatorError(f"the evaluator returned {value!r}, not an accuracy from 0 to 1")
    return float(value)
