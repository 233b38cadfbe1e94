"""What long work tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import TrialRecord


class Reporter:
    """Hears of everything that takes time. This base says nothing."""

    def stage(self, text: str) -> None:
        """A new stage of the work begins."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def search_started(self, config: RunConfig, budget: Budget, records: list[TrialRecord]) -> None:
        """The search begins or goes on, with what the journal holds already."""

    def trial_started(self, number: int, identity: str) -> None:
        """A candidate is looked at."""

    def trial_progress(self, progress: dict[str, Any]) -> None:
        """An epoch of the current candidate ended."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A candidate's result is in the journal."""

    def search_ended(self, reason: str) -> None:
        """No more candidates."""

    def epoch(self, epoch: int, epochs: int, accuracy: float) -> None:
        """An epoch of the final training ended."""

    def progress(self, text: str, share: float) -> None:
        """Long work of one kind goes on; `share` of it, 0 to 1, is done."""

    def close(self) -> None:
        """No more news, for whatever reason."""


def duration(seconds: float) -> str:
    """As a person says it: 90 is 1 min 30 s."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
