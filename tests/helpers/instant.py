"""An engine that knows every answer at once, on a real journal: for what strategies and replays must do."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.engines.base import JournaledEngine
from pipeline.engines.parallel import EndedTrial, ParallelEngine
from pipeline.engines.trial import TrialResult
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.base import Architecture, SearchSpace, architecture_id
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.reporter import Reporter

Judge = Callable[[Architecture], TrialResult]


class KilledError(Exception):
    """The process ends here, as far as this engine can tell."""


class InstantEngine(JournaledEngine):
    """Judges by a function; ends like a killed process before the trial of a given number."""

    def __init__(self, *args: Any, judge: Judge, killed_at: int | None = None) -> None:
        super().__init__(*args)
        self._judged, self._killed_at = judge, killed_at
        self.judged: list[str] = []

    def _judge(self, architecture: Architecture) -> TrialResult:
        if len(self._known) == self._killed_at:
            raise KilledError
        self.judged.append(architecture_id(architecture))
        return self._judged(architecture)


class InstantWorkers(ParallelEngine):
    """The same with several trials at a time: of those that run the one ends next whose id's hash is the smallest.

    Args:
        clock: another word has trials end in another order.
        counts: trials that break a limit have their result at once.
    """

    def __init__(
        self,
        *args: Any,
        judge: Judge,
        killed_at: int | None = None,
        workers: int,
        clock: str = "",
        counts: bool = False,
    ) -> None:
        super().__init__(*args, workers)
        self._judged, self._killed_at, self._clock, self._counts = judge, killed_at, clock, counts
        self._started: list[Architecture] = []  # the first of them run, the others wait for a worker
        self.judged: list[str] = []
        self.running: list[int] = []

    def _start(self, architecture: Architecture) -> None:
        self._started.append(architecture)

    def _at_once(self, architecture: Architecture) -> EndedTrial | None:
        result = self._judged(architecture)
        return self._ended(architecture) if self._counts and result.status == "infeasible" else None

    def _wait(self) -> EndedTrial:
        running = self._started[: self._workers]
        self.running.append(len(running))
        ended = min(running, key=lambda each: hashlib.sha256((self._clock + architecture_id(each)).encode()).digest())
        self._started.remove(ended)
        return self._ended(ended)

    def _ended(self, architecture: Architecture) -> EndedTrial:
        if len(self._known) == self._killed_at:
            raise KilledError
        self.judged.append(architecture_id(architecture))
        return EndedTrial(architecture, self._judged(architecture), datetime.now(UTC), 0.0)


def by_hash(architecture: Architecture) -> TrialResult:
    """Every tenth fails, every fifth is over a limit, the others have an accuracy and a cost; all by the id."""
    number = int(hashlib.sha256(architecture_id(architecture).encode()).hexdigest()[:8], 16)
    if number % 10 == 0:
        return TrialResult("failed", error="unlucky")
    if number % 5 == 1:
        return TrialResult("infeasible", {"macs": 5e6}, {"excess": {"macs": 0.01 * (number % 97)}})
    return TrialResult("ok", {"accuracy": number % 1000 / 1000, "macs": float(number % 10**6 + 1)}, {})


def config_of(strategy: dict[str, Any], trials: int, seed: int = 0, **space: Any) -> RunConfig:
    """A config of the digits with this strategy and space."""
    config = parse_config(
        {
            "seed": seed,
            "data": {"name": "digits"},
            "space": {"name": "convnet", "width": 8, **space},
            "strategy": strategy,
            "objectives": ["accuracy", "macs"],
            "budget": {"trials": trials},
        },
        "the test's config",
    )
    return config.resolved()


def space_of(config: RunConfig) -> SearchSpace:
    """The config's space, for grey 8×8 images of 10 classes."""
    from pipeline.spaces.convnet import ConvNetSpace

    return ConvNetSpace(config.space, (1, 8, 8), 10)


def search(
    path: Path,
    config: RunConfig,
    *,
    judge: Judge = by_hash,
    killed_at: int | None = None,
    workers: int | None = None,
    kind: type[InstantWorkers] = InstantWorkers,
    **how: Any,
) -> tuple[list[TrialRecord], list[str]]:
    """Begin or go on with a search; gives the journal's trials, and the ids that were judged this time.

    Args:
        workers: one at a time when None; else with an engine of this `kind`, which takes `how`.
    """
    journal = Journal.open(path) if path.exists() else Journal.create(path, {})
    try:
        space = space_of(config)
        budget = Budget(config.budget, journal.trials())
        parts = (config, space, journal, budget, Reporter())
        engine: Any
        if workers is None:
            engine = InstantEngine(*parts, judge=judge, killed_at=killed_at)
        else:
            engine = kind(*parts, judge=judge, killed_at=killed_at, workers=workers, **how)
        problem = Problem(space, config.seed, tuple(config.objectives), config.limits)
        strategy = strategy_of(config.strategy, problem)
        try:
            if budget.exhausted() is None:
                strategy(SimplifiedModelSpace.from_model(space.model_space()), engine)
                engine.finish()
        except KilledError:
            pass
        return journal.trials(), engine.judged
    finally:
        journal.close()
