"""The budget of a search: when it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.run import BudgetOptions
    from pipeline.trials.journal import TrialRecord

REPEATS_IN_A_ROW = 200
"""Known architectures in a row after which the space counts as exhausted."""


class Budget:
    """Counts trials and time over all sessions of a run.

    Args:
        options: the config's section.
        records: trials in the journal.
    """

    def __init__(self, options: BudgetOptions, records: list[TrialRecord]) -> None:
        self._options = options
        self.trials = 0
        self.infeasible = 0
        self._repeats = 0
        self._spent_s = max((record.elapsed_s for record in records), default=0.0)
        self._began = time.monotonic()
        for record in records:
            self.count(record)

    @property
    def elapsed_s(self) -> float:
        """Search time so far, earlier sessions included."""
        return self._spent_s + time.monotonic() - self._began

    @property
    def limit_s(self) -> float:
        """Search time that may be spent in all."""
        return self._options.minutes * 60

    @property
    def time_is_over(self) -> bool:
        """Whether the search time is spent: nothing is begun any more."""
        return self.elapsed_s >= self.limit_s

    @property
    def wanted(self) -> int:
        """Number of trained and failed trials that may be spent in all."""
        return self._options.trials

    def count(self, record: TrialRecord) -> None:
        """Count a trial that has ended; infeasible ones have a cap of their own."""
        if record.status == "infeasible":
            self.infeasible += 1
        else:
            self.trials += 1
        self._repeats = 0

    def count_repeat(self) -> None:
        """Count a request for a known architecture: free, but not for ever."""
        self._repeats += 1

    def count_replayed(self) -> None:
        """Count a replayed trial of a resumed run, which is progress and no repeat."""
        self._repeats = 0

    def exhausted(self) -> str | None:
        """The reason why the search is over, in words; None while it may go on."""
        if self.trials >= self._options.trials:
            return f"all {self._options.trials} trials are done"
        if self.time_is_over:
            return f"the {self._options.minutes:g} minutes are over"
        if self.infeasible >= self._options.infeasible_cap:
            return f"{self.infeasible} candidates broke the limits"
        if self._repeats >= REPEATS_IN_A_ROW:
            return f"the space is exhausted ({REPEATS_IN_A_ROW} known architectures in a row)"
        return None
