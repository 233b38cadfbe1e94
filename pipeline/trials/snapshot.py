"""A journal as it is now, for commands that only look: nothing is locked, and nothing is written beside it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from pipeline.errors import JournalError

_LOG, _ROLLBACK = "-wal", "-journal"
"""SQLite's files beside a database that is in use, or that a killed process left: parts of its content."""

_TRIES, _PAUSE_S = 50, 0.1
_LOG_HEADER_BYTES = 32  # changes whenever SQLite begins the log anew

Stamp = tuple[object, ...]


class Snapshot:
    """A database at one moment, open to be read.

    SQLite itself can't do that: to read a database with a write-ahead log it makes files beside it, and with
    `immutable` it leaves the log's content out. So a database that has such files is copied, together with them, to a
    temporary folder; any other one is read in its place.

    Args:
        path: an existing file.

    Attributes:
        connection: for reading alone.

    Raises:
        JournalError: it is written so often that no copy of one moment was to be had.
        OSError: it can't be read, or there is no room for the copy.
        sqlite3.Error: it is no database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()  # as SQLite does: the other files lie where the database really is
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stamp = _stamp(self._path)
        if _beside(self._path):
            self._folder = tempfile.TemporaryDirectory(prefix="hwnas-journal-")
            try:
                where = f"{_copied(self._path, Path(self._folder.name)).as_uri()}?mode=rw"  # the log is taken in
                self.connection = sqlite3.connect(where, uri=True, isolation_level=None)
                self.connection.execute("PRAGMA query_only=ON")
            except BaseException:
                self._folder.cleanup()
                raise
        else:
            with self._path.open("rb"):  # says why, where SQLite says that it is "unable to open"
                pass
            self.connection = sqlite3.connect(f"{self._path.as_uri()}?immutable=1", uri=True, isolation_level=None)

    def is_current(self) -> bool:
        """Whether what is read is still of one moment: a copy always is."""
        return self._folder is not None or _stamp(self._path) == self._stamp

    def close(self) -> None:
        """Close the connection, and remove the copy."""
        self.connection.close()
        if self._folder is not None:
            self._folder.cleanup()


def _beside(path: Path) -> list[Path]:
    """The files beside a database that hold parts of its content."""
    found = [path.with_name(path.name + suffix) for suffix in (_LOG, _ROLLBACK)]
    return [each for each in found if each.is_file() and each.stat().st_size > 0]


def _copied(path: Path, folder: Path) -> Path:
    """Copy a database, with the files beside it, as of one moment.

    A search that goes on appends to the log, which does no harm: a part of a transaction is left out. Now and then it
    folds the log into the database; a copy during which that happened is made again.
    """
    for _ in range(_TRIES):
        before = _stamp(path)
        for each in (path, *_beside(path)):
            shutil.copyfile(each, folder / each.name)
        if _stamp(path) == before:
            return folder / path.name
        for each in folder.iterdir():
            each.unlink()
        time.sleep(_PAUSE_S)
    raise JournalError(f"{path}: the journal is written all the time; look again when there is less going on")


def _stamp(path: Path) -> Stamp:
    """A mark that changes when the database does, or when its log is begun anew."""
    seen = path.stat()
    log = path.with_name(path.name + _LOG)
    header = b""
    if log.is_file():
        with log.open("rb") as file:
            header = file.read(_LOG_HEADER_BYTES)
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, header
