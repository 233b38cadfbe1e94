"""The page of a benchmark: hypervolume and regret over trials, drawn and in tables."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bench.curves import COST_PERCENTILE, ERROR_PERCENTILE
from pipeline.bench.summary import CURVES, plotted_trials
from pipeline.report.html import write_html
from pipeline.report.plots import svg_of
from pipeline.report.style import own_style

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.bench.config import BenchConfig
    from pipeline.bench.summary import Summary

_COLOURS = (
    "#1f5fa8",
    "#d1495b",
    "#3a8f5c",
    "#b0892b",
    "#7a4fa3",
    "#2aa0a8",
    "#8a5a44",
    "#5b6876",
    "#c75d9c",
    "#1d2733",
)
_AXES = {"hypervolume": "share of the hypervolume", "regret": "regret (accuracy)"}


@own_style()
def write_page(path: Path, config: BenchConfig, summary: Summary, document: dict[str, Any]) -> None:
    """Write the page from the command's document and the curves behind it."""
    rows = document["summary"]
    write_html(
        path,
        "bench.html.jinja",
        name=config.name,
        seeds=config.seeds,
        trials=config.budget.trials,
        table=config.table.path,
        accuracy=config.table.accuracy,
        percentiles=(ERROR_PERCENTILE, COST_PERCENTILE),
        numbers=[str(n) for n in config.report_at],
        devices=[
            {
                "name": device or "mean of all devices",
                "plot": _plot(config, summary, device),
                "rows": [row for row in rows if row["device"] == device],
                "comparisons": [row for row in document["comparisons"] if row["device"] == device],
                "truth": next((each for each in document["devices"] if each["device"] == device), None),
            }
            for device in summary.devices
        ],
        version=version("hwnas"),
    )


def _plot(config: BenchConfig, summary: Summary, device: str | None) -> str:
    from matplotlib.figure import Figure  # the object interface: no display, no global state

    trials = np.array(plotted_trials(config.budget.trials))
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), CURVES, strict=True):
        begun = []
        for strategy, label in enumerate(config.labels()):
            mean, low, high = summary.curve(strategy, device, kind, trials)
            begun.append(mean[len(trials) // 20])
            colour = _COLOURS[strategy % len(_COLOURS)]
            axes.plot(trials, mean, color=colour, lw=1.5, ls="-" if strategy < len(_COLOURS) else "--", label=label)
            axes.fill_between(trials, low, high, color=colour, alpha=0.15, lw=0)
        axes.set_xlabel("trials")
        axes.set_ylabel(_AXES[kind])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if kind == "regret":
            axes.set_yscale("symlog", linthresh=1e-3)
            axes.set_ylim(bottom=0)
        else:
            axes.set_ylim(min(begun) - 0.02, 1.01)  # the first few trials would squeeze the scale of all others
            axes.legend(frameon=False, fontsize=8)
    return svg_of(figure)
