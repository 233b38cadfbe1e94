"""The trials of a run as text, piece by piece: a table for people, CSV or JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pipeline.commands.trials import FrontSearch
from pipeline.report.text import number, remark
from pipeline.trials.result import is_stopped, scored_by
from pipeline.trials.row import finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.commands.trials import TrialReader
    from pipeline.trials.journal import TrialRecord

_METRICS = ("accuracy", "latency_ms", "macs", "params", "size_mb", "peak_memory_mb")
_HEADS = ("id", "status", *_METRICS, "front", "s", "remark")
_FRONT = _HEADS.index("front")
_WIDTH, _LEAST_WIDTH, _LEAST_REMARK = 200, 120, 24
_AT_ONCE = 1000
_FORMULA, _NUMBER = re.compile(r"\s*[=+@-]."), re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_BETWEEN = "\x1f"  # no cell holds it: what is kept of a trial is one text, a tenth of its cells' size in memory


class TrialTable:
    """A table of trials in the order in which they ended, and a line that sums them up."""

    def __init__(self, objectives: Sequence[str]) -> None:
        self._front = FrontSearch(objectives)
        self._rows: list[str] = []
        self._widths = [len(head) for head in _HEADS]
        self._counts: Counter[str] = Counter()
        self._scores: dict[str, None] = {}

    def add(self, record: TrialRecord) -> None:
        """Take in one trial."""
        details, values = record.details, record.objectives
        shown = [number(values[name]) if name in values else "" for name in _METRICS]
        if details.get("latency", {}).get("source") == "predicted":
            shown[1] = f"~{shown[1]}"
            self._counts["predicted"] += 1
        said = remark({"error": record.error, "details": details}).replace(_BETWEEN, " ")
        cells = [record.id, record.status, *shown, "", f"{record.seconds:.1f}", said]
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        self._rows.append(_BETWEEN.join(cells))
        self._front.add(record)
        self._counts[record.status] += 1
        self._counts["stopped"] += is_stopped(details)
        if scores := scored_by(details):
            self._scores[scores] = None

    def pieces(self) -> Iterator[str]:
        """Yield the table in pieces of many lines."""
        front, before = self._front.numbers(), sum(self._widths[:-1]) + 2 * (len(_HEADS) - 1)
        room = max(_LEAST_REMARK, _width() - before)
        lines = self._lines(front, room)
        while piece := list(islice(lines, _AT_ONCE)):
            yield "".join(f"{line}\n" for line in piece)

    def _lines(self, front: set[int], room: int) -> Iterator[str]:
        yield self._line(_HEADS)
        for at, row in enumerate(self._rows):
            cells = row.split(_BETWEEN)
            cells[_FRONT] = "*" if at in front else ""
            if len(cells[-1]) <= room and cells[-1].isascii() and "\n" not in cells[-1]:
                yield self._line(cells)
                continue
            first, *more = _folded(cells[-1], room)
            yield self._line([*cells[:-1], first])
            yield from (self._line(["" for _ in _HEADS[:-1]] + [part]) for part in more)
        yield self._sum()

    def _line(self, cells: Sequence[str]) -> str:
        padded = map(str.ljust, cells[:-1], self._widths[:-1])
        return "  ".join([*padded, cells[-1]]).rstrip()

    def _sum(self) -> str:
        counted = ", ".join(f"{self._counts[status]} {status}" for status in ("ok", "infeasible", "failed"))
        counted += "; ~ predicted, not measured" if self._counts["predicted"] else ""
        counted += f"; of them {self._counts['stopped']} stopped early" if self._counts["stopped"] else ""
        scores = ", ".join(self._scores)
        return counted + (f"; in place of an accuracy: a score from 0 to 1 by {scores}" if scores else "")


def as_table(reader: TrialReader) -> Iterator[str]:
    """Yield a table of trials in pieces, once all of them have been looked at."""
    made = TrialTable(reader.objectives)
    for record in reader.records():
        made.add(record)
    yield from made.pieces()


def as_json(reader: TrialReader) -> Iterator[str]:
    """Yield a JSON list of trials in pieces, the same as `json.dumps` makes of all of them."""
    empty = True
    for row in reader.documents():
        yield ("[" if empty else ",") + "\n  " + _json(row).replace("\n", "\n  ")
        empty = False
    yield "[]\n" if empty else "\n]\n"


def _json(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, indent=2, allow_nan=False)
    except ValueError:  # details may hold numbers beyond any float, such as 1e999
        return json.dumps(finite(row), indent=2, allow_nan=False)


def as_csv(reader: TrialReader) -> Iterator[str]:
    """Yield trials as comma-separated values in pieces; one column a metric, one a choice."""
    metrics: dict[str, None] = {}
    labels: set[str] = set()

    def look(record: TrialRecord) -> None:
        metrics.update(dict.fromkeys(record.objectives))
        labels.update(record.architecture)

    rows = reader.documents(look)
    fixed, sorted_labels = ["id", "status", "on_front", "started", "seconds", "error"], sorted(labels)
    yield _csv_line([*fixed, "stopped_after", *metrics, *sorted_labels])
    for row in rows:
        values = [*(row[key] for key in fixed), row["details"].get("stopped_after")]
        values += [row["objectives"].get(name) for name in metrics]
        yield _csv_line(values + [row["architecture"].get(label) for label in sorted_labels])


def _csv_line(values: Sequence[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_as_text(value) if isinstance(value, str) else value for value in values])
    return out.getvalue()


def _as_text(value: str) -> str:
    """A cell that a spreadsheet takes as text: it would run one that begins like a formula."""
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def _width() -> int:
    terminal = Console()
    return max(terminal.width, _LEAST_WIDTH) if terminal.is_terminal else _WIDTH


def _folded(text: str, room: int) -> list[str]:
    """A cell's lines; wide letters take two places."""
    lines = [part for line in text.splitlines() or [""] for part in _wrapped(line, room)]
    return lines or [""]


def _wrapped(line: str, room: int) -> list[str]:
    if cell_len(line) <= room:
        return [line]
    console = Console(file=io.StringIO(), width=room)
    return [part.plain.rstrip() for part in Text(line).wrap(console, room, overflow="fold")]
