"""How a candidate's latency is known: predicted where that decides as well, measured where it matters.

A candidate is measured while the cost model knows too little, where its predicted interval straddles the limit, and,
once it is trained, where it may join the front. Each measurement improves the model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.costs.costs import SEARCH_MEASURE_S, interval
from pipeline.costs.latency_predictor import cost_model_for, relative_noise
from pipeline.costs.predictor_file import CostModelError, default_file, identity_of, read
from pipeline.trials.objectives import as_losses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from latency_models.predictors.prediction import Prediction
    from latency_models.timing.meter import LatencyMeter
    from pipeline.config.run import RunConfig
    from pipeline.costs.latency_predictor import LatencyPredictor
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace, Value
    from pipeline.trials.journal import TrialRecord

    Costs = dict[str, float]
    Details = dict[str, Any]


class LatencySource:
    """Answers for one search's candidates, one after the other.

    Order of calls: `restore` with what a resumed search knows; for each candidate `before_training`, then, where it
    was trained, `after_training`.

    Raises:
        CostModelError: the config names a file that isn't this space's and device's.
    """

    def __init__(self, config: RunConfig, data: DataSet, space: SearchSpace, meter: LatencyMeter) -> None:
        self._config, self._meter = config, meter
        self._limit: float | None = dict(config.constraints).get("latency_ms")
        self._model = None if config.cost_model == "measure" else _model_of(config, data, space, meter)
        self._trained: list[Costs] = []

    def restore(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Learn finished trials: their `architecture`, `status`, `objectives` and `details`."""
        for trial in history:
            latency = trial["details"].get("latency", {})
            if self._model is not None and latency.get("source") == "measured":
                found = trial["objectives"]
                noise = relative_noise(latency["low_ms"], found["latency_ms"], latency["high_ms"])
                self._model.observe(trial["architecture"], found, found["latency_ms"], noise)
            if trial["status"] == "ok":
                self._trained.append(dict(trial["objectives"]))

    def prediction(self, architecture: Mapping[str, Value], counted: Mapping[str, float]) -> tuple[Prediction, str]:
        """What the cost model says now, and which model it is.

        Raises:
            CostModelError: it knows too little, or the config wants no predictions.
        """
        found = None if self._model is None else self._model.predict(architecture, counted)
        if self._model is None or found is None:
            known = 0 if self._model is None else self._model.nets
            raise CostModelError(f"no cost model yet: {known} measured networks are too few; see `hwnas calibrate`")
        return found, self._model.description

    def before_training(
        self, architecture: Mapping[str, Value], counted: Costs, content: bytes, *, measured: bool = False
    ) -> tuple[float, Details]:
        """The latency in ms and what is to be told of it.

        Args:
            architecture: of the candidate.
            counted: its costs that need no clock.
            content: its graph as the device runs it.
            measured: whether a prediction won't do.
        """
        began = time.perf_counter()
        predicted = None if self._model is None else self._model.predict(architecture, counted)
        if predicted is None or measured or self._straddled(predicted):
            return self._measured(architecture, counted, content, predicted, began)
        details = {"source": "predicted", **_told(predicted), "cost_s": time.perf_counter() - began}
        return predicted.latency_ms, details

    def after_training(
        self, architecture: Mapping[str, Value], objectives: Costs, details: Details, content: bytes
    ) -> tuple[float, Details]:
        """As `before_training`, with what the accuracy adds: whoever may join the front is measured."""
        if details["source"] == "predicted" and self._may_join(objectives, details["low_ms"]):
            began = time.perf_counter() - details["cost_s"]
            known = details["predicted"]
            ms, details = self._measured(architecture, objectives, content, None, began)
            details["predicted"] = known
            objectives = {**objectives, "latency_ms": ms}
        self._trained.append(dict(objectives))
        return objectives["latency_ms"], details

    def _measured(
        self,
        architecture: Mapping[str, Value],
        counted: Costs,
        content: bytes,
        predicted: Prediction | None,
        began: float,
    ) -> tuple[float, Details]:
        latency = self._meter.measure(content, budget_s=SEARCH_MEASURE_S)
        if self._model is not None:
            noise = relative_noise(latency.low_ms, latency.latency_ms, latency.high_ms)
            self._model.observe(architecture, counted, latency.latency_ms, noise)
        details = {"source": "measured", **interval(latency), "cost_s": time.perf_counter() - began}
        if predicted is not None:
            details["predicted"] = _told(predicted)["predicted"]
        return latency.latency_ms, details

    def _straddled(self, predicted: Prediction) -> bool:
        return self._limit is not None and predicted.low_ms <= self._limit < predicted.high_ms

    def _may_join(self, objectives: Costs, low_ms: float) -> bool:
        """Whether nobody is at least as good in everything, were the latency as low as it may be."""
        names = self._config.objectives
        if "latency_ms" not in names or not self._trained:
            return "latency_ms" in names
        best = as_losses([{**objectives, "latency_ms": low_ms}], names)
        return not bool(np.any(np.all(as_losses(self._trained, names) <= best, axis=1)))


def history_of(records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """What `restore` takes, of a journal's trials."""
    return [
        {"architecture": r.architecture, "status": r.status, "objectives": r.objectives, "details": r.details}
        for r in records
    ]


def _model_of(config: RunConfig, data: DataSet, space: SearchSpace, meter: LatencyMeter) -> LatencyPredictor:
    """The named file's model; else the one that was calibrated for this space and device; else an empty one."""
    identity, environment = identity_of(config, data), meter.environment()
    if config.cost_model.endswith(".json"):
        return read(Path(config.cost_model), space, identity, meter.device, environment)
    try:
        return read(default_file(identity, meter.device, environment), space, identity, meter.device, environment)
    except CostModelError:
        return cost_model_for(space)


def _told(predicted: Prediction) -> Details:
    shown = {"latency_ms": predicted.latency_ms, "low_ms": predicted.low_ms, "high_ms": predicted.high_ms}
    return {"low_ms": predicted.low_ms, "high_ms": predicted.high_ms, "predicted": shown}
