"""Latencies of candidates: predicted where that decides as well, measured where it matters.

A candidate is measured while the predictor knows too little, where its predicted interval straddles the limit, and,
once it is trained, where it may join the front. Each measurement improves the predictor, once its trial is told: so it
knows the same in whichever process it is asked.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.costs.latency_predictor import predictor_for, relative_noise
from pipeline.costs.predictor_file import CostModelError, Scope, read
from pipeline.trials.objectives import as_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from latency_models.predictors.prediction import Prediction
    from latency_models.timing.meter import Latency, LatencyMeter
    from pipeline.config.run import RunConfig
    from pipeline.costs.latency_predictor import LatencyPredictor
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace, Value
    from pipeline.trials.journal import TrialRecord

    Costs = dict[str, float]
    Details = dict[str, Any]

SEARCH_MEASURE_S = 0.06
"""For a candidate's latency: enough for about ±1 % on a quiet machine; finalists are measured again at length."""
UNSOUGHT_MEASURE_S = 0.02
"""Where latency is neither an objective nor limited, and only told: about ±1.2 %. All trainings wait meanwhile."""


class LatencySource:
    """Gives the latencies of one search's candidates, one after the other.

    Order of calls: for each candidate `learn` with the trials that were given to the strategy since the last one, in
    that order, then `before_training`, then, where it was trained, `after_training`. Only `learn` teaches it.

    Args:
        config: of the run.
        data: its data set.
        space: its space.
        meter: of its device.
        alone: has a measurement wait until no other process of the search computes, and gives whether none does; by
            default none waits.

    Raises:
        CostModelError: the config names a file that isn't this space's and device's.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataSet,
        space: SearchSpace,
        meter: LatencyMeter,
        alone: Callable[[], AbstractContextManager[bool]] | None = None,
    ) -> None:
        self._config, self._meter = config, meter
        self._alone = alone if alone is not None else lambda: nullcontext(enter_result=True)
        self._limit = config.limits.get("latency_ms")
        self._measure_s = SEARCH_MEASURE_S if "latency_ms" in config.metrics() else UNSOUGHT_MEASURE_S
        self._model = None if config.cost_model == "measure" else _model_of(config, data, space, meter)
        self._trained: list[Costs] = []

    def learn(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Learn from finished trials: their `architecture`, `status`, `objectives` and `details`."""
        for trial in history:
            latency = trial["details"].get("latency", {})
            if self._model is not None and latency.get("source") == "measured":
                objectives = trial["objectives"]
                noise = relative_noise(latency["low_ms"], objectives["latency_ms"], latency["high_ms"])
                self._model.observe(trial["architecture"], objectives, objectives["latency_ms"], noise)
            if trial["status"] == "ok":
                self._trained.append(dict(trial["objectives"]))

    def prediction(self, architecture: Mapping[str, Value], counted: Mapping[str, float]) -> tuple[Prediction, str]:
        """The predicted latency, and the predictor's description.

        Raises:
            CostModelError: it knows too little, or the config wants no predictions.
        """
        predicted = None if self._model is None else self._model.predict(architecture, counted)
        if self._model is None or predicted is None:
            nets = 0 if self._model is None else self._model.nets
            raise CostModelError(f"no cost model yet: {nets} measured networks are too few; see `hwnas calibrate`")
        return predicted, self._model.description

    def before_training(
        self, architecture: Mapping[str, Value], counted: Costs, content: bytes
    ) -> tuple[float, Details]:
        """The latency in ms, and the trial's details on it.

        Args:
            architecture: of the candidate.
            counted: its metrics that need no clock.
            content: its graph as the device runs it.
        """
        began = time.perf_counter()
        predicted = None if self._model is None else self._model.predict(architecture, counted)
        if predicted is None or self._straddles_limit(predicted):
            return self._measured(content, predicted, began)
        details = {"source": "predicted", **_predicted_details(predicted), "cost_s": time.perf_counter() - began}
        return predicted.latency_ms, details

    def after_training(self, objectives: Costs, details: Details, content: bytes) -> tuple[float, Details]:
        """Like `before_training`, once the accuracy is known: a candidate that may join the front is measured."""
        if details["source"] == "predicted" and self._may_join(objectives, details["low_ms"]):
            began = time.perf_counter() - details["cost_s"]
            prediction = details["predicted"]
            ms, details = self._measured(content, None, began)
            details["predicted"] = prediction
            return ms, details
        return objectives["latency_ms"], details

    def _measured(self, content: bytes, predicted: Prediction | None, began: float) -> tuple[float, Details]:
        with self._alone() as alone:
            latency = self._meter.measure(content, budget_s=self._measure_s)
        details = {"source": "measured", **_measured_details(latency), "cost_s": time.perf_counter() - began}
        if not alone:
            details["warnings"].append("measured beside a training of another candidate")
        if predicted is not None:
            details["predicted"] = _predicted_details(predicted)["predicted"]
        return latency.latency_ms, details

    def _straddles_limit(self, predicted: Prediction) -> bool:
        return self._limit is not None and predicted.low_ms <= self._limit < predicted.high_ms

    def _may_join(self, objectives: Costs, low_ms: float) -> bool:
        """Whether no trained candidate would dominate or equal it, were the latency at its lower bound."""
        names = self._config.objectives
        if "latency_ms" not in names or not self._trained:
            return "latency_ms" in names
        best = as_losses([{**objectives, "latency_ms": low_ms}], names)
        return not bool(np.any(np.all(as_losses(self._trained, names) <= best, axis=1)))


def history_of(records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """The trials of a journal as `LatencySource.learn` takes them."""
    return [
        {
            "architecture": record.architecture,
            "status": record.status,
            "objectives": record.objectives,
            "details": {"latency": record.details.get("latency", {})},
        }
        for record in records
    ]


def _model_of(config: RunConfig, data: DataSet, space: SearchSpace, meter: LatencyMeter) -> LatencyPredictor:
    """The predictor of the named file; else the one calibrated for this space and device; else an empty one."""
    scope = Scope.of(config, data, meter)
    if config.cost_model.endswith(".json"):
        return read(Path(config.cost_model), space, scope)
    try:
        return read(scope.file, space, scope)
    except CostModelError:
        return predictor_for(space)


def _measured_details(latency: Latency) -> Details:
    return {
        "low_ms": latency.low_ms,
        "high_ms": latency.high_ms,
        "p50_ms": latency.p50_ms,
        "p99_ms": latency.p99_ms,
        "reference": latency.reference,
        "warnings": list(latency.warnings),
    }


def _predicted_details(predicted: Prediction) -> Details:
    shown = {"latency_ms": predicted.latency_ms, "low_ms": predicted.low_ms, "high_ms": predicted.high_ms}
    return {"low_ms": predicted.low_ms, "high_ms": predicted.high_ms, "predicted": shown}
