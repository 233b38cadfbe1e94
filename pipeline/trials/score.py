"""The score that an engine gives a strategy for a finished trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.trials.journal import TrialRecord


class Score(float):
    """The number that NNI's strategies compare, with the trial behind it for strategies with several objectives.

    Attributes:
        record: the trial.
    """

    record: TrialRecord

    @classmethod
    def of(cls, record: TrialRecord) -> Score:
        """The score of a trial's record."""
        score = cls(record.score)
        score.record = record
        return score
