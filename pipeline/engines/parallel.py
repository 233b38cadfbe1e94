"""The base of engines that run several trials at a time and give their results in an order that can be replayed."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from pipeline.engines.base import JournaledEngine
from pipeline.errors import JournalError
from pipeline.nni_types import ModelStatus
from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pipeline.config.run import RunConfig
    from pipeline.nni_types import ExecutableModelSpace
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal, TrialRecord
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import TrialResult


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, with any result."""

    architecture: Architecture
    result: TrialResult
    started: datetime
    seconds: float


@dataclass(frozen=True)
class _Flight:
    """A submitted trial whose result the strategy doesn't have yet.

    Attributes:
        models: all that ask for it.
        number: trials submitted before it.
        after: results given to the strategy before it was submitted.
    """

    models: list[ExecutableModelSpace]
    number: int
    after: int


class ParallelEngine(JournaledEngine):
    """Runs up to `workers` trials at a time; a strategy gets one result after the other.

    Order of calls: as for the base. While all workers are busy `idle_worker_available` waits for one result, gives it
    to the strategy and lets it submit one more. The number of results that the strategy had when it submitted a trial
    is recorded in the trial's details, `submission`. A resumed run gives as many recorded results, in the recorded
    order, before each submission. Trials that ran when the run was stopped are submitted and run once more.

    Args:
        workers: at least 1.
    """

    def __init__(
        self,
        config: RunConfig,
        space: SearchSpace,
        journal: Journal,
        budget: Budget,
        reporter: Reporter,
        workers: int,
    ) -> None:
        super().__init__(config, space, journal, budget, reporter)
        self._workers = workers
        self._in_flight: dict[str, _Flight] = {}
        self._submitted = 0
        self._given = 0
        self._given_in_budget = 0  # of them, trials that count for the budget
        submissions = [_submission(record) for record in self._known.values()]
        self._recorded_after = {each["number"]: each["after"] for each in submissions}

    @abstractmethod
    def _start(self, architecture: Architecture) -> None:
        """Begin a trial; a worker is free."""

    def _judge(self, architecture: Architecture) -> TrialResult:
        raise AssertionError("trials are started and waited for")

    def _how(self) -> dict[str, Any]:
        """Further entries of a submission's record, beside its place in the order."""
        return {}

    @abstractmethod
    def _wait(self) -> EndedTrial:
        """Wait for the next of the started trials to end."""

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Start each model's trial, or give its result at once where it is known."""
        for model in models:
            self.idle_worker_available()
            model.status = ModelStatus.Training
            architecture = self._space.canonical(model.sample)
            identity = architecture_id(architecture)
            if identity in self._seen:
                self._budget.count_repeat()
                self._tell(model, self._known[identity])
            elif identity in self._in_flight:
                self._budget.count_repeat()
                self._in_flight[identity].models.append(model)
            else:
                self._in_flight[identity] = _Flight([model], self._submitted, self._given)
                self._submitted += 1
                if identity not in self._known:
                    self._announce(identity)
                    self._start(architecture)

    def idle_worker_available(self) -> bool:
        """True, after the next result where all workers are busy."""
        while self._has_to_wait(len(self._in_flight) >= self._workers):
            self._land()
        return True

    def budget_available(self) -> bool:
        """Whether another model may be submitted; waits for results while the running trials may use up the budget."""
        while self._has_to_wait(self._given_in_budget + len(self._in_flight) >= self._budget.wanted):
            self._land()
        return super().budget_available()

    def _has_to_wait(self, full: bool) -> bool:
        """Whether the next trial has to wait for a result: as recorded in a replay, else if `full`."""
        after = self._recorded_after.get(self._submitted)
        return bool(self._in_flight) and (self._given < after if after is not None else full)

    def _waiting(self) -> Iterable[ExecutableModelSpace]:
        return [model for flight in self._in_flight.values() for model in flight.models]

    def finish(self) -> None:
        while self._in_flight:
            self._land()

    def _land(self) -> None:
        identity = self._replayed() if self._replay else self._ran()
        self._seen.add(identity)
        record = self._known[identity]
        self._given += 1
        self._given_in_budget += record.status != "infeasible"
        for model in self._in_flight.pop(identity).models:
            self._tell(model, record)

    def _replayed(self) -> str:
        expected = self._replay.pop(0)
        if expected not in self._in_flight:
            raise JournalError(
                f"{self._journal.path}: trial {expected} doesn't follow from config and seed (the strategy asks for"
                f" {', '.join(self._in_flight)}); the journal belongs to another config or version,"
                " or a file of the run that a strategy reads (cost_model.json, zero_cost.jsonl) isn't what it was"
            )
        self._budget.count_replayed()
        return expected

    def _ran(self) -> str:
        ended = self._wait()
        identity = architecture_id(ended.architecture)
        flight = self._in_flight[identity]
        submission = {"number": flight.number, "after": flight.after, **self._how()}
        details = {**ended.result.details, "submission": submission}
        result = replace(ended.result, details=details)
        self._known[identity] = self._recorded(identity, ended.architecture, result, ended.started, ended.seconds)
        return identity


def _submission(record: TrialRecord) -> dict[str, int]:
    """The recorded submission; of one trial at a time, each is submitted when all before it have ended."""
    alone = {"number": record.number, "after": record.number}
    return cast("dict[str, int]", record.details.get("submission", alone))
