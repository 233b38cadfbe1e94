"""Reading journals of runs that were killed: from a copy, so that looking at one repairs nothing."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


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


def changed(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """Ids of trials that are gone, moved, or differ in any column."""
    return [row["id"] for index, row in enumerate(before) if index >= len(after) or after[index] != row]
