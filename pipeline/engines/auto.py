"""The engine `auto`: trainings side by side with one thread each, where that trains more candidates an hour."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from latency_models.timer import usable_cores
from pipeline.engines.processes import ProcessesEngine, share_of_memory
from pipeline.registry import load
from pipeline.tables import EVALUATORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.engine import AutoOptions
    from pipeline.config.run import RunConfig
    from pipeline.engines.worker_client import WorkerClient
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal, TrialRecord
    from pipeline.trials.reporter import Reporter

_PILOT_S = 1.0


@dataclass(frozen=True)
class Parallelism:
    """The number of trainings at a time, and that of threads of each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        if self.workers == 1:
            return f"one training at a time, with {_threads(self.threads)}"
        return f"{self.workers} trainings side by side, with {_threads(self.threads)} each"


class AutoEngine(ProcessesEngine):
    """Runs trials side by side, or one at a time, whichever a pilot shows to be faster on the cores that it may use.

    The first trial waits for the pilot: a few steps of a candidate's training, once on all cores side by side with one
    thread each, once alone with all of them. A resumed run goes on as it began, if it has as many cores. An evaluator
    that doesn't allow a pilot, or trains on a GPU, has one trial at a time. Options:
    `pipeline.config.engine.AutoOptions`.
    """

    def __init__(
        self, config: RunConfig, space: SearchSpace, journal: Journal, budget: Budget, reporter: Reporter, log: Path
    ) -> None:
        options = cast("AutoOptions", config.engine)
        super().__init__(config, space, journal, budget, reporter, log, options.cores or usable_cores())
        self._memory_gb = options.memory_gb
        self._parallelism: Parallelism | None = None
        self._began_as = _parallelism_of(list(self._known.values()))
        if (known := self._known_parallelism()) is not None:
            self._settle(known)

    def _start(self, architecture: Architecture) -> None:
        if self._parallelism is None:
            self._settle(self._pilot(architecture))
        super()._start(architecture)

    def _known_parallelism(self) -> Parallelism | None:
        """The parallelism that needs no pilot: the recorded one, or the only one."""
        cores = len(self._clients)
        if cores == 1:
            return Parallelism(1, 1)
        recorded = self._began_as
        if recorded is not None and recorded.workers * recorded.threads == cores:
            return recorded
        evaluator = load("evaluator", self._config.evaluator.name, EVALUATORS)
        on_cpu = not torch.cuda.is_available()
        return Parallelism(cores, 1) if on_cpu and getattr(evaluator, "side_by_side", False) else None

    def _pilot(self, architecture: Architecture) -> Parallelism:
        self._server.start()
        parallelism, gain = choose_parallelism(self._clients, architecture)
        if gain is not None:
            self._reporter.note(
                f"{parallelism}: side by side trains {gain:.2f} times the candidates (a pilot of a few steps)"
            )
        return parallelism

    def _settle(self, parallelism: Parallelism) -> None:
        """Keep the workers that are needed, each with its threads."""
        self._parallelism, self._workers = parallelism, parallelism.workers
        for client in self._clients:
            client.threads = parallelism.threads
            if parallelism.workers < len(self._clients):  # those that stay begin anew, with more memory
                client.stop()
                client.memory_bytes = share_of_memory(self._memory_gb, parallelism.workers)
        for _ in self._clients[parallelism.workers :]:
            self._jobs.put(None)

    def _how(self) -> dict[str, Any]:
        return {} if self._parallelism is None else asdict(self._parallelism)


def choose_parallelism(clients: Sequence[WorkerClient], architecture: Architecture) -> tuple[Parallelism, float | None]:
    """The parallelism that trains more candidates on as many cores as there are workers.

    Returns:
        The parallelism, and how many times the candidates are trained side by side; None where no pilot is possible.
    """
    cores = len(clients)
    with ThreadPoolExecutor(cores) as pool:
        for begun in [pool.submit(client.start) for client in clients]:
            begun.result()  # all have begun before the first is timed
        together = list(pool.map(lambda each: each.steps_per_second(architecture, _PILOT_S, 1), clients))
    rates = [each for each in together if each is not None]
    alone = clients[0].steps_per_second(architecture, _PILOT_S, cores) if len(rates) == cores else None
    if alone is None:
        return Parallelism(1, cores), None
    gain = sum(rates) / alone
    return Parallelism(cores, 1) if gain >= 1 else Parallelism(1, cores), gain


def _parallelism_of(records: Sequence[TrialRecord]) -> Parallelism | None:
    """The parallelism of the last trial that says one."""
    for record in reversed(records):
        submission = record.details.get("submission", {})
        if "workers" in submission and "threads" in submission:
            return Parallelism(submission["workers"], submission["threads"])
    return None


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
