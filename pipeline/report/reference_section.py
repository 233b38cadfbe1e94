"""The references in the report: beside the front, and in a table with the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ReferencesError
from pipeline.references.records import read
from pipeline.references.verdict import reference_costs, rows, verdict
from pipeline.report.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from pipeline.references.records import References
    from pipeline.run import RunDirectory

_REFERENCE_STYLE: dict[str, Any] = {
    "s": 34,
    "marker": "D",
    "color": "#5e4b8b",
    "label": "reference, trained to the end",
}
_WINNER_STYLE: dict[str, Any] = {"s": 130, "marker": "*", "color": "#d1495b", "label": "winner, trained to the end"}
_LOG_FROM = 20.0
_LEAST_ROOM = 0.02


@dataclass(frozen=True)
class Finished:
    """A point of the plot: a network that was trained to the end, a reference or the winner."""

    name: str
    accuracy: float
    costs: dict[str, float]
    won: bool = False


def finished_points(run: RunDirectory, manifest: Mapping[str, Any] | None) -> list[Finished]:
    """Points of the references and, as they were trained longer than candidates, of the finished winner."""
    known = _known(run)
    found = [
        Finished(reference.name, reference.metrics["accuracy_validation"], reference_costs(reference.metrics))
        for reference in (known.references if known else ())
        if reference.status == "ok"
    ]
    if found and manifest is not None:
        costs = {name: value for name, value in manifest["won"].items() if name != "accuracy" and value is not None}
        found.append(Finished("winner", manifest["won"]["accuracy"], costs, won=True))
    return found


def draw_finished(
    axes: Axes, points: Sequence[Finished], cost: str, costs: Sequence[float], accuracies: Sequence[float]
) -> None:
    """Draw the points that have this cost, with their names; the winner has a mark of its own.

    A reference far below all candidates stands at the lower edge, with its accuracy, so that the front can be seen.

    Args:
        axes: with the candidates drawn.
        points: to be added.
        cost: of the horizontal axis, which becomes logarithmic where the costs lie far apart.
        costs: the candidates'.
        accuracies: the candidates'.
    """
    shown = sorted((p for p in points if cost in p.costs), key=lambda p: p.costs[cost])
    if not shown or not accuracies:
        return
    if max(*costs, *(p.costs[cost] for p in shown)) > _LOG_FROM * min(*costs, *(p.costs[cost] for p in shown)):
        axes.set_xscale("log")
    floor = min(accuracies) - max(max(accuracies) - min(accuracies), _LEAST_ROOM)
    for won, style in ((False, _REFERENCE_STYLE), (True, _WINNER_STYLE)):
        chosen = [p for p in shown if p.won == won]
        axes.scatter([p.costs[cost] for p in chosen], [max(p.accuracy, floor) for p in chosen], zorder=3, **style)
    for point in shown:
        if not point.won:
            text = point.name if point.accuracy >= floor else f"{point.name} {point.accuracy:.3f} ↓"
            _label(axes, text, (point.costs[cost], max(point.accuracy, floor)))


def _label(axes: Axes, text: str, place: tuple[float, float]) -> None:
    """Write a name beside its point, on the side where there is room."""
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform(place))
    to_the_left = across > 0.5
    axes.annotate(
        text,
        place,
        xytext=(-6 if to_the_left else 6, 0),
        textcoords="offset points",
        ha="right" if to_the_left else "left",
        va="center",
        fontsize=7,
        color=_REFERENCE_STYLE["color"],
        parse_math=False,  # a name may have any letters, "$" too
    )


def references_section(run: RunDirectory, manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The text and table that the page shows; None where nobody asked for references."""
    try:
        known = read(run)
    except ReferencesError as error:
        return {"text": str(error), "rows": [], "winner": None}
    if known is None:
        return None
    if manifest is None:
        return {"text": "They are trained once there is a winner.", "rows": [], "winner": None}
    found = rows(known, manifest)
    return {
        "text": verdict(found, manifest),
        "rows": [_shown(row) for row in found],
        "winner": _shown({**manifest["metrics"], "name": "the winner", "remark": ""}),
    }


def _known(run: RunDirectory) -> References | None:
    try:
        return read(run)
    except ReferencesError:
        return None


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table as text; unknown values are left empty."""

    def shown(name: str, scale: float = 1.0) -> str:
        value = row.get(name)
        return "" if value is None else number(value / scale if scale != 1.0 else value)

    difference = row.get("accuracy_test_difference")
    return {
        "name": row["name"],
        "accuracy_validation": _share(row.get("accuracy_validation")),
        "accuracy_test": _share(row.get("accuracy_test")),
        "difference": "" if difference is None else f"{difference:+.4f}",
        "latency_ms": shown("latency_ms"),
        "latency_interval": _interval(shown("latency_low_ms"), shown("latency_high_ms")),
        "ratio": shown("latency_ratio"),
        "ratio_interval": _interval(shown("latency_ratio_low"), shown("latency_ratio_high")),
        "size_mb": shown("size_bytes", 1e6),
        "peak_memory_mb": shown("peak_memory_bytes", 1e6),
        "params": shown("params"),
        "remark": row["remark"],
    }


def _interval(low: str, high: str) -> str:
    return f"{low}–{high}" if low else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
