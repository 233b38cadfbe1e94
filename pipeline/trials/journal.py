"""The journal: every finished trial of a run in SQLite, written in one transaction before the strategy gets it."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.errors import JournalError
from pipeline.files import replacing
from pipeline.trials.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.spaces.base import Architecture

Status = Literal["ok", "infeasible", "failed"]
_SCHEMA_VERSION = 1
_SYNC_EVERY_S = 0.1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
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
);
"""


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial.

    Attributes:
        number: 0, 1, … in the order in which trials ended.
        id: of the architecture.
        score: that the strategy got; higher is better.
        objectives: metric → value, as far as known.
        started: ISO 8601, UTC.
        seconds: duration of the trial.
        elapsed_s: search time spent when it ended, over all sessions of the run.
        error: the reason of its failure; None otherwise.
        details: the measurement with its interval and warnings, the broken limits, the training seed.
    """

    number: int
    id: str
    architecture: Architecture
    status: Status
    score: float
    objectives: dict[str, float]
    started: str
    seconds: float
    elapsed_s: float
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Journal:
    """A run's trials on disk. One process writes; others may read.

    Order of calls: `Journal.create` or `Journal.open`, then `append` for each finished trial, `close` at the end.
    Commands that only look call `Journal.open_for_reading`, then `trials` and `close`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, snapshot: Snapshot | None = None) -> None:
        self._connection, self._snapshot = connection, snapshot
        self.path = path
        self._synced_s = -math.inf

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str], objectives: Sequence[str] = ()) -> Journal:
        """Create an empty journal, whole or not at all.

        Args:
            path: the file.
            meta: facts on the run, such as config digest and versions.
            objectives: that every trial with status ok must have.
        """
        with replacing(path) as unfinished:
            unfinished.unlink(missing_ok=True)
            connection = sqlite3.connect(unfinished, isolation_level=None)
            _lay_out(connection, meta, objectives)
            connection.close()
        return cls.open(path)

    @classmethod
    def in_memory(cls, objectives: Sequence[str] = ()) -> Journal:
        """Create an empty journal in memory, for searches that are quicker to run again than to keep."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _lay_out(connection, {}, objectives)
        return cls(connection, Path(":memory:"))

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open an existing journal to go on with it.

        Raises:
            JournalError: it is missing, damaged, or of another version.
        """
        with _opening(path):
            connection = _connect(path)
            _check(connection, path)
        return cls(connection, path)

    @classmethod
    def open_for_reading(cls, path: Path) -> Journal:
        """Open a journal to look at it as it is now, what a killed search left in its log included.

        No lock is taken, and nothing is written beside it: it may lie on a read-only medium, or be somebody else's.

        Raises:
            JournalError: it is missing, damaged, or of another version.
        """
        with _opening(path):
            snapshot = Snapshot(path)
            try:
                _check(snapshot.connection, path)
            except BaseException:
                snapshot.close()
                raise
        return cls(snapshot.connection, path, snapshot)

    def meta(self) -> dict[str, str]:
        """The facts that the journal was created with."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def append(self, record: TrialRecord) -> None:
        """Add one finished trial; once this returns, a kill of this process can't lose it.

        It is on the disk, too, unless another one was written there less than 0.1 s ago: then it gets there with the
        next one or at `close`. So a power cut costs that much search time at most, and quick trials needn't wait for
        the disk.

        Raises:
            JournalError: the architecture is already there, or it can't be written.
        """
        if not all(math.isfinite(value) for value in [record.score, *record.objectives.values()]):
            raise JournalError(f"{self.path}: trial {record.id} has a score or an objective that is no number")
        row = (
            record.number,
            record.id,
            json.dumps(record.architecture),
            record.status,
            record.score,
            json.dumps(record.objectives),
            json.dumps(record.details),
            record.error,
            record.started,
            record.seconds,
            record.elapsed_s,
        )
        now_s = time.monotonic()
        sync = now_s - self._synced_s >= _SYNC_EVERY_S
        try:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            with _transaction(self._connection):
                self._connection.execute(f"INSERT INTO trials VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: trial {record.id} can't be recorded: {error}") from error
        if sync:
            self._synced_s = now_s

    def trials(self) -> list[TrialRecord]:
        """All trials, in the order in which they ended.

        Raises:
            JournalError: a row can't be read.
        """
        try:
            rows = self._connection.execute(
                "SELECT number, id, architecture, status, score, objectives, details, error, started, seconds,"
                " elapsed_s FROM trials ORDER BY number"
            ).fetchall()
            records = [_record(row) for row in rows]
            wanted = set(json.loads(self.meta().get("objectives", "[]")))
            for record in records:
                if record.status == "ok" and not wanted <= record.objectives.keys():
                    raise ValueError(f"trial {record.id} lacks {', '.join(sorted(wanted - record.objectives.keys()))}")
            return records
        except (sqlite3.Error, ValueError, TypeError) as error:
            if self._snapshot is not None and not self._snapshot.is_current():
                raise JournalError(f"{self.path}: the journal was written while it was read; look again") from error
            raise JournalError(f"{self.path}: the journal is damaged: {error}") from error

    def close(self) -> None:
        """Fold the write-ahead log into the file, unless it was only looked at."""
        if self._snapshot is not None:
            self._snapshot.close()
        else:
            self._connection.close()


class _transaction:  # noqa: N801 - reads as a statement
    """A transaction of the database, rolled back on an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")


def _lay_out(connection: sqlite3.Connection, meta: Mapping[str, str], objectives: Sequence[str]) -> None:
    """Create the tables, and write the facts, of a new journal."""
    with _transaction(connection):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        rows = {**meta, "schema_version": str(_SCHEMA_VERSION), "objectives": json.dumps(list(objectives))}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a journal is opened into a `JournalError`."""
    if not path.is_file():
        raise JournalError(f"{path}: there is no journal")
    try:
        yield
    except OSError as error:
        raise JournalError(f"{path}: the journal can not be read: {error.strerror or error}") from error
    except sqlite3.Error as error:
        # A full disk or a file that can't be opened is no damage; a table that isn't there is.
        refused = isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error)
        raise JournalError(f"{path}: the journal {'can not be used' if refused else 'is damaged'}: {error}") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Check that a database is a journal, whole, and of the version that is read here."""
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise JournalError(f"{path}: the journal is damaged: {fault}")
    if version is None or version[0] != str(_SCHEMA_VERSION):
        found = version[0] if version else "none"
        raise JournalError(f"{path}: journal version {found}; this hwnas reads version {_SCHEMA_VERSION}")


def _record(row: tuple[Any, ...]) -> TrialRecord:
    number, identity, architecture, status, score, objectives, details, error, started, seconds, elapsed_s = row
    if status not in get_args(Status):
        raise ValueError(f"trial {identity} has status {status!r}")
    parsed = {"architecture": architecture, "objectives": objectives, "details": details}
    values = {name: json.loads(text) for name, text in parsed.items()}
    for name, value in values.items():
        if not isinstance(value, dict):
            raise ValueError(f"{name} of trial {identity} is no mapping")
    known = values["objectives"]
    if not all(isinstance(v, float | int) and math.isfinite(v) for v in known.values()):
        raise ValueError(f"an objective of trial {identity} is no number")
    return TrialRecord(
        number=number,
        id=identity,
        status=status,
        score=score,
        **values,
        error=error,
        started=started,
        seconds=seconds,
        elapsed_s=elapsed_s,
    )
