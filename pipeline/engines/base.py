"""The base of engines: NNI's interface for strategies, with journal, repeats, replay and budget."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import JournalError
from pipeline.nni_types import ExecutableModelSpace, ExecutionEngine, FinalMetricEvent, ModelStatus, TrainingEndEvent
from pipeline.spaces.base import Architecture, architecture_id
from pipeline.trials.journal import TrialRecord
from pipeline.trials.objectives import FAILED_SCORE, Score, infeasible_score, reward

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.config.run import RunConfig
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import TrialResult


class JournaledEngine(ExecutionEngine):  # type: ignore[misc]  # NNI has no types
    """Runs the models that a strategy submits, unless the journal has their results.

    Order of calls: a strategy asks `budget_available`, then calls `submit_models`; for each model the engine takes the
    canonical architecture, looks it up or has `_judge` run its trial, writes the journal, and only then gives the
    strategy the score. `finish` when the strategy has ended, `shutdown` in any case.

    A resumed run starts with a fresh strategy, whose models are answered from the journal, in the recorded order,
    until the journal ends. That a strategy with the same seed asks for the same architectures again is checked, not
    assumed.
    """

    def __init__(
        self, config: RunConfig, space: SearchSpace, journal: Journal, budget: Budget, reporter: Reporter
    ) -> None:
        super().__init__()
        self._config, self._space, self._journal, self._budget = config, space, journal, budget
        self._reporter = reporter
        records = journal.trials()
        self._known = {record.id: record for record in records}
        self._replay = [record.id for record in records]
        self._seen: set[str] = set()

    @abstractmethod
    def _judge(self, architecture: Architecture) -> TrialResult:
        """Run one trial; a candidate that fails gives a result, no exception."""

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Answer each model, in order."""
        for model in models:
            model.status = ModelStatus.Training
            record = self._answer(self._space.canonical(model.sample))
            self._tell(model, record)

    def _tell(self, model: ExecutableModelSpace, record: TrialRecord) -> None:
        """Give the strategy a model's result."""
        status = ModelStatus.Failed if record.status == "failed" else ModelStatus.Trained
        self.dispatch_model_event(FinalMetricEvent(model, Score.of(record)))
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def _answer(self, architecture: Architecture) -> TrialRecord:
        identity = architecture_id(architecture)
        if identity in self._seen:
            self._budget.count_repeat()
            return self._known[identity]
        if self._replay:
            self._check_replay(identity)
            self._budget.count_replayed()
        self._seen.add(identity)
        if identity not in self._known:
            self._known[identity] = self._run(identity, architecture)
        return self._known[identity]

    def _check_replay(self, identity: str) -> None:
        expected = self._replay.pop(0)
        if identity != expected and any("submission" in record.details for record in self._known.values()):
            raise JournalError(
                f"{self._journal.path}: several trials ran at a time; go on with engine.name auto or processes"
            )
        if identity != expected:
            raise JournalError(
                f"{self._journal.path}: trial {expected} doesn't follow from config and seed (the strategy asks for"
                f" {identity}); the journal belongs to another config or version,"
                " or a file of the run that a strategy reads (cost_model.json, zero_cost.jsonl) isn't what it was"
            )

    def _announce(self, identity: str) -> None:
        """Say that a trial begins, unless there is no journal any more for what it will tell."""
        self._journal.check_present()
        self._reporter.trial_started(len(self._known), identity)

    def _run(self, identity: str, architecture: Architecture) -> TrialRecord:
        self._announce(identity)
        started, began = datetime.now(UTC), time.monotonic()
        result = self._judge(architecture)
        record = self._recorded(identity, architecture, result, started, time.monotonic() - began)
        self._count(record)
        return record

    def _recorded(
        self, identity: str, architecture: Architecture, result: TrialResult, started: datetime, seconds: float
    ) -> TrialRecord:
        """Write the journal's next row, before the strategy or the user gets the result."""
        record = TrialRecord(
            number=len(self._known),
            id=identity,
            architecture=architecture,
            status=result.status,
            score=self._score(result),
            objectives=result.objectives,
            details=result.details,
            error=result.error,
            started=started.isoformat(timespec="milliseconds"),
            seconds=seconds,
            elapsed_s=self._budget.elapsed_s,
        )
        self._journal.append(record)
        return record

    def _count(self, record: TrialRecord) -> None:
        """Count a new trial, and tell the user of it."""
        self._budget.count(record)
        self._reporter.trial_ended(record)

    def _score(self, result: TrialResult) -> float:
        if result.status == "failed":
            return FAILED_SCORE
        if result.status == "infeasible":
            return infeasible_score(result.details["excess"])
        config = self._config
        targets = config.limits
        if config.reward.target_ms is not None:
            targets["latency_ms"] = config.reward.target_ms
        return reward(result.objectives, config.objectives, config.reward.exponent, targets)

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """The submitted models that wait for their results, oldest first.

        A model is a copy of its space, too large to keep for each of thousands of trials; those are in the journal.
        """
        return [model for model in self._waiting() if status is None or model.status == status]

    def _waiting(self) -> Iterable[ExecutableModelSpace]:
        return ()

    def wait_models(self, *models: ExecutableModelSpace) -> None:
        """Give the strategy all results, those of these models too; NNI's own engine only waits for them."""
        self.finish()

    def idle_worker_available(self) -> bool:
        """Always true, since trials run within `submit_models`."""
        return True

    def budget_available(self) -> bool:
        """Whether another model may be submitted."""
        return self._budget.exhausted() is None

    def state_dict(self) -> dict[str, Any]:
        """An empty state, since the journal has it all."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Ignore the state, since the journal has it all."""

    def finish(self) -> None:
        """Wait for the trials that still run when the strategy has ended."""

    def shutdown(self) -> None:
        """Stop the processes that run trials."""
