"""Results of many seeds as means with intervals, and the document that tools read."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t

from pipeline.bench.curves import value_at, values_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pipeline.bench.config import BenchConfig
    from pipeline.bench.curves import Truth
    from pipeline.bench.run import Result, Task

CURVES = ("hypervolume", "regret")
_CONFIDENCE = 0.95


def mean_with_interval(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean and 95 % interval of Student's t over the first axis: (3, …), NaN for the interval of a single value."""
    mean = values.mean(axis=0)
    if len(values) < 2:
        return np.stack([mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)])
    half = t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return np.stack([mean, mean - half, mean + half])


class Summary:
    """All results, by strategy and device.

    Args:
        config: of the benchmark.
        results: of all its searches.
    """

    def __init__(self, config: BenchConfig, results: Mapping[Task, Result]) -> None:
        self._config = config
        self._results = dict(sorted(results.items(), key=lambda each: _place(config, each[0])))
        self.devices: tuple[str | None, ...] = (
            config.columns() if len(config.columns()) == 1 else (None, *config.columns())
        )
        """The cost columns; None stands for the mean over them."""

    def curve(
        self, strategy: int, device: str | None, kind: str, trials: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Mean and interval over seeds: (3, trials). Over the devices, each seed's mean is one value."""
        by_seed = defaultdict(list)
        for task, result in self._results.items():
            if task.strategy == strategy and device in (None, task.device):
                by_seed[task.seed].append(values_at(getattr(result, kind), trials))
        return mean_with_interval(np.array([np.mean(curves, axis=0) for curves in by_seed.values()]))

    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each device and strategy, as it stands in the document."""
        return [self._row(label, n, device) for device in self.devices for n, label in enumerate(self._config.labels())]

    def _row(self, label: str, strategy: int, device: str | None) -> dict[str, Any]:
        numbers = np.array(self._config.report_at)
        row: dict[str, Any] = {"strategy": label, "device": device}
        for kind in CURVES:
            means = self.curve(strategy, device, kind, numbers)
            row[kind] = {
                str(n): _interval(*values) for n, values in zip(numbers.tolist(), means.T.tolist(), strict=True)
            }
        seconds = [r.seconds_per_trial for task, r in self._results.items() if _is(task, strategy, device)]
        return {**row, "seconds_per_trial": float(np.mean(seconds))}

    def results(self) -> list[dict[str, Any]]:
        """One mapping a search, in the order of the config."""
        labels = self._config.labels()
        return [
            {
                "strategy": labels[task.strategy],
                "device": task.device,
                "seed": task.seed,
                **{k: {str(n): value_at(getattr(r, k), n) for n in self._config.report_at} for k in CURVES},
                "seconds_per_trial": r.seconds_per_trial,
                "trials": r.trials,
            }
            for task, r in self._results.items()
        ]


def told_truth(device: str, truth: Truth, limits: Mapping[str, float]) -> dict[str, Any]:
    """What the whole table holds for a device, as it stands in the document."""
    return {
        "device": device,
        "rows": truth.rows,
        "reference": dict(zip(truth.objectives, truth.reference.tolist(), strict=True)),
        "hypervolume": truth.hypervolume,
        "reachable": truth.reachable,
        "best_accuracy": truth.best_accuracy,
        "limits": dict(limits),
    }


def _place(config: BenchConfig, task: Task) -> tuple[int, int, int]:
    return task.strategy, config.columns().index(task.device), task.seed


def _is(task: Task, strategy: int, device: str | None) -> bool:
    return task.strategy == strategy and device in (None, task.device)


def _interval(mean: float, low: float, high: float) -> dict[str, Any]:
    if np.isnan(low):
        return {"mean": mean, "low": None, "high": None, "low_unavailable": "one seed", "high_unavailable": "one seed"}
    return {"mean": mean, "low": low, "high": high}


def plotted_trials(most: int, points: int = 120) -> Sequence[int]:
    """Numbers of trials to draw a curve at, 1 to the most, at about even distances."""
    return sorted({round(n) for n in np.linspace(1, most, min(most, points)).tolist()})
