"""The file of a journal: its tables, how it is opened and checked, and whether it is still where it was."""

from __future__ import annotations

import ctypes
import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import JournalError, StorageError
from pipeline.storage import identity, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SCHEMA_VERSION = 1
_LARGEST_VALUE = 16_000_000
"""Bytes of a text in a journal: far above anything that is written, and far below what would fill the memory."""
_LARGEST_FILE = 4 * 10**9
"""Bytes, of some million trials."""
_TABLES = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "trials": """CREATE TABLE trials (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        architecture TEXT NOT NULL,
        status TEXT NOT NULL,
        score REAL NOT NULL,
        objectives TEXT NOT NULL,
        details TEXT NOT NULL,
        error TEXT,
        started TEXT NOT NULL,
        seconds REAL NOT NULL,
        elapsed_s REAL NOT NULL
    )""",
}
_OWN_PARTS = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"


def lay_out(connection: sqlite3.Connection, meta: Mapping[str, str], objectives: Sequence[str]) -> None:
    """Create the tables, and write the facts, of a new journal."""
    with transaction(connection):
        for statement in _TABLES.values():
            connection.execute(statement)
        rows = {**meta, "schema_version": str(_SCHEMA_VERSION), "objectives": json.dumps(list(objectives))}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def connect(path: Path) -> sqlite3.Connection:
    """Open a database to be written; `check_database` has to look at it before it is used."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


@contextmanager
def opening(path: Path, *, must_exist: bool = True) -> Iterator[None]:
    """Turn what goes wrong while a journal is opened or created into an error that says what it is."""
    if must_exist and not path.is_file():
        raise JournalError(f"{path}: there is no journal")
    _check_files(path)
    try:
        yield
    except OSError as error:
        if words := refusal(error):
            raise StorageError(f"{error.filename2 or error.filename or path}: {words}", words) from error
        raise JournalError(f"{path}: the journal can not be used: {error.strerror or error}") from error
    except sqlite3.Error as error:
        if words := refusal(error):
            raise StorageError(f"{path}: {words}", words) from error
        # A file that can't be opened or is locked is no damage; a table that isn't there is.
        refused = isinstance(error, sqlite3.OperationalError) and "no such" not in str(error)
        raise JournalError(f"{path}: the journal {'can not be used' if refused else 'is damaged'}: {error}") from error


def _check_files(path: Path) -> None:
    """Refuse files that would fill disk or memory, and a rollback journal beside a database.

    SQLite would do what that says, and delete a file that it names. None is ever left here: a journal has a
    write-ahead log from the moment when it is there.

    Raises:
        JournalError: there is one, or one of the files is huge.
    """
    for each in (path, path.with_name(path.name + "-wal")):
        if each.is_file() and each.stat().st_size > _LARGEST_FILE:
            raise JournalError(f"{each}: it has {each.stat().st_size:,} bytes, more than a journal ever has")
    rollback = path.with_name(path.name + "-journal")
    if rollback.is_symlink() or (rollback.exists() and rollback.stat().st_size > 0):
        raise JournalError(
            f"{rollback}: hwnas leaves no such file beside a journal, and SQLite would change files as it says; "
            "delete it to use the journal without it"
        )


def check_database(connection: sqlite3.Connection, path: Path) -> None:
    """Check that a database is a journal, whole, and of the version that is read here.

    One that somebody else made may hold anything: statements that run when it is read or written, for example.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
    connection.execute("PRAGMA trusted_schema=OFF")
    found = {name: _plain(text or "") for name, text in connection.execute(_OWN_PARTS)}
    wanted = {name: _plain(text) for name, text in _TABLES.items()}
    if found.get("meta") != wanted["meta"]:
        raise JournalError(f"{path}: the journal is damaged: it has no table meta of the right form")
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if version is None or version[0] != str(_SCHEMA_VERSION):
        told = str(version[0])[:20] if version else "none"
        raise JournalError(f"{path}: journal version {told}; this hwnas reads version {_SCHEMA_VERSION}")
    if found.get("trials") != wanted["trials"]:
        raise JournalError(f"{path}: the journal is damaged: it has no table trials of the right form")
    if more := found.keys() - wanted.keys():
        raise JournalError(f"{path}: the journal is damaged: {sorted(more)[0]!r} is no part of a journal")
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise JournalError(f"{path}: the journal is damaged: {fault}")


def _plain(statement: str) -> str:
    """A statement as it can be compared: SQLite keeps it as it was written."""
    return "".join(statement.split())


class transaction:  # noqa: N801 - reads as a statement
    """A transaction of the database, rolled back on an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # a full disk may make SQLite roll back by itself
                self._connection.execute("ROLLBACK")


class Place:
    """Where a journal's files were when it was opened, to see whether they still are."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, path.with_name(path.name + "-wal")
        self._own, self._own_log = identity(path), identity(self._log)
        self._size = path.stat().st_size

    def note_written(self) -> None:
        """Take over what writing itself changes: the log comes into being, the file grows."""
        if self._own_log is None:
            self._own_log = identity(self._log)
        if identity(self._path) == self._own:
            self._size = self._path.stat().st_size

    def fault(self) -> str:
        """The files' change in words; empty where they are as they were."""
        now = identity(self._path)
        if now is None:
            return "the journal isn't there any more: it was deleted or moved while it was used"
        if now != self._own or self._path.stat().st_size < self._size:
            return "another file took the journal's place while it was used"
        if self._own_log is not None and identity(self._log) != self._own_log:
            return f"the journal's log {self._log.name} was deleted or replaced while it was used"
        return ""


def abandon(connection: sqlite3.Connection) -> None:
    """Leave a connection to the system, which closes its files when this process ends.

    SQLite itself, when it closes a database, deletes the log *by its name*: where another journal took this one's
    place, that would be the other one's log, with trials in it. It does so too when the object is collected, hence the
    reference that is never given back.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
