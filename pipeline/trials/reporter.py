"""The interface through which long work reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import TrialRecord


class Reporter:
    """Receives the progress of long work; this base ignores it."""

    def stage(self, text: str) -> None:
        """Report that a new stage of the work begins."""

    def note(self, text: str) -> None:
        """Report something that the user should know."""

    def search_started(self, config: RunConfig, budget: Budget, records: list[TrialRecord]) -> None:
        """Report that the search begins, or goes on after the given trials."""

    def trial_started(self, number: int, identity: str) -> None:
        """Report that a trial begins."""

    def trial_progress(self, progress: dict[str, Any]) -> None:
        """Report that an epoch of a running trial has ended."""

    def trial_ended(self, record: TrialRecord) -> None:
        """Report that a trial's result is in the journal."""

    def search_ended(self, reason: str) -> None:
        """Report that the search has ended."""

    def epoch(self, epoch: int, epochs: int, accuracy: float) -> None:
        """Report that an epoch of the final training has ended."""

    def progress(self, text: str, share: float) -> None:
        """Report that a share, 0 to 1, of some work is done."""

    def close(self) -> None:
        """End the reports, also after a failure."""


def duration(seconds: float) -> str:
    """A duration in words, such as `1 min 30 s`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
