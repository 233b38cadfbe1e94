"""The plots of the report, as SVG text to stand inside the page."""

from __future__ import annotations

import io
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pipeline.report.reference_section import draw_finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.report.reference_section import Finished
    from pipeline.trials.journal import TrialRecord

_OK, _FRONT, _PICKED, _LIMIT = "#9db2c9", "#1f5fa8", "#d1495b", "#b0892b"
_MOST_DRAWN = 2000
"""Marks of one plot that are drawn one by one; more of them become a picture, which any browser shows at once."""
_PICTURE_DPI = 160


def front_plot(
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    cost: str,
    limit: float | None,
    picked: str | None,
    *,
    joined: bool,
    finished: Sequence[Finished] = (),
) -> str:
    """Draw accuracy over one cost: every trained candidate, the front, the pick, the limit, and what was finished.

    The front's members are joined only where this cost is the only one: seen from the side, a front of more
    objectives is no line.
    """
    figure, axes = _figure()
    feasible = [record for record in records if record.status == "ok" and cost in record.objectives]
    axes.scatter(*_points(feasible, cost), color=_OK, label="trained", **_marks(len(feasible)))
    on_front = sorted((r for r in front if cost in r.objectives), key=lambda r: r.objectives[cost])
    axes.plot(
        *_points(on_front, cost),
        "o-" if joined else "o",
        ms=5,
        lw=1.2,
        drawstyle="steps-post",
        color=_FRONT,
        label="front",
    )
    chosen = [record for record in feasible if record.id == picked]
    axes.scatter(*_points(chosen, cost), s=110, facecolors="none", edgecolors=_PICKED, linewidths=2, label="picked")
    draw_finished(axes, finished, cost, *_points(feasible, cost))
    if limit is not None:
        axes.axvline(limit, color=_LIMIT, ls="--", lw=1, label="limit")
    axes.set_xlabel(cost, parse_math=False)
    _accuracy_axis(axes)
    axes.legend(**_legend(len(feasible)))
    return svg_of(figure)


def progress_plot(records: Sequence[TrialRecord]) -> str:
    """Draw the accuracy of each trained candidate and the best so far, in the order of the trials."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure()
    trained = [record for record in records if record.status == "ok"]
    values = [record.objectives["accuracy"] for record in trained]
    numbers = [record.number + 1 for record in trained]
    axes.scatter(numbers, values, color=_OK, label="trained", **_marks(len(values)))
    axes.step(*_records(numbers, values), where="post", color=_FRONT, lw=1.4, label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _accuracy_axis(axes)
    axes.legend(**_legend(len(values)))
    return svg_of(figure)


def prediction_plot(pairs: Sequence[dict[str, float]]) -> str:
    """Draw measured over predicted latencies, each with its 90 % interval; on the line both are equal.

    Args:
        pairs: `measured_ms`, `latency_ms`, `low_ms` and `high_ms` (predicted) of each.
    """
    figure, axes = _figure()
    predicted = [pair["latency_ms"] for pair in pairs]
    measured = [pair["measured_ms"] for pair in pairs]
    below = [max(0.0, pair["latency_ms"] - pair["low_ms"]) for pair in pairs]
    above = [max(0.0, pair["high_ms"] - pair["latency_ms"]) for pair in pairs]
    many = len(pairs) > _MOST_DRAWN
    axes.errorbar(
        predicted,
        measured,
        xerr=[below, above],
        fmt="o",
        ms=1.5 if many else 4,
        lw=0.8,
        color=_FRONT,
        ecolor=_OK,
        rasterized=many,
    )
    ends = [min(predicted + measured), max(predicted + measured)]
    axes.plot(ends, ends, ls="--", lw=1, color=_LIMIT)
    axes.set_xlabel("predicted latency_ms, 90 % interval")
    axes.set_ylabel("measured latency_ms")
    return svg_of(figure)


def _accuracy_axis(axes: Axes) -> None:
    """Set up the vertical axis, which ends at accuracy 1, without cutting marks at its end."""
    axes.set_ylabel("validation accuracy")
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
    for mark in (*axes.collections, *axes.lines):
        mark.set_clip_on(False)


def _legend(count: int) -> dict[str, Any]:
    """Settings of a legend; among many marks it has a fixed place, since matplotlib takes long to look for one."""
    return {"frameon": False, "fontsize": 8, "loc": "lower right" if count > _MOST_DRAWN else "best"}


def _marks(count: int) -> dict[str, Any]:
    """The size of a scatter's marks, and whether they are drawn as one picture."""
    many = count > _MOST_DRAWN
    return {"s": 3 if many else 22, "rasterized": many, "linewidths": 0 if many else None}


def _records(numbers: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Where the best so far changes, and its last place."""
    best = list(accumulate(values, max))
    kept = [i for i in range(len(best)) if i in (0, len(best) - 1) or best[i] > best[i - 1]]
    return [numbers[i] for i in kept], [best[i] for i in kept]


def _points(records: Sequence[TrialRecord], cost: str) -> tuple[list[float], list[float]]:
    return [r.objectives[cost] for r in records], [r.objectives["accuracy"] for r in records]


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # the object interface: no display, no global state

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def svg_of(figure: Figure) -> str:
    """Write a figure as an SVG element for a page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, dpi=_PICTURE_DPI)
    text = out.getvalue()
    return text[text.index("<svg") :]
