"""A run's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from export.errors import BundleError
from pipeline.config.file import dump_config
from pipeline.costs.width_step import read_blocks, words
from pipeline.report.activation_section import activation_section
from pipeline.report.html import write_html
from pipeline.report.plots import front_plot, prediction_plot, progress_plot
from pipeline.report.reference_section import finished_points, references_section
from pipeline.report.style import own_style
from pipeline.report.text import number, remark
from pipeline.spaces.base import activations_of
from pipeline.trials.result import is_stopped, scored_by
from pipeline.winner.finished import read_finished
from pipeline.winner.pick import front_of

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from pipeline.config.run import RunConfig
    from pipeline.run import RunDirectory
    from pipeline.trials.journal import TrialRecord

_MOST_ROWS = 1000
_METRICS = ("accuracy", "latency_ms", "macs", "params", "size_mb", "peak_memory_mb", "energy_mj")


@own_style()
def write_report(run: RunDirectory, records: Sequence[TrialRecord]) -> None:
    """Write report.html from the journal and, where there is one, the bundle."""
    front = front_of(records, run.config.objectives)
    on_front = {record.id for record in front}
    manifest, missing = _manifest(run)
    metrics = [name for name in _METRICS if any(name in record.objectives for record in records)]
    write_html(
        run.report,
        "page.html.jinja",
        name=run.config.name,
        summary=_summary(run, records, front),
        manifest=manifest,
        missing=missing,
        cards=_cards(manifest) if manifest else [],
        plots=_plots(run, records, front, manifest),
        references=references_section(run, manifest),
        activations=activation_section(run, records, manifest),
        metrics=metrics,
        front=[_row(record, metrics, on_front=True) for record in front],
        trials=[_row(record, metrics, on_front=record.id in on_front) for record in _shown(records, on_front)],
        left_out=_left_out(run, records),
        counts=_counts(records),
        cost_model=_cost_model(run.config, records),
        channels=_channels(run),
        config=dump_config(run.config),
        version=version("hwnas"),
    )


def _manifest(run: RunDirectory) -> tuple[dict[str, Any] | None, str]:
    if not run.bundle.exists():
        return None, "no candidate was finished, or not yet."
    try:
        manifest = read_finished(run.bundle)
    except BundleError as error:
        return None, error.reason
    if manifest["run"]["config_sha256"] != run.digest():
        return None, "the one in bundle/ belongs to another config"
    return manifest, ""


def _summary(run: RunDirectory, records: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> str:
    data, space, strategy = (getattr(run.config, key).name for key in ("data", "space", "strategy"))
    minutes = max((record.elapsed_s for record in records), default=0.0) / 60
    limits = ", ".join(f"{name} ≤ {number(limit)}" for name, limit in run.config.limits.items()) or "no limits"
    count = f"{len(records)} candidate{'s' if len(records) != 1 else ''}"
    return (
        f"Data {data}, space {space}, strategy {strategy}; {_trade_off(run.config.objectives)} under {limits}."
        f" {count} in {minutes:.1f} minutes, {len(front)} on the front."
    )


def _trade_off(objectives: Sequence[str]) -> str:
    """Name the objectives in a phrase: accuracy against a, b and c."""
    costs = [name for name in objectives if name != "accuracy"]
    return f"accuracy against {', '.join(costs[:-1]) + ' and ' if costs[1:] else ''}{costs[-1]}"


def _cards(manifest: dict[str, Any]) -> list[dict[str, str]]:
    metrics, limits = manifest["metrics"], manifest["limits"]

    def limit(name: str) -> str:
        return f"limit {number(limits[name])}" if name in limits else "no limit"

    interval = f"{number(metrics['latency_low_ms'])}–{number(metrics['latency_high_ms'])}, 95 %"
    rows = [
        (
            "test accuracy",
            f"{metrics['accuracy_test']:.2%}",
            f"ONNX Runtime; torch {metrics['accuracy_test_torch']:.2%}",
        ),
        ("latency, ms", number(metrics["latency_ms"]), f"{interval}; {limit('latency_ms')}"),
        ("size, MB", number(metrics["size_bytes"] / 1e6), limit("size_mb")),
    ]
    if metrics["peak_memory_bytes"] is not None:
        rows.append(("peak activations, MB", number(metrics["peak_memory_bytes"] / 1e6), limit("peak_memory_mb")))
    if metrics["macs"] is not None:
        rows.append(("MACs", number(metrics["macs"]), limit("macs")))
    if metrics["params"] is not None:
        rows.append(("parameters", number(metrics["params"]), limit("params")))
    return [{"label": label, "value": value, "note": note} for label, value, note in rows]


def _plots(
    run: RunDirectory,
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    manifest: dict[str, Any] | None,
) -> list[str]:
    if not front:
        return []
    picked = manifest["architecture_id"] if manifest else None
    finished = finished_points(run, manifest)
    costs = [name for name in run.config.objectives if name != "accuracy"]
    limits = run.config.limits
    return [
        *(
            front_plot(records, front, cost, limits.get(cost), picked, joined=len(costs) == 1, finished=finished)
            for cost in costs
        ),
        progress_plot(records),
    ]


def _cost_model(config: RunConfig, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """The section on latencies: their sources, and predictions against measurements; None where all were measured."""
    latencies = [record.details["latency"] for record in records if "source" in record.details.get("latency", {})]
    measured = [latency for latency in latencies if latency["source"] == "measured"]
    pairs = [
        {"measured_ms": record.objectives["latency_ms"], **record.details["latency"]["predicted"]}
        for record in records
        if record.details.get("latency", {}).get("source") == "measured" and "predicted" in record.details["latency"]
    ]
    if config.cost_model == "measure" or not latencies:
        return None
    errors = sorted(abs(pair["latency_ms"] / pair["measured_ms"] - 1.0) for pair in pairs)
    held = sum(pair["low_ms"] <= pair["measured_ms"] <= pair["high_ms"] for pair in pairs)
    text = _sources(len(latencies), len(measured))
    if pairs:
        text += (
            f" {_was(len(pairs))} predicted first and then measured: the median error is"
            f" {errors[len(errors) // 2]:.1%}, the largest {errors[-1]:.1%}; the measurement lies in {held} of the"
            " 90 % intervals."
        )
    return {"text": text, "plot": prediction_plot(pairs) if pairs else ""}


def _channels(run: RunDirectory) -> str:
    """Sentences on the device's blocks of channels and the space's widths; empty where they weren't timed."""
    blocks = read_blocks(run.channel_blocks) or read_blocks(run.cost_model)
    return "" if blocks is None else words(blocks, run.config)


def _sources(count: int, measured: int) -> str:
    """A sentence on how many latencies were measured."""
    if measured == count:
        return "The only latency was measured." if count == 1 else f"All {count} latencies were measured."
    if measured == 0:
        return "The only latency is a prediction." if count == 1 else f"All {count} latencies are predictions."
    return f"Of {count} latencies {_was(measured)} measured and {count - measured} only predicted."


def _was(count: int) -> str:
    return f"{count} was" if count == 1 else f"{count} were"


def _row(record: TrialRecord, metrics: Sequence[str], *, on_front: bool) -> dict[str, Any]:
    shown = [number(record.objectives[name]) if name in record.objectives else "" for name in metrics]
    return {
        "id": record.id,
        "status": record.status,
        "values": shown,
        "on_front": on_front,
        "seconds": f"{record.seconds:.1f}",
        "remark": remark({"error": record.error, "details": record.details}),
        "stopped_by": record.details.get("stopped_by", ""),
        "activations": ", ".join(f"{k} {v}" for k, v in activations_of(record.architecture).items()),
    }


def _shown(records: Sequence[TrialRecord], on_front: Set[str]) -> Sequence[TrialRecord]:
    """The trials of the page's table, in their order: all, or of many those of the front and the best by score."""
    if len(records) <= _MOST_ROWS:
        return records
    ranked = sorted(records, key=lambda record: (record.id not in on_front, -record.score, record.number))
    return sorted(ranked[:_MOST_ROWS], key=lambda record: record.number)


def _left_out(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """Say where the trials are that the table leaves out; empty where it has all."""
    if len(records) <= _MOST_ROWS:
        return ""
    return (
        f"Of {len(records):,} trials the {_MOST_ROWS:,} on the front or with the best scores. All of them: hwnas trials"
        f" {shlex.quote(str(run.path))}, with --csv for a spreadsheet."
    )


def _counts(records: Sequence[TrialRecord]) -> str:
    scores = dict.fromkeys(name for record in records if (name := scored_by(record.details)))
    names = {"ok": "scored" if scores else "trained", "infeasible": "over a limit (not trained)", "failed": "failed"}
    parts = [f"{sum(r.status == key for r in records)} {text}" for key, text in names.items()]
    stopped = sum(is_stopped(record.details) for record in records)
    if stopped:
        parts[0] += f" (of them {stopped} stopped early)"
    if scores:
        parts.append(f"in place of an accuracy a score from 0 to 1 by {', '.join(scores)}")
    return ", ".join(parts)
