"""Who says what a candidate is worth: by building and training it, or from a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.spaces.base import Value


@dataclass(frozen=True)
class TrialResult:
    """What a candidate turned out to be.

    Attributes:
        objectives: metric → value, as far as known; a candidate that breaks a limit has no accuracy.
        details: the latency's interval and warnings, the broken limits, the seed; on an INT8 device also the
            accuracy before quantisation, `accuracy_fp32`.
        error: why it failed.
    """

    status: Literal["ok", "infeasible", "failed"]
    objectives: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Judge(Protocol):
    """Judges one architecture after the other; limits that are broken keep it from telling an accuracy.

    `pipeline.trial.TrialRunner` builds, measures and trains, in a worker process; `pipeline.evaluators.lookup.Lookup`
    looks up, in the search's own.
    """

    def run(
        self, architecture: Mapping[str, Value], progress: Callable[[int, int, float], None] | None = None
    ) -> TrialResult:
        """The architecture's costs and, where it keeps the limits, its accuracy.

        Args:
            architecture: in canonical form.
            progress: told of epochs, where there are any: number, of how many, validation accuracy.
        """
