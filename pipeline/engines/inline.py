"""The engine `inline`: one trial at a time, in one persistent child process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from pipeline.costs.latency_source import history_of
from pipeline.engines.base import JournaledEngine
from pipeline.engines.fork_client import ForkServer
from pipeline.engines.worker_client import WorkerClient, memory_allowance
from pipeline.evaluators.stopping_rules import peers_for

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.run import RunConfig
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import TrialResult


class InlineEngine(JournaledEngine):
    """Runs one trial at a time in a child process. Options: `pipeline.config.engine.InlineOptions`."""

    def __init__(
        self,
        config: RunConfig,
        space: SearchSpace,
        journal: Journal,
        budget: Budget,
        reporter: Reporter,
        log: Path,
    ) -> None:
        super().__init__(config, space, journal, budget, reporter)
        options = cast("Any", config.engine)
        self._server = ForkServer(json.loads(config.model_dump_json()), log)
        self._worker = WorkerClient(
            self._server,
            limit_s=options.trial_minutes * 60,
            memory_bytes=memory_allowance(options.memory_gb),
        )

    def _judge(self, architecture: Architecture) -> TrialResult:
        known = list(self._known.values())
        peers = peers_for(self._config.evaluator, known)
        return self._worker.judge(architecture, self._reporter.trial_progress, peers, history_of(known))

    def shutdown(self) -> None:
        """End the child process."""
        self._worker.stop()
        self._server.stop()
