"""The drawings of the report's section on activations, as SVG text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.plots import svg_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from pipeline.activations.facts import ActivationSite, Effect

MOST_PANELS = 24
_COLUMNS = 4
_CURVE, _SLOPE, _SEEN, _GREY = "#1f5fa8", "#b0892b", "#c9d5e3", "#9db2c9"


def effects_plot(accuracy: Sequence[Effect], latency: Sequence[Effect]) -> str:
    """Draw each activation's effect on accuracy and latency with its interval; faint where it may be none."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(effect.activation for effect in (*accuracy, *latency)))
    figure = Figure(figsize=(9.2, 0.9 + 0.24 * len(names)), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    for axes, effects, label in (
        (sides[0], accuracy, "validation accuracy, percentage points"),
        (sides[1], latency, "latency, %"),
    ):
        _bare(axes)
        axes.axvline(0.0, color="#5b6876", lw=0.8)
        for effect in effects:
            value, low, high = (100.0 * each for each in (effect.value, effect.low, effect.high))
            axes.errorbar(
                value,
                names.index(effect.activation),
                xerr=[[value - low], [high - value]],
                fmt="o",
                ms=5,
                lw=1.6,
                color=_CURVE if effect.is_significant else _GREY,
            )
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        if not effects:
            axes.text(0.5, 0.5, "too few trials", transform=axes.transAxes, ha="center", color="#5b6876")
            axes.set_xticks([])
    sides[0].set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    sides[0].set_ylim(len(names) - 0.5, -0.5)
    return svg_of(figure)


def sites_plot(groups: Sequence[Sequence[ActivationSite]]) -> str:
    """Draw a panel for each group of sites that share a function: curve, derivative, histograms of the inputs."""
    from matplotlib.figure import Figure

    rows = -(-len(groups) // _COLUMNS)
    figure = Figure(figsize=(11.0, 2.25 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, group in zip(panels, groups, strict=False):
        _panel(axes, group)
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    return svg_of(figure)


def _panel(axes: Axes, group: Sequence[ActivationSite]) -> None:
    _bare(axes)
    first = group[0]
    where = first.path if len(group) == 1 else f"{len(group)} sites"
    axes.set_title(f"{first.activation} · {where}", fontsize=8, loc="left", parse_math=False)
    axes.tick_params(labelsize=7)
    behind = axes.twinx()
    for site in group:
        widths = [b - a for a, b in zip(site.edges, site.edges[1:], strict=False)]
        heights = [share / width if width > 0 else 0.0 for share, width in zip(site.shares, widths, strict=True)]
        top = max(heights) or 1.0  # to the panel's height: a narrow site would flatten all others
        behind.stairs([h / top for h in heights], site.edges, fill=True, color=_SEEN, alpha=max(0.15, 0.8 / len(group)))
    behind.set_ylim(0.0, 1.05)
    behind.set_axis_off()
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    widest = max(group, key=lambda site: site.curve.x[-1] - site.curve.x[0] if site.curve else 0.0)
    if widest.curve is not None:
        curve = widest.curve
        if max(high - low for low, high in zip(curve.y_low, curve.y_high, strict=True)) > 0.0:
            axes.fill_between(curve.x, curve.y_low, curve.y_high, color=_CURVE, alpha=0.15, lw=0)
        axes.plot(curve.x, curve.y, color=_CURVE, lw=1.4)
        axes.plot(curve.x, curve.slope, color=_SLOPE, lw=1.1, ls="--")


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
