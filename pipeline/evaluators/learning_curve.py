"""Learning curves of trials: how they are recorded, and which final errors those of stopped trials suggest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.trials.result import is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.result import Progress

LEAST_COMPLETE = 3
"""Trials trained to the end that are needed for an estimate of what a stopped one would have gained."""


@dataclass(frozen=True)
class LearningCurve:
    """The course of a training.

    Attributes:
        accuracies: on the validation images, 0 to 1, after each epoch.
        costs: what accuracy is traded off against, smaller is better, in the same order for all curves; empty where
            accuracy alone counts.
    """

    accuracies: tuple[float, ...]
    costs: tuple[float, ...] = ()


class CurveMonitor:
    """Records a training's curve and decides after each epoch whether to stop; an evaluator's `Progress`.

    Args:
        decide: (accuracies so far, number of epochs in all) → why the training ends here, None while it goes on.
        progress: called after every epoch, too.

    Attributes:
        accuracies: after each epoch; None once an epoch is skipped or its accuracy is no number from 0 to 1: then there
            is no curve, and nothing is stopped.
    """

    def __init__(
        self, decide: Callable[[tuple[float, ...], int], str | None], progress: Progress | None = None
    ) -> None:
        self._decide, self._progress = decide, progress
        self.accuracies: tuple[float, ...] | None = ()
        self._epochs = 0
        self._reason: str | None = None

    def __call__(self, epoch: int, epochs: int, accuracy: float) -> bool:
        """Record an epoch; True ends the training here."""
        if self._progress is not None:
            self._progress(epoch, epochs, accuracy)
        self._epochs = epochs
        self._reason = None
        if self.accuracies is None or epoch != len(self.accuracies) + 1 or not _is_accuracy(accuracy):
            self.accuracies = None
        else:
            self.accuracies = (*self.accuracies, float(accuracy))
            self._reason = self._decide(self.accuracies, epochs)
        return self._reason is not None

    def details(self) -> dict[str, Any]:
        """The training's part of a trial's details.

        That is `curve`; of a stopped training also `stopped_after` and `epochs`, the epochs that it had and would have
        had, and `stopped_by`, the reason.
        """
        if not self.accuracies:
            return {}
        details: dict[str, Any] = {"curve": list(self.accuracies)}
        if self._reason is not None:
            details |= {"stopped_after": len(self.accuracies), "epochs": self._epochs, "stopped_by": self._reason}
        return details


def _is_accuracy(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def peers_of(records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """Curves and objectives, as JSON takes them, of the trials that later trainings are compared with.

    These are the trials that keep the limits.
    """
    return [
        {"curve": record.details["curve"], "objectives": record.objectives}
        for record in records
        if record.status == "ok" and "curve" in record.details
    ]


def curves_of(peers: Iterable[Mapping[str, Any]], costs: Sequence[str]) -> list[LearningCurve]:
    """Learning curves, with the named costs, from what `peers_of` gives."""
    return [LearningCurve(tuple(peer["curve"]), tuple(peer["objectives"][name] for name in costs)) for peer in peers]


def expected_errors(records: Sequence[TrialRecord]) -> npt.NDArray[np.float64]:
    """Final errors (records,): observed ones, and estimates for the trials that were stopped early.

    A stopped trial's error is scaled by the median, over the trials trained to the end, of their last error over that
    after as many epochs. With fewer than `LEAST_COMPLETE` of these it is taken as it is. NaN where a trial has none.
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
