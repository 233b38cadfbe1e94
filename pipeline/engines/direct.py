"""An engine whose trials run within the search's own process, for results that are looked up."""

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
    """Gets each trial's result from a function.

    Args:
        judge: architecture in canonical form → result.

    Attributes:
        answering_s: seconds spent on results, journal included; the rest of a search's time is the strategy's.
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
        self._judge_function = judge
        self.answering_s = 0.0

    def _answer(self, architecture: Architecture) -> TrialRecord:
        began = time.perf_counter()
        try:
            return super()._answer(architecture)
        finally:
            self.answering_s += time.perf_counter() - began

    def _judge(self, architecture: Architecture) -> TrialResult:
        return self._judge_function(architecture)
