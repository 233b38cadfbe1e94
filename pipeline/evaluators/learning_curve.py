"""Learning curves of trials: how they are recorded, and what stopped ones tell."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluators.stopping_rules import LearningCurve
from pipeline.trials.result import is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.result import Progress

LEAST_COMPLETE = 3
"""So many trials have to have gone to the end before they say how much a stopped one would have gained."""


class CurveMonitor:
    """Keeps a training's curve and asks after each epoch whether it goes on; an evaluator calls it as its `Progress`.

    Args:
        decide: takes the accuracies so far and the number of epochs in all; says why the training ends, or None.
        tell: hears of every epoch, too.

    Attributes:
        accuracies: after each epoch; None where an evaluator doesn't tell every epoch's, in order, as a number from 0
            to 1: then there is no curve, and nothing is stopped.
    """

    def __init__(self, decide: Callable[[tuple[float, ...], int], str | None], tell: Progress | None = None) -> None:
        self._decide, self._tell = decide, tell
        self.accuracies: tuple[float, ...] | None = ()
        self._epochs = 0
        self._words: str | None = None

    def __call__(self, epoch: int, epochs: int, accuracy: float) -> bool:
        """Whether the training is to end here."""
        if self._tell is not None:
            self._tell(epoch, epochs, accuracy)
        self._epochs = epochs
        self._words = None
        if self.accuracies is None or epoch != len(self.accuracies) + 1 or not _is_accuracy(accuracy):
            self.accuracies = None
        else:
            self.accuracies = (*self.accuracies, float(accuracy))
            self._words = self._decide(self.accuracies, epochs)
        return self._words is not None

    def details(self) -> dict[str, Any]:
        """What a trial's details tell of it: `curve`; where it was stopped also `stopped_after` and `epochs`, epochs
        that it had and would have had, and `stopped_by`, why.
        """
        if not self.accuracies:
            return {}
        told: dict[str, Any] = {"curve": list(self.accuracies)}
        if self._words is not None:
            told |= {"stopped_after": len(self.accuracies), "epochs": self._epochs, "stopped_by": self._words}
        return told


def _is_accuracy(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def peers_of(records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """What later trainings are compared with: curve and objectives of the trials that keep the limits."""
    return [
        {"curve": record.details["curve"], "objectives": record.objectives}
        for record in records
        if record.status == "ok" and "curve" in record.details
    ]


def curves_of(peers: Iterable[Mapping[str, Any]], costs: Sequence[str]) -> list[LearningCurve]:
    """The same as curves, with the named costs."""
    return [LearningCurve(tuple(peer["curve"]), tuple(peer["objectives"][name] for name in costs)) for peer in peers]


def expected_errors(records: Sequence[TrialRecord]) -> npt.NDArray[np.float64]:
    """(records,): the error that each has, or that a stopped one can be expected to have had in the end.

    That is its error times the median, over the trials that went to the end, of their last error over that after as
    many epochs. Where fewer than `LEAST_COMPLETE` tell, it is the error that it has; NaN where a trial has none.
    """
    errors = np.array([1.0 - record.objectives.get("accuracy", math.nan) for record in records])
    whole = [r.details["curve"] for r in records if "curve" in r.details and not is_stopped(r.details)]
    gains: dict[int, float] = {}
    for row, record in enumerate(records):
        if is_stopped(record.details):
            epoch: int = record.details["stopped_after"]
            if epoch not in gains:
                gains[epoch] = _gain(whole, epoch)
            errors[row] *= gains[epoch]
    return errors


def _gain(curves: Sequence[Sequence[float]], epoch: int) -> float:
    ratios = [(1.0 - c[-1]) / (1.0 - c[epoch - 1]) for c in curves if len(c) > epoch and c[epoch - 1] < 1.0]
    return float(np.median(ratios)) if len(ratios) >= LEAST_COMPLETE else 1.0
