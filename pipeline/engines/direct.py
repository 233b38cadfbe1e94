"""An engine for judges that answer at once: trials run within the search's own process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.engines.base import JournaledEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.run import RunConfig
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal, TrialRecord
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import TrialResult


class DirectEngine(JournaledEngine):
    """See the module.

    Args:
        judge: says of an architecture in canonical form what its trial would.

    Attributes:
        answering_s: time that went into answers, journal and all; what a search takes beside it is the strategy's.
    """

    def __init__(
        self,
        config: RunConfig,
        space: SearchSpace,
        journal: Journal,
        budget: Budget,
        reporter: Reporter,
        judge: Callable[[Architecture], TrialResult],
    ) -> None:
        super().__init__(config, space, journal, budget, reporter)
        self._judged = judge
        self.answering_s = 0.0

    def _answer(self, architecture: Architecture) -> TrialRecord:
        began = time.perf_counter()
        try:
            return super()._answer(architecture)
        finally:
            self.answering_s += time.perf_counter() - began

    def _judge(self, architecture: Architecture) -> TrialResult:
        return self._judged(architecture)
