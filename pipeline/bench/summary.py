"""Means over seeds with confidence intervals, and the rows of the command's document."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t

from pipeline.bench.curves import value_at, values_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from pipeline.bench.config import BenchConfig
    from pipeline.bench.curves import Truth
    from pipeline.bench.run import Result, Task

    Curves = Callable[[int, str | None, str, npt.NDArray[np.int64]], npt.NDArray[np.float64]]

CURVES = ("hypervolume", "regret")
_CONFIDENCE = 0.95
_PLOTTED = 120


def mean_with_interval(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean and 95 % interval (Student's t) over the first axis, shape (3, …); NaN for the interval of one value."""
    mean = values.mean(axis=0)
    if len(values) < 2:
        return np.stack([mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)])
    half = t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return np.stack([mean, mean - half, mean + half])


class Summary:
    """Statistics of all results, by strategy and device.

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
        """Mean and interval over seeds, shape (3, trials); of several devices, each seed's mean is one value."""
        return mean_with_interval(np.array([*self.seed_curves(strategy, device, kind, trials).values()]))

    def difference(
        self, strategy: int, device: str | None, kind: str, trials: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Difference to the first strategy with the same seed and device: mean and interval, shape (3, trials)."""
        ours, others = (self.seed_curves(n, device, kind, trials) for n in (strategy, 0))
        return mean_with_interval(np.array([ours[seed] - others[seed] for seed in ours if seed in others]))

    def seed_curves(
        self, strategy: int, device: str | None, kind: str, trials: npt.NDArray[np.int64]
    ) -> dict[int, npt.NDArray[np.float64]]:
        """Map each seed to its curve (trials,), the mean over the devices."""
        by_seed = defaultdict(list)
        for task, result in self._results.items():
            if _is(task, strategy, device):
                by_seed[task.seed].append(values_at(getattr(result, kind), trials))
        return {seed: np.mean(curves, axis=0) for seed, curves in by_seed.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the document, for each device and strategy."""
        return [self._row(label, n, device) for device in self.devices for n, label in enumerate(self._config.labels())]

    def _row(self, label: str, strategy: int, device: str | None) -> dict[str, Any]:
        figures = {kind: self._intervals(self.curve, strategy, device, kind) for kind in CURVES}
        seconds = [r.seconds_per_trial for task, r in self._results.items() if _is(task, strategy, device)]
        row = {"strategy": label, "device": device, **figures, "seconds_per_trial": float(np.mean(seconds))}
        proxies = [r.proxy_seconds for task, r in self._results.items() if _is(task, strategy, device)]
        known = [each for each in proxies if each is not None]
        return {**row, "proxy_seconds": float(np.mean(known))} if known else row

    def comparisons(self) -> list[dict[str, Any]]:
        """Rows of the document that compare each strategy with the first one, for each device."""
        return [
            self._comparison(label, n, device)
            for device in self.devices
            for n, label in enumerate(self._config.labels())
            if n
        ]

    def _comparison(self, label: str, strategy: int, device: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {"strategy": label, "against": self._config.labels()[0], "device": device}
        for kind in CURVES:
            differences = self._intervals(self.difference, strategy, device, kind)
            row[kind] = {n: {**each, "different": _excludes_zero(each)} for n, each in differences.items()}
        return row

    def _intervals(self, of: Curves, strategy: int, device: str | None, kind: str) -> dict[str, dict[str, Any]]:
        """Map each number of trials, as text, to mean and interval."""
        numbers = self._config.report_at
        values = of(strategy, device, kind, np.array(numbers)).T.tolist()
        return {str(n): _interval(*each) for n, each in zip(numbers, values, strict=True)}

    def results(self) -> list[dict[str, Any]]:
        """Rows of the document for each search, in the order of the config."""
        labels = self._config.labels()
        return [
            {
                "strategy": labels[task.strategy],
                "device": task.device,
                "seed": task.seed,
                **{k: {str(n): value_at(getattr(r, k), n) for n in self._config.report_at} for k in CURVES},
                "seconds_per_trial": r.seconds_per_trial,
                "trials": r.trials,
                **({} if r.proxy_seconds is None else {"proxy_seconds": r.proxy_seconds}),
            }
            for task, r in self._results.items()
        ]


def truth_record(device: str, truth: Truth, limits: Mapping[str, float]) -> dict[str, Any]:
    """The row of the document for a device: figures of the whole table."""
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


def _excludes_zero(interval: Mapping[str, Any]) -> bool | None:
    """Whether the interval of a difference excludes 0; None without an interval."""
    return None if interval["low"] is None else bool(interval["low"] > 0 or interval["high"] < 0)


def plotted_trials(most: int) -> Sequence[int]:
    """Numbers of trials at which a curve is drawn: 1 to `most` in about even steps."""
    return sorted({round(n) for n in np.linspace(1, most, min(most, _PLOTTED)).tolist()})
