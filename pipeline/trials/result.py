"""The result of a trial, whether it was trained or looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        objectives: metric → value, as far as known; a candidate that breaks a limit has no accuracy.
        details: the latency's interval and warnings, the broken limits, the seed; the accuracy after each epoch,
            `curve`, and of a training that was stopped early `stopped_after`, `epochs` and `stopped_by`; on an INT8
            device also the accuracy before quantisation, `accuracy_fp32`.
        error: the reason of its failure.
    """

    status: Literal["ok", "infeasible", "failed"]
    objectives: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def is_stopped(details: Mapping[str, Any]) -> bool:
    """Whether a trial with these details was stopped before its training ended."""
    return "stopped_after" in details


def scored_by(details: Mapping[str, Any]) -> str:
    """The zero-cost score that replaces the accuracy of a trial with these details; empty where none does."""
    return ", ".join(details.get("zero_cost", ()))


def stop_phrase(details: Mapping[str, Any]) -> str:
    """A phrase such as `stopped after 3 of 9 epochs`; empty for a trial that wasn't stopped."""
    return f"stopped after {details['stopped_after']} of {details['epochs']} epochs" if is_stopped(details) else ""


Progress = Callable[[int, int, float], bool | None]
"""Called after each epoch with its number (from 1), the number of epochs and the validation accuracy. True asks to end
the training here; see `CandidateEvaluator.stops`."""
