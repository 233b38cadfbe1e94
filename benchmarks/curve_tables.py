"""Tables of `strategy_curves.py`, as markdown."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.bench.config import BenchConfig
from pipeline.bench.summary import Summary

_RESAMPLES = 2000
_FORMS = {"hypervolume": (1, 4), "regret": (100, 3)}
"""What a figure is multiplied by, and its digits."""


@dataclass(frozen=True)
class CaseFigures:
    """The figures of a case.

    Attributes:
        config: with those strategies that there are results of.
        results: of complete seeds.
        seeds: of each strategy, how many.
    """

    config: BenchConfig
    results: Summary
    seeds: dict[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the strategies."""
        return self.config.labels()

    @cached_property
    def document(self) -> dict[str, Any]:
        """The document of `hwnas bench --json`, without its single searches."""
        rows = self.results.rows()
        return {"seeds": dict(self.seeds), "summary": rows, "comparisons": self.results.comparisons()}

    @property
    def overall(self) -> str | None:
        """The key of the mean over all devices, or of the only one."""
        return self.results.devices[0]

    def row(self, strategy: str) -> dict[str, Any] | None:
        """A strategy's figures over all devices."""
        rows = [row for row in self.document["summary"] if (row["strategy"], row["device"]) == (strategy, self.overall)]
        return rows[0] if rows else None

    def overall_comparisons(self) -> list[dict[str, Any]]:
        """Comparisons of all strategies with the first one, over all devices."""
        return [row for row in self.document["comparisons"] if row["device"] == self.overall]


def print_case(name: str, told: CaseFigures) -> None:
    """Print all tables of a case."""
    alone = told.config.objectives == ["accuracy"]
    kinds = ("regret",) if alone else ("hypervolume", "regret")
    print(f"\n## {name}: {told.config.table.accuracy} of {told.config.table.path.rsplit('/', 1)[-1]}")
    for kind in kinds:
        _print_means(told, kind)
        if len(told.labels) > 1:
            _print_differences(told, kind)
    if len(told.config.columns()) > 1:
        _print_devices(told, kinds[0])


def _print_means(told: CaseFigures, kind: str) -> None:
    numbers = [str(n) for n in told.config.report_at]
    lines = []
    for label in told.labels:
        row = told.row(label)
        assert row is not None
        cells = [cell(row[kind][n], kind) for n in numbers]
        lines.append([label, *cells, str(told.seeds[label]), f"{1e3 * row['seconds_per_trial']:.1f}"])
    _print(f"{_title(kind)} after", [*numbers, "seeds", "ms a trial"], lines)


def _print_differences(told: CaseFigures, kind: str) -> None:
    numbers = [str(n) for n in told.config.report_at]
    lines = []
    for row in told.overall_comparisons():
        cells = [cell(row[kind][n], kind, "+") + ("*" if row[kind][n]["different"] else "") for n in numbers]
        lines.append([row["strategy"], *cells])
    _print(f"{_title(kind)} more than {told.labels[0]}, * excludes 0", numbers, lines)


def _print_devices(told: CaseFigures, kind: str) -> None:
    """Means alone, all numbers of trials in a cell; the intervals are in the JSON."""
    scale, digits = _FORMS[kind]
    lines = []
    for label in told.labels:
        rows = [r for r in told.document["summary"] if r["strategy"] == label and r["device"] is not None]
        cells = [[f"{scale * found['mean']:.{digits - 1}f}" for found in row[kind].values()] for row in rows]
        lines.append([label, *(" ".join(cell) for cell in cells)])
    _print(f"{_title(kind)} after {', '.join(map(str, told.config.report_at))}", told.config.columns(), lines)


def _title(kind: str) -> str:
    return "regret in points" if kind == "regret" else "share of the hypervolume"


def cell(found: dict[str, Any], kind: str, sign: str = "", digits: int | None = None) -> str:
    """A mean with its interval, in the figure's usual unit and digits."""
    scale, usual = _FORMS[kind]
    digits = usual if digits is None else digits
    mean = f"{scale * found['mean']:{sign}.{digits}f}"
    return mean if found["low"] is None else f"{mean} ± {scale * (found['high'] - found['mean']):.{digits}f}"


def _print(title: str, heads: list[str], lines: list[list[str]]) -> None:
    print(f"\n| {title} | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def needed(ours: CaseFigures, our: str, others: CaseFigures, other: str, at: int, longest: int) -> str:
    """The factor of trials that another strategy needs to reach in the mean what ours has at a number of trials.

    The interval is of the percentile bootstrap: seeds are drawn anew for both together, as they are paired.
    """
    numbers = np.arange(1, longest + 1)
    mine = ours.results.seed_curves(ours.labels.index(our), ours.overall, "hypervolume", np.array([at]))
    theirs = others.results.seed_curves(others.labels.index(other), others.overall, "hypervolume", numbers)
    seeds = sorted(set(mine) & set(theirs))
    goals = np.array([mine[seed][0] for seed in seeds])
    curves = np.array([theirs[seed] for seed in seeds])
    generator = np.random.default_rng(0)
    draws = generator.integers(len(seeds), size=(_RESAMPLES, len(seeds)))
    factors = [_reached(curves[draw].mean(axis=0), goals[draw].mean(), longest) / at for draw in draws]
    found = _reached(curves.mean(axis=0), goals.mean(), longest) / at
    low, high = np.percentile(factors, [2.5, 97.5], method="nearest")
    most = f"> {longest / at:.1f}"
    shown = [most if np.isinf(each) else f"{each:.2f}" for each in (found, low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]}), {len(seeds)} seeds; guided has {goals.mean():.4f}"


def _reached(curve: npt.NDArray[np.float64], goal: float, longest: int) -> float:
    """The number of trials, between two of them in proportion; infinite where it is never reached."""
    places = np.flatnonzero(curve >= goal)
    if not len(places):
        return float("inf")
    place = int(places[0])
    if place == 0:
        return 1.0
    return place + float((goal - curve[place - 1]) / (curve[place] - curve[place - 1]))
