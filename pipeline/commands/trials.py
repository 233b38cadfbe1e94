"""A run's trials one by one, for commands that show them: a run may have a hundred thousand."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.run import RunDirectory
from pipeline.trials.objectives import as_losses, pareto_front
from pipeline.trust import given_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.trials.journal import Journal, TrialRecord

_BATCH = 1000


class TrialReader:
    """Reads a run's trials from its journal, each time that they are asked for, without keeping them in memory.

    Args:
        journal: open; all that is read is checked.
        objectives: of the run.

    Attributes:
        objectives: of the run.
    """

    def __init__(self, journal: Journal, objectives: Sequence[str]) -> None:
        self._journal, self.objectives = journal, tuple(objectives)

    def records(self) -> Iterator[TrialRecord]:
        """Yield the trials in the order in which they ended.

        Raises:
            JournalError: the journal is damaged.
        """
        return self._journal.read()

    def documents(self, look: Callable[[TrialRecord], None] = lambda record: None) -> Iterator[dict[str, Any]]:
        """Return the trials as `hwnas trials --json` shows them, one by one, after a look at all of them.

        Args:
            look: is given each trial at that first look.

        Raises:
            JournalError: the journal is damaged.
        """
        front = FrontSearch(self.objectives)
        for record in self.records():
            front.add(record)
            look(record)
        on_front = front.numbers()
        return (document_of(record, record.number in on_front) for record in self.records())


class FrontSearch:
    """Finds the Pareto front of trials that come one by one, keeping their losses alone."""

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._rows: list[dict[str, float]] = []
        self._numbers: list[int] = []
        self._losses = np.empty((0, len(self._objectives)))

    def add(self, record: TrialRecord) -> None:
        """Take one trial into account."""
        if record.status == "ok":
            self._rows.append(record.objectives)
            self._numbers.append(record.number)
            if len(self._rows) == _BATCH:
                self._thin_out()

    def numbers(self) -> set[int]:
        """The numbers of the trials on the front, so far."""
        self._thin_out()
        return set(self._numbers)

    def _thin_out(self) -> None:
        """Keep the front: what is dominated now stays so. Of equal trials the first stays, as in `pareto_front`."""
        fresh = as_losses(self._rows, self._objectives)
        dominated = np.any(np.all(self._losses[None] <= fresh[:, None], axis=2), axis=1)
        losses, numbers = np.vstack([self._losses, fresh]), np.array(self._numbers, dtype=np.int64)
        left = np.concatenate([np.ones(len(self._losses), dtype=bool), ~dominated])
        losses, numbers = losses[left], numbers[left]
        front = pareto_front(losses)
        self._losses, self._numbers, self._rows = losses[front], numbers[front].tolist(), []


def document_of(record: TrialRecord, on_front: bool) -> dict[str, Any]:
    """A trial as `hwnas trials --json` shows it."""
    return {
        "id": record.id,
        "architecture": record.architecture,
        "status": record.status,
        "objectives": record.objectives,
        "on_front": on_front,
        "error": record.error,
        "started": record.started,
        "seconds": record.seconds,
        "score": record.score,
        "details": record.details,
    }


@contextmanager
def trial_reader(run_dir: str | Path) -> Iterator[TrialReader]:
    """Open a run to look at its trials. Nothing in it is run or changed.

    Raises:
        RunDirectoryError: there is no run at this place.
        JournalError: its journal is damaged.
    """
    with given_folder("trials", Path(run_dir)):
        run = RunDirectory.open(Path(run_dir))
        journal = run.open_journal(read_only=True)
        try:
            yield TrialReader(journal, run.config.objectives)
        finally:
            journal.close()
