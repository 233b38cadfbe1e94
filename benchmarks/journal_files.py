"""Reading journals of runs that were killed: from a copy, so that looking at one repairs nothing."""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_LASTING = ("number", "id", "architecture", "status", "score", "objectives", "error")


def journal_rows(path: Path) -> list[Row]:
    """All rows of a journal's file and its write-ahead log, as text; none where there is no journal yet."""
    if not path.exists():
        return []
    with tempfile.TemporaryDirectory() as name:
        for source in (path, path.with_name(f"{path.name}-wal")):
            if source.exists():
                shutil.copy(source, name)
        with contextlib.closing(sqlite3.connect(Path(name) / path.name)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM trials ORDER BY number")]


def changed(before: list[Row], after: list[Row]) -> list[str]:
    """Ids of trials that are gone, moved, or differ in any column."""
    return [row["id"] for index, row in enumerate(before) if index >= len(after) or after[index] != row]


def in_order(rows: list[Row]) -> list[Row]:
    """The rows in the order in which the strategy asked for them, and numbered so: it doesn't depend on a clock."""
    numbered = [{**row, "number": submitted(row)} for row in rows]
    return sorted(numbered, key=lambda row: int(row["number"]))


def submitted(row: Row) -> int:
    """Number of trials that the strategy asked for before this one."""
    return int(json.loads(row["details"]).get("submission", {}).get("number", row["number"]))


def counted(rows: list[Row]) -> int:
    """Number of trials that the budget counts."""
    return sum(row["status"] != "infeasible" for row in rows)


def lasting(row: Row, *measured: str) -> Row:
    """The part of a row that every run of the config has: all but times and objectives that a clock measured."""
    objectives = json.loads(row["objectives"])
    kept = {name: value for name, value in objectives.items() if name not in measured}
    return {**{name: row[name] for name in _LASTING}, "objectives": kept}


def differing(rows: list[Row], wanted: list[Row], *measured: str) -> int:
    """Number of trials that aren't those of another run, as far as both go."""
    return sum(lasting(a, *measured) != lasting(b, *measured) for a, b in zip(rows, wanted, strict=False))
