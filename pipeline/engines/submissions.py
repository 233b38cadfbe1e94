"""The order in which a journal's trials were asked for, and in which the strategy got their results."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.trials.journal import TrialRecord


@dataclass(frozen=True)
class Submission:
    """A trial's place in the order of submissions.

    Attributes:
        number: trials submitted before it.
        after: results given to the strategy before it was submitted.
    """

    number: int
    after: int

    def record(self, earlier: Sequence[Submission], *, at_once: bool) -> dict[str, Any]:
        """The entry of the trial's details.

        Args:
            earlier: the trials submitted before it that haven't ended: should they never end, it is known when they
                were submitted.
            at_once: the result was given at the submission, before those of earlier trials.
        """
        places = [{"number": each.number, "after": each.after} for each in earlier]
        mark = {"at_once": True} if at_once else {}
        return {"number": self.number, "after": self.after, "earlier": places, **mark}


class RecordedOrder:
    """The order of submissions and results that a journal tells.

    Results are given in the order of submission, but for those that a trial has at once. The builds before this rule
    gave them as the trials ended, which is the journal's order: so is the part of a journal that they wrote, whose
    entries have no `earlier`.

    Args:
        records: the journal's, in its order.
        path: of the journal, for errors.

    Attributes:
        as_they_ended: ids of the trials whose results were given as they ended; they come before all others.

    Raises:
        JournalError: trials are missing, or two have one place.
    """

    def __init__(self, records: Sequence[TrialRecord], path: Path) -> None:
        entries: list[dict[str, Any]] = [_entry(record) for record in records]
        last = max((at for at, entry in enumerate(entries) if "earlier" not in entry), default=-1)
        self.as_they_ended = deque(record.id for record in records[: last + 1])
        self._ids: dict[int, str] = {}
        self._after: dict[int, int] = {}
        known_below = 0
        for at, (record, entry) in enumerate(zip(records, entries, strict=True)):
            number, earlier = entry["number"], entry.get("earlier", [])
            while known_below in self._ids:
                known_below += 1
            open_then = {each["number"] for each in earlier}
            told = all(each in self._ids or each in open_then for each in range(known_below, number))
            if number in self._ids or (at > last and not told):
                raise JournalError(
                    f"{path}: trial {record.id} doesn't follow from the trials before it: it was the strategy's"
                    f" number {number}; the journal has lost trials, or belongs to another run"
                )
            self._ids[number] = record.id
            for each in (entry, *earlier):
                self._after[each["number"]] = each["after"]
        self._at_once = {entry["number"] for entry in entries if entry.get("at_once")}

    def after(self, number: int) -> int | None:
        """Results that were given before the submission of this number; None where the journal doesn't tell."""
        return self._after.get(number)

    def identity(self, number: int) -> str | None:
        """The id of the trial that was submitted with this number; None where it isn't in the journal."""
        return self._ids.get(number)

    def at_once(self, number: int) -> bool:
        """Whether this submission had its result at once."""
        return number in self._at_once


def _entry(record: TrialRecord) -> dict[str, Any]:
    """The recorded submission; of one trial at a time, each is submitted when all before it have ended."""
    alone = {"number": record.number, "after": record.number, "earlier": []}
    found: dict[str, Any] = record.details.get("submission", alone)
    return found
