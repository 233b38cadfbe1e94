"""What the system says when something can't be written, or isn't where it was."""

from __future__ import annotations

import errno
import re
import sqlite3
from typing import TYPE_CHECKING

from pipeline.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

READ_ONLY = "it is read-only"

_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: READ_ONLY,
    errno.EIO: "the disk has an error",
}
_SQLITE_REFUSALS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk has an error, or no room",
    sqlite3.SQLITE_READONLY: READ_ONLY,
}
_SYSTEM_NUMBER = re.compile(r"\(os error (\d+)\)")  # as safetensors, written in Rust, names the system's errors

Identity = tuple[int, int]


def refusal(error: BaseException | None) -> str | None:
    """Say why the system refused to write, where an error, or the one that it came from, tells that; else None.

    That is the machine's state, and no fault of what was to be written: a full disk, a quota, a read-only medium.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := _own_refusal(error):
            return found
        error = error.__cause__ or error.__context__
    return None


def _own_refusal(error: BaseException) -> str | None:
    if isinstance(error, StorageError):
        return error.reason
    if isinstance(error, OSError):
        return _REFUSALS.get(error.errno or 0)
    if isinstance(error, sqlite3.Error):
        return _SQLITE_REFUSALS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    numbers = _SYSTEM_NUMBER.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return _REFUSALS.get(int(numbers[1])) if numbers else None


def identity(path: Path) -> Identity | None:
    """Device and number of the file or folder at a place; None where there is none."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino
