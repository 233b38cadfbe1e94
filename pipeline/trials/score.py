"""What an engine tells a strategy of a finished trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.trials.journal import TrialRecord


class Score(float):
    """The one number that NNI's strategies compare; those of several objectives read the record behind it.

    Attributes:
        record: the whole trial.
    """

    record: TrialRecord

    @classmethod
    def of(cls, record: TrialRecord) -> Score:
        """The score of a trial."""
        score = cls(record.score)
        score.record = record
        return score
