"""Results as text for people; the commands' `--json` shows the same values."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.report.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

_COSTS = ("latency_ms", "macs", "params", "size_mb", "peak_memory_mb", "energy_mj")
_WIDTH = 120
_LEAST_SHARE = 0.005
_MOST_MODULES = 40
_MOST_OPERATORS = 15


def outcome(result: dict[str, Any]) -> str:
    """The winner's figures, against the limits that were asked for."""
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
    beside = _references(result) if "references" in result else ""
    return f"Picked {result['picked']}\n{_render(table)}{int8}{warned}{beside}{where}"


def _references(result: dict[str, Any]) -> str:
    """A table of the references beside the winner, and the verdict."""
    table = _table("reference", "test accuracy", "− winner's", "latency_ms", "÷ winner's", "size_mb", "params", "")
    for row in result["references"]:
        if row["status"] == "failed":
            table.add_row(row["name"], *[""] * 6, row["remark"])
            continue
        ratio, difference = row["latency_ratio"], row["accuracy_test_difference"]
        table.add_row(
            row["name"],
            f"{row['accuracy_test']:.4f}",
            "" if difference is None else f"{difference:+.4f}",
            number(row["latency_ms"]),
            "" if ratio is None else f"{ratio:.2f}",
            number(row["size_bytes"] / 1e6),
            "" if row["params"] is None else number(row["params"]),
            row["remark"],
        )
    return f"{_render(table)}{result['references_verdict']}\n"


def checks(result: dict[str, Any]) -> str:
    """A table with one line a check, and the verdict."""
    marks = {True: "ok", False: "FAILED", None: "–"}
    table = _table("check", "", "detail")
    for check in result["checks"]:
        table.add_row(check["name"], marks[check["ok"]], check["detail"])
    loaded = all(check["ok"] is not None for check in result["checks"] if check["name"] == "model")
    passed = "all checks passed" if loaded else "the files are the recorded ones; the model was not loaded"
    return _render(table) + (passed if result["ok"] else "the bundle is not what it says")


def profile(result: dict[str, Any]) -> str:
    """A table of a model's costs, one a line."""
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
        "gpu_memory_bytes",
        "footprint_bytes",
    ):
        value = result[name]
        table.add_row(name, f"unavailable: {result[f'{name}_unavailable']}" if value is None else number(value))
    environment = result["environment"]
    sizes = (f"{name} {'×'.join(map(str, shape)) or 'a number'}" for name, shape in result["shapes"].items())
    table.add_row("inputs", ", ".join(sizes) or "none")
    table.add_row("precision", result["precision"])
    device = (f"{key} {value}" for key, value in result["device"].items() if key != "precision")
    table.add_row("device", ", ".join(device))
    table.add_row("environment", f"{environment['cpu_model']}, onnxruntime {environment['onnxruntime']}")
    shown = _render(table) + "\n".join(f"warning: {text}" for text in result["warnings"])
    return f"{shown.rstrip()}\n\n{_per_node(result['per_node'])}" if "per_node" in result else shown


def _per_node(result: dict[str, Any]) -> str:
    """Tables of where the time goes: the most expensive modules as a tree, activations, operators."""
    modules = [group for group in result["by_module"] if group["share"] >= _LEAST_SHARE]
    rows = [{**group, "name": _indented(group["name"])} for group in modules[:_MOST_MODULES]]
    tables = [_shares("module", rows)]
    if len(modules) > len(rows):
        tables.append(f"… {len(modules) - len(rows)} more modules of {_LEAST_SHARE:.1%} or above: --json has all\n")
    tables += [_shares("activation", result["by_activation"]), _shares("operator", result["by_op"][:_MOST_OPERATORS])]
    return "\n".join(tables) + (
        f"\n{result['attributed']:.1%} of the kernels' time could be attributed; "
        f"the call itself takes {number(result['overhead_ms'])} ms; {result['runs']} profiled runs"
    )


def _shares(kind: str, groups: Sequence[dict[str, Any]]) -> str:
    table = _table(kind, "share", "ms", "kernels")
    for group in groups:
        table.add_row(group["name"], f"{group['share']:6.1%}", number(group["ms"]), str(group["kernels"]))
    return _render(table)


def _indented(module: str) -> str:
    depth = module.count(".")
    return "  " * depth + module


def comparison(rows: list[dict[str, Any]]) -> str:
    """A table of files, each set against the first."""
    table = _table("model", "latency_ms", "95 %", "against the first")
    for at, row in enumerate(rows):
        interval = f"{number(row['latency_low_ms'])} to {number(row['latency_high_ms'])}"
        table.add_row(row["model"], number(row["latency_ms"]), interval, _against(row) if at else "")
    doubts = dict.fromkeys(f"warning: {row['model']}: {text}" for row in rows for text in row["warnings"])
    return _render(table) + "\n".join(doubts)


def _against(row: dict[str, Any]) -> str:
    """The verdict that a comparison's interval allows."""
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    verdict = (
        f"{abs(ratio - 1):.1%} {'more' if ratio > 1 else 'less'} time" if row["different"] else "no difference seen"
    )
    return f"{verdict} (ratio {ratio:.4f}, {low:.4f} to {high:.4f})"


def optimization(result: dict[str, Any]) -> str:
    """A table of a file's rewritten activations, and the gain."""
    table = _table("activation", "sites", "was", "is now")
    deviations: dict[str, None] = {}
    for row in result["activations"]:
        same = not result["changed"] or row["before"] == row["after"]
        now = "the same" if same else row["after"] or "nothing"
        folded = ", its scales in the weights around it" if row["scales_folded"] and not same else ""
        table.add_row(row["activation"], str(row["sites"]), row["before"], now + folded)
        if not same:
            deviations.update(dict.fromkeys(f"{row['activation']}: {text}" for text in row["deviations"]))
    lines = [_render(table).rstrip()] if result["activations"] else []
    if result["pools"] and result["changed"]:
        lines.append(f"means over the image, now GlobalAveragePool: {result['pools']}")
    if result["changed"]:
        share = f"{result['ratio']:.3f} ({result['ratio_low']:.3f} to {result['ratio_high']:.3f})"
        lines.append(f"{1 / result['ratio']:.2f} times faster: {share} of its time")
        lines.append(f"outputs differ by at most {result['largest_difference']:.2g} of their largest value")
    else:
        lines.append(f"written as it was: {result['reason']}")
    lines += [f"deviation: {text}" for text in deviations]
    lines += [f"not looked at: {_skipped(row)}" for row in result["not_looked_at"]]
    lines += [f"note: {text}" for text in result["notes"]]
    return "\n".join([*lines, f"output:  {result['output']}"])


def _skipped(row: dict[str, Any]) -> str:
    """A line on skipped operators: their number, the reason, and the place of the first."""
    named = ", ".join(f"{count} {operator}" for operator, count in row["operators"].items())
    return f"{named}: {row['reason']} (the first: {row['first']})"


def prediction(result: dict[str, Any]) -> str:
    """A predicted latency with its interval and its source."""
    table = _table("", "")
    low, high = number(result["latency_low_ms"]), number(result["latency_high_ms"])
    table.add_row("latency_ms", f"{number(result['latency_ms'])}  ({low} to {high}, 90 %)")
    if result.get("measured_ms") is not None:
        table.add_row("measured_ms", number(result["measured_ms"]))
    table.add_row("predicted from", result["model"])
    return (_render(table) + "\n".join(f"warning: {text}" for text in result.get("warnings", ()))).rstrip()


def calibration(result: dict[str, Any]) -> str:
    """A cost model with its error on held-out blocks and its file."""
    table = _table("", "")
    table.add_row("cost model", result["model"])
    table.add_row("blocks timed in", f"{result['probe_seconds']:.0f} s")
    if result["held_out_median_error"] is not None:
        median, p90 = result["held_out_median_error"], result["held_out_p90_error"]
        table.add_row("error on held-out blocks", f"{median:.1%} median, {p90:.1%} at the 90th percentile")
    elif result["probe_seconds"] > 0:
        table.add_row("error on held-out blocks", "too few were timed to tell")
    predicted = [row for row in result["nets"] if "predicted_ms" in row]
    if predicted:
        shown = ", ".join(f"{number(row['predicted_ms'])} → {number(row['latency_ms'])}" for row in predicted)
        table.add_row("whole networks, ms", f"{shown} (as predicted before → as measured)")
    table.add_row("channels", result["channel_blocks"]["text"])
    table.add_row("file", result["file"])
    return _render(table)


def supernet_check(result: dict[str, Any]) -> str:
    """Correlations of inherited and other scores with trained accuracies, over all networks and the best tenth."""
    best = result["best"]["networks"]
    table = _table(
        f"ranks {len(result['rows'])} networks trained for {result['epochs']} epochs",
        "Spearman",
        "Kendall tau-b",
        f"Spearman, best {best}",
        "inherited is better by",
    )
    for name, found in result["all"].items():
        inside, ahead = result["best"][name], result["advantage_of_inherited"].get(name)
        cells = [_estimated(found and found["spearman"]), _estimated(found and found["kendall"])]
        cells += [_estimated(inside and inside["spearman"]), _estimated(ahead, "+") if name != "inherited" else ""]
        table.add_row(name.replace("_", " "), *cells)
    return _render(table) + "in brackets: 95 % intervals; too few: fewer than five networks, or all alike\n"


def _estimated(found: dict[str, Any] | None, sign: str = "") -> str:
    if found is None:
        return "too few"
    return f"{found['value']:{sign}.2f} ({found['low']:{sign}.2f} to {found['high']:{sign}.2f})"


def bench(result: dict[str, Any]) -> str:
    """Tables of strategies, device by device: means over seeds with their 95 % intervals, and the differences."""
    numbers, compared = [str(n) for n in result["report_at"]], result["comparisons"]
    parts = []
    for kind, digits in (("hypervolume", 3), ("regret", 4)):
        table = _table("device", "strategy", *[f"{kind} @{n}" for n in numbers], "ms / trial")
        for row in result["summary"]:
            cells = [_with_interval(row[kind][n], digits) for n in numbers]
            table.add_row(row["device"] or "mean", row["strategy"], *cells, number(1e3 * row["seconds_per_trial"]))
        parts.append(_render(table))
        if compared and compared[0][kind][numbers[0]]["low"] is not None:
            parts.append(_bench_differences(compared, kind, digits, numbers))
    parts += _bench_proxies(result["summary"])
    return "\n".join([*parts, f"page:    {result['page']}"])


def _bench_proxies(rows: list[dict[str, Any]]) -> list[str]:
    """The seconds that zero-cost scores took, for strategies that ask for some."""
    first = [row for row in rows if row["device"] == rows[0]["device"]]
    seconds_of = {row["strategy"]: row["proxy_seconds"] for row in first if "proxy_seconds" in row}
    lines = [f"  {strategy}: {number(seconds)} s" for strategy, seconds in seconds_of.items()]
    return ["\n".join(["zero-cost scores of all candidates, as published, a search:", *lines])] if lines else []


def _bench_differences(rows: list[dict[str, Any]], kind: str, digits: int, numbers: list[str]) -> str:
    """A table of all strategies against the first, over all devices together; the page has each device."""
    table = _table(f"more than {rows[0]['against']}", *[f"{kind} @{n}" for n in numbers])
    for row in rows:
        if row["device"] == rows[0]["device"]:
            marks = ["*" if row[kind][n]["different"] else "" for n in numbers]
            cells = [_with_interval(row[kind][n], digits, "+") for n in numbers]
            table.add_row(row["strategy"], *[cell + mark for cell, mark in zip(cells, marks, strict=True)])
    return _render(table) + "* compared seed by seed, the interval excludes 0\n"


def _with_interval(value: dict[str, Any], digits: int, sign: str = "") -> str:
    if value["low"] is None:
        return f"{value['mean']:{sign}.{digits}f}"
    return f"{value['mean']:{sign}.{digits}f} ± {value['high'] - value['mean']:.{digits}f}"


def listing(rows: dict[str, str]) -> str:
    """Lines of a name and its description."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {description}" for name, description in rows.items())


def doctor(result: dict[str, Any]) -> str:
    """A table with one line an examination, and the verdict."""
    table = _table("", "", "")
    for row in result["checks"]:
        table.add_row(row["name"], {True: "ok", False: "FAILED", None: "–"}[row["ok"]], row["detail"])
    return _render(table) + ("ready" if result["ok"] else "something that every search needs is missing")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _render(table: Table) -> str:
    out = io.StringIO()
    terminal = Console()
    width = max(terminal.width, _WIDTH) if terminal.is_terminal else 200
    # A name in square brackets is a name, and no markup.
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
