"""The journal: every finished trial of a run in SQLite, written in one transaction before the strategy gets it."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import JournalError, RunGoneError, StorageError
from pipeline.files import replacing
from pipeline.storage import refusal
from pipeline.trials.database import Place, abandon, check_database, connect, lay_out, opening, transaction
from pipeline.trials.row import COLUMNS, Status, checked, finite
from pipeline.trials.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.spaces.base import Architecture

_SYNC_EVERY_S = 0.1
_FACTS = TypeAdapter(dict[str, str])
_NAMES = TypeAdapter(list[str])


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

    @property
    def submitted(self) -> int:
        """Number of trials that the strategy asked for before this one: where several run, another order than theirs.

        It follows from config and seed, while the order in which trials end is the clock's.
        """
        return int(self.details.get("submission", {}).get("number", self.number))


class Journal:
    """A run's trials on disk. One process writes; others may read.

    Order of calls: `Journal.create` or `Journal.open`, then `append` for each finished trial, `close` at the end.
    Commands that only look call `Journal.open_for_reading`, then `trials` and `close`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        place: Place | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._connection, self._place, self._snapshot = connection, place, snapshot
        self.path = path
        self._synced_s = -math.inf
        self._read: tuple[TrialRecord, ...] | None = None  # as long as nothing is added

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str], objectives: Sequence[str] = ()) -> Journal:
        """Create an empty journal, whole or not at all.

        Args:
            path: the file.
            meta: facts on the run, such as config digest and versions.
            objectives: that every trial with status ok must have.
        """
        with opening(path, must_exist=False), replacing(path) as unfinished:
            unfinished.unlink(missing_ok=True)
            connection = sqlite3.connect(unfinished, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")  # for good: no rollback journal ever lies beside it
                lay_out(connection, meta, objectives)
            finally:
                connection.close()
        return cls.open(path)

    @classmethod
    def in_memory(cls, objectives: Sequence[str] = ()) -> Journal:
        """Create an empty journal in memory, for searches that are quicker to run again than to keep."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        lay_out(connection, {}, objectives)
        return cls(connection, Path(":memory:"))

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open an existing journal to go on with it.

        Raises:
            JournalError: it is missing, damaged, or of another version.
            StorageError: nothing can be written there.
        """
        with opening(path):
            connection = connect(path)
            try:
                check_database(connection, path)
            except BaseException:
                connection.close()
                raise
            return cls(connection, path, place=Place(path))

    @classmethod
    def open_for_reading(cls, path: Path) -> Journal:
        """Open a journal to look at it as it is now, what a killed search left in its log included.

        No lock is taken, and nothing is written beside it: it may lie on a read-only medium, or be somebody else's.

        Raises:
            JournalError: it is missing, damaged, or of another version.
        """
        with opening(path):
            snapshot = Snapshot(path)
            try:
                check_database(snapshot.connection, path)
            except BaseException:
                snapshot.close()
                raise
        return cls(snapshot.connection, path, snapshot=snapshot)

    def meta(self) -> dict[str, str]:
        """The facts that the journal was created with.

        Raises:
            JournalError: they can't be read.
        """
        try:
            return _FACTS.validate_python(dict(self._connection.execute("SELECT key, value FROM meta")), strict=True)
        except ValidationError as error:
            raise JournalError(f"{self.path}: the journal is damaged: meta holds more than texts") from error
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged(error) from error

    def append(self, record: TrialRecord) -> None:
        """Add one finished trial; once this returns, a kill of this process can't lose it.

        It is on the disk, too, unless another one was written there less than 0.1 s ago: then it gets there with the
        next one or at `close`. So a power cut costs that much search time at most, and quick trials needn't wait for
        the disk.

        Raises:
            JournalError: the architecture is already there, or it can't be written.
            RunGoneError: the journal isn't where it was.
            StorageError: the disk is full or refuses otherwise; the trial isn't in the journal.
        """
        self.check_present()
        if not all(math.isfinite(value) for value in [record.score, *record.objectives.values()]):
            raise JournalError(f"{self.path}: trial {record.id} has a score or an objective that is no number")
        row = (
            record.number,
            record.id,
            json.dumps(record.architecture),
            record.status,
            record.score,
            json.dumps(record.objectives),
            _json(record.details),
            record.error,
            record.started,
            record.seconds,
            record.elapsed_s,
        )
        self._read = None
        now_s = time.monotonic()
        sync = now_s - self._synced_s >= _SYNC_EVERY_S
        try:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            with transaction(self._connection):
                self._connection.execute(f"INSERT INTO trials VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
        except sqlite3.Error as error:
            self.check_present()
            said = f"{self.path}: trial {record.id} can't be recorded: "
            if words := refusal(error):
                raise StorageError(f"{said}{words}", words) from error
            raise JournalError(f"{said}{error}") from error
        if sync:
            self._synced_s = now_s
        if self._place is not None:
            self._place.note_written()
            self.check_present()

    def check_present(self) -> None:
        """Check that the journal is where it was opened: what is written elsewhere nobody would find.

        Raises:
            RunGoneError: it was deleted, moved or replaced, or its log was.
        """
        if self._place is not None and (fault := self._place.fault()):
            raise RunGoneError(f"{self.path}: {fault}")

    def __len__(self) -> int:
        """The number of trials."""
        try:
            return int(self._connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def read(self) -> Iterator[TrialRecord]:
        """Yield all trials, in the order in which they ended, without having all of them in memory.

        Raises:
            JournalError: a row can't be read, or isn't what it has to be.
        """
        wanted = self._objectives()
        try:
            rows = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM trials ORDER BY number")  # noqa: S608
            for number, row in enumerate(rows):
                record = TrialRecord(**checked(row))
                if record.number != number:
                    raise ValueError(f"trial {number} is missing")
                if record.status == "ok" and not wanted <= record.objectives.keys():
                    raise ValueError(f"trial {number} lacks {', '.join(sorted(wanted - record.objectives.keys()))}")
                yield record
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged(error) from error

    def trials(self) -> list[TrialRecord]:
        """All trials, in the order in which they ended.

        Raises:
            JournalError: a row can't be read, or isn't what it has to be.
        """
        if self._read is None:
            self._read = tuple(self.read())
        return list(self._read)

    def _objectives(self) -> set[str]:
        """Names of the objectives that every trial with status ok has."""
        try:
            return set(_NAMES.validate_json(self.meta().get("objectives", "[]"), strict=True))
        except ValidationError as error:
            raise JournalError(f"{self.path}: the journal is damaged: meta: objectives are no list of names") from error

    def _damaged(self, error: Exception) -> JournalError:
        if self._snapshot is not None and not self._snapshot.is_current():
            return JournalError(f"{self.path}: the journal was written while it was read; look again")
        return JournalError(f"{self.path}: the journal is damaged: {error}")

    def close(self) -> None:
        """Fold the write-ahead log into the file, unless it was only looked at."""
        if self._snapshot is not None:
            self._snapshot.close()
        elif self._place is not None and self._place.fault():
            abandon(self._connection)
        else:
            self._connection.close()


def _json(details: Mapping[str, Any]) -> str:
    """Details as JSON; numbers in them that JSON doesn't have are left out."""
    try:
        return json.dumps(details, allow_nan=False)
    except ValueError:
        return json.dumps(finite(details), allow_nan=False)
