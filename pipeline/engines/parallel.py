"""The base of engines that run several trials at a time and give their results in an order that doesn't depend on time.

Two runs of one seed ask for the same architectures although trials end in another order each time: a result is given
when those of all trials submitted before it were. Meanwhile workers take up trials that were submitted ahead.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.engines.base import JournaledEngine
from pipeline.engines.submissions import RecordedOrder, Submission
from pipeline.errors import JournalError
from pipeline.nni_types import ModelStatus
from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pipeline.config.run import RunConfig
    from pipeline.nni_types import ExecutableModelSpace
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal, TrialRecord
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import TrialResult

_OPEN_PER_WORKER = 1.5  # benchmarks/lookahead.py: fewer have workers wait, with more the strategy knows less


def open_trials(workers: int) -> int:
    """Number of trials without a given result that may be submitted, for as many that run at a time."""
    return 1 if workers == 1 else math.ceil(_OPEN_PER_WORKER * workers)


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, with any result."""

    architecture: Architecture
    result: TrialResult
    started: datetime
    seconds: float


@dataclass(frozen=True)
class _Flight:
    """A submitted trial whose result the strategy doesn't have yet, and all models that ask for it."""

    models: list[ExecutableModelSpace]
    submission: Submission


class ParallelEngine(JournaledEngine):
    """Runs up to `workers` trials at a time; a strategy gets one result after the other, in the order of submission.

    Order of calls: as for the base. While as many trials as `open_trials` says have no given result,
    `idle_worker_available` waits for the oldest one's, gives it to the strategy and lets it submit one more. A trial is
    in the journal when it has ended, whether its result is given already or not; the number of results that the
    strategy had when it was submitted is in its details, `submission`. A resumed run gives as many results before each
    submission. Trials that hadn't ended when the run was stopped are submitted and run once more.

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
        self._given: list[TrialRecord] = []
        self._given_in_budget = 0  # of them, trials that count for the budget
        self._begun_with = len(self._known)
        self._order = RecordedOrder(list(self._known.values()), journal.path)

    @abstractmethod
    def _start(self, architecture: Architecture) -> None:
        """Begin a trial as soon as a worker is free."""

    @abstractmethod
    def _wait(self) -> EndedTrial:
        """Wait for the next of the started trials to end."""

    def _ended_meanwhile(self) -> Sequence[EndedTrial]:
        """Trials that have ended by now, without waiting for one."""
        return ()

    def _at_once(self, architecture: Architecture) -> EndedTrial | None:
        """The result of a trial that needs no worker; the same whenever it is asked for."""
        return None

    def _withdraw(self) -> Sequence[Architecture]:
        """Take back the trials that no worker has begun."""
        return ()

    def _judge(self, architecture: Architecture) -> TrialResult:
        raise AssertionError("trials are started and waited for")

    def _open_trials(self) -> int:
        """Trials without a given result that may be submitted."""
        return open_trials(self._workers)

    def _how(self) -> dict[str, Any]:
        """Further entries of a submission's record, beside its place in the order."""
        return {}

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
                self._submit(model, identity, architecture)

    def _submit(self, model: ExecutableModelSpace, identity: str, architecture: Architecture) -> None:
        number = self._submitted
        recorded = self._order.identity(number)
        if recorded is not None and recorded != identity:
            raise JournalError(self._strange(recorded, [identity]))
        self._submitted += 1
        self._in_flight[identity] = _Flight([model], Submission(number, len(self._given)))
        if identity in self._known:
            if self._order.at_once(number):
                self._give(identity)
            return
        self._announce(identity)
        # One that the journal tells to be open had no result at once, or the journal would have it.
        untold = not self._order.as_they_ended and self._order.after(number) is None
        if untold and (ended := self._at_once(architecture)) is not None:
            self._record(ended, at_once=True)
            self._give(identity)
        else:
            self._start(architecture)

    def idle_worker_available(self) -> bool:
        """True, after the next result where enough trials wait for theirs."""
        # Where the journal is of the order in which trials ended, none was submitted ahead of the workers.
        most = self._workers if self._order.as_they_ended else self._open_trials()
        while self._has_to_wait(len(self._in_flight) >= most):
            self._land()
        return True

    def budget_available(self) -> bool:
        """Whether another model may be submitted; waits for results while the running trials may use up the budget."""
        while self._has_to_wait(self._given_in_budget + len(self._in_flight) >= self._budget.wanted):
            self._land()
        return super().budget_available()

    def _has_to_wait(self, full: bool) -> bool:
        """Whether the next trial has to wait for a result: as recorded in a replay, else if `full`."""
        after = self._order.after(self._submitted)
        return bool(self._in_flight) and (len(self._given) < after if after is not None else full)

    def _waiting(self) -> Iterable[ExecutableModelSpace]:
        return [model for flight in self._in_flight.values() for model in flight.models]

    def finish(self) -> None:
        """Wait for the trials that still run when the strategy has ended; those not begun are left, if time is over."""
        ended = self._order.as_they_ended  # the strategy may have ended before it asked for all of them
        for identity in [each for each in ended if each not in self._in_flight]:
            ended.remove(identity)
        while self._in_flight:
            self._land()

    def _land(self) -> None:
        """Give the next result to the strategy, once it is there."""
        for ended in self._ended_meanwhile():
            self._record(ended)
        self._leave_what_is_late()
        if not self._in_flight:
            return
        identity = self._next()
        while identity in self._in_flight and identity not in self._known:
            self._record(self._wait())
            self._leave_what_is_late()
        if identity in self._in_flight:
            self._give(identity)

    def _leave_what_is_late(self) -> None:
        """Begin no further trial once the time is over."""
        if self._budget.time_is_over:
            for architecture in self._withdraw():
                del self._in_flight[architecture_id(architecture)]

    def _next(self) -> str:
        """The id of the trial whose result is given next: the oldest one's, or as recorded by a build before."""
        if not self._order.as_they_ended:
            return next(iter(self._in_flight))
        expected = self._order.as_they_ended.popleft()
        if expected not in self._in_flight:
            raise JournalError(self._strange(expected, self._in_flight))
        return expected

    def _give(self, identity: str) -> None:
        record, flight = self._known[identity], self._in_flight.pop(identity)
        self._seen.add(identity)
        self._given.append(record)
        self._given_in_budget += record.status != "infeasible"
        if record.number < self._begun_with:
            self._budget.count_replayed()
        else:
            self._count(record)  # now, since what the budget allows mustn't depend on when a trial ended
        for model in flight.models:
            self._tell(model, record)

    def _record(self, ended: EndedTrial, *, at_once: bool = False) -> None:
        """Write a trial that has ended to the journal."""
        identity = architecture_id(ended.architecture)
        own = self._in_flight[identity].submission
        earlier = [
            flight.submission
            for other, flight in self._in_flight.items()
            if flight.submission.number < own.number and other not in self._known
        ]
        submission = {**own.record(earlier, at_once=at_once), **self._how()}
        result = replace(ended.result, details={**ended.result.details, "submission": submission})
        self._known[identity] = self._recorded(identity, ended.architecture, result, ended.started, ended.seconds)

    def _strange(self, identity: str, asked: Iterable[str]) -> str:
        return (
            f"{self._journal.path}: trial {identity} doesn't follow from config and seed (the strategy asks for"
            f" {', '.join(asked)}); the journal belongs to another config or version,"
            " or a file of the run that a strategy reads (cost_model.json, zero_cost.jsonl) isn't what it was"
        )
