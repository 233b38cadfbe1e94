"""Results as text for people; the commands' `--json` shows the same values."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_COSTS = ("latency_ms", "macs", "params", "size_mb", "peak_memory_mb", "energy_mj")
_WIDTH = 120


def outcome(result: dict[str, Any]) -> str:
    """What a search won, against what was asked for."""
    metrics, limits = result["metrics"], result["limits"]
    table = _table("", "won", "limit")
    table.add_row("test accuracy, ONNX Runtime", f"{metrics['accuracy_test']:.4f}", "")
    table.add_row("test accuracy, torch", f"{metrics['accuracy_test_torch']:.4f}", "")
    table.add_row("validation accuracy", f"{metrics['accuracy_validation']:.4f}", "")
    for name in _COSTS:
        if name in result["objectives"]:
            shown = number(result["objectives"][name])
            if name == "latency_ms":
                shown += f"  ({number(metrics['latency_low_ms'])} to {number(metrics['latency_high_ms'])}, 95 %)"
            table.add_row(name, shown, f"≤ {number(limits[name])}" if name in limits else "")
    int8 = f"INT8 file: {'kept' if result['int8']['kept'] else 'none'}: {result['int8']['reason']}\n"
    warned = "".join(f"warning: {text}\n" for text in metrics.get("warnings", ()))
    where = f"bundle:  {result['bundle_dir']}\nreport:  {result['report']}\nrun:     {result['run_dir']}"
    return f"Picked {result['picked']}\n{_render(table)}{int8}{warned}{where}"


def trials(rows: Sequence[dict[str, Any]]) -> str:
    """The journal as a table, in the order of the trials."""
    table = _table("id", "status", "accuracy", *_COSTS[:5], "front", "s", "why not")
    for row in rows:
        values = row["objectives"]
        shown = [number(values[name]) if name in values else "" for name in ("accuracy", *_COSTS[:5])]
        table.add_row(
            row["id"],
            row["status"],
            *shown,
            "*" if row["on_front"] else "",
            f"{row['seconds']:.1f}",
            why_not(row),
        )
    counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", "infeasible", "failed")}
    return _render(table) + ", ".join(f"{count} {status}" for status, count in counts.items())


def trials_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The journal as comma-separated values; one column a metric, one a choice."""
    metrics = list(dict.fromkeys(name for row in rows for name in row["objectives"]))
    labels = sorted({label for row in rows for label in row["architecture"]})
    out = io.StringIO()
    writer = csv.writer(out)
    fixed = ["id", "status", "on_front", "started", "seconds", "error"]
    writer.writerow([*fixed, *metrics, *labels])
    for row in rows:
        values = [row[key] for key in fixed]
        values += [row["objectives"].get(name) for name in metrics]
        writer.writerow(values + [row["architecture"].get(label) for label in labels])
    return out.getvalue()


def checks(result: dict[str, Any]) -> str:
    """One line a check."""
    marks = {True: "ok", False: "FAILED", None: "–"}
    table = _table("check", "", "detail")
    for check in result["checks"]:
        table.add_row(check["name"], marks[check["ok"]], check["detail"])
    return _render(table) + ("all checks passed" if result["ok"] else "the bundle is not what it says")


def profile(result: dict[str, Any]) -> str:
    """A model's costs, one a line."""
    table = _table("", "")
    low, high = number(result["latency_low_ms"]), number(result["latency_high_ms"])
    table.add_row("latency_ms", f"{number(result['latency_ms'])}  ({low} to {high}, 95 %)")
    for name in (
        "latency_p50_ms",
        "latency_p99_ms",
        "peak_memory_bytes",
        "size_bytes",
        "macs",
        "params",
        "energy_mj",
    ):
        value = result[name]
        table.add_row(name, f"unavailable: {result[f'{name}_unavailable']}" if value is None else number(value))
    environment = result["environment"]
    table.add_row("device", ", ".join(f"{k} {v}" for k, v in result["device"].items()))
    table.add_row("environment", f"{environment['cpu_model']}, onnxruntime {environment['onnxruntime']}")
    return _render(table) + "\n".join(f"warning: {text}" for text in result["warnings"])


def listing(rows: dict[str, str]) -> str:
    """Name and description."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {description}" for name, description in rows.items())


def doctor(result: dict[str, Any]) -> str:
    """One line an examination."""
    table = _table("", "", "")
    for row in result["checks"]:
        table.add_row(row["name"], {True: "ok", False: "FAILED", None: "–"}[row["ok"]], row["detail"])
    return _render(table) + ("ready" if result["ok"] else "something that every search needs is missing")


def number(value: float) -> str:
    """A number for a table: thousands grouped, four significant digits below that."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def why_not(row: dict[str, Any]) -> str:
    """Why a trial can't win: its error, or the limits that it breaks."""
    if row["error"]:
        return str(row["error"])
    over = row["details"].get("excess", {})
    return ", ".join(f"{name} {share:.0%} over" for name, share in over.items())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _render(table: Table) -> str:
    out = io.StringIO()
    terminal = Console()
    width = max(terminal.width, _WIDTH) if terminal.is_terminal else 200
    Console(file=out, width=width, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
