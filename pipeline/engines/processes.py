"""The engine `processes`: several trials at a time, each in a persistent child process."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from latency_models.timer import usable_cores
from pipeline.costs.latency_source import history_of
from pipeline.engines.cost_check import counts_break_limits
from pipeline.engines.fork_client import ForkServer
from pipeline.engines.parallel import EndedTrial, ParallelEngine
from pipeline.engines.worker_client import WorkerClient, memory_allowance
from pipeline.evaluators.stopping_rules import peers_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.engine import AutoOptions, ProcessesOptions
    from pipeline.config.run import RunConfig
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal
    from pipeline.trials.reporter import Reporter

_POLL_EVERY_S = 0.2  # an endless wait couldn't be interrupted on every platform


@dataclass(frozen=True)
class _Job:
    """A trial that waits for a worker, and what that worker may know."""

    architecture: Architecture
    peers: list[dict[str, Any]]
    history: list[dict[str, Any]]


class ProcessesEngine(ParallelEngine):
    """Runs each trial in one of several child processes. Options: `pipeline.config.engine.ProcessesOptions`.

    A thread watches each child; only the main thread writes the journal and talks to strategy and reporter. The
    children share the cores and the memory that they may take. A measurement waits until the other children have ended
    a step of their training, and they wait until it is done.

    Where counted costs have limits, one more child counts each candidate at its submission: one that breaks a limit has
    its result at once, and holds up no worker that would wait for the order.
    """

    def __init__(
        self,
        config: RunConfig,
        space: SearchSpace,
        journal: Journal,
        budget: Budget,
        reporter: Reporter,
        log: Path,
        workers: int | None = None,
    ) -> None:
        options = cast("ProcessesOptions | AutoOptions", config.engine)
        if workers is None:
            workers = cast("ProcessesOptions", options).workers or usable_cores()
        super().__init__(config, space, journal, budget, reporter, workers)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[dict[str, Any] | EndedTrial | BaseException] = queue.SimpleQueue()
        self._server = ForkServer(json.loads(config.model_dump_json()), log)
        self._clients = [
            WorkerClient(
                self._server,
                limit_s=options.trial_minutes * 60,
                memory_bytes=share_of_memory(options.memory_gb, workers),
                threads=max(1, usable_cores() // workers),
            )
            for _ in range(workers)
        ]
        self._counter = WorkerClient(
            self._server,
            limit_s=options.trial_minutes * 60,
            memory_bytes=share_of_memory(options.memory_gb, workers),
            threads=1,
        )
        self._counts = counts_break_limits(config)
        self._threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._clients]
        for thread in self._threads:
            thread.start()

    def _start(self, architecture: Architecture) -> None:
        self._server.start()  # here, since it ends with the thread that started it
        # What is known at the submission, whenever a child is free, and whichever: the same again in every run.
        peers, history = peers_for(self._config.evaluator, self._given), history_of(self._given)
        self._jobs.put(_Job(architecture, peers, history))

    def _at_once(self, architecture: Architecture) -> EndedTrial | None:
        if not self._counts or self._workers == 1:
            return None
        self._server.start()
        started, began = datetime.now(UTC), time.monotonic()
        result = self._counter.count(architecture)
        return None if result is None else EndedTrial(architecture, result, started, time.monotonic() - began)

    def _withdraw(self) -> Sequence[Architecture]:
        withdrawn: list[Architecture] = []
        ends = 0
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is None:
                    ends += 1
                else:
                    withdrawn.append(job.architecture)
        for _ in range(ends):
            self._jobs.put(None)
        return withdrawn

    def _ended_meanwhile(self) -> Sequence[EndedTrial]:
        ended: list[EndedTrial] = []
        with contextlib.suppress(queue.Empty):
            while True:
                news = self._news.get_nowait()
                if isinstance(news, EndedTrial):
                    ended.append(news)
                elif isinstance(news, BaseException):
                    self._news.put(news)  # told when this is waited for, once what has ended is in the journal
                    break
                else:
                    self._reporter.trial_progress(news)
        return ended

    def _wait(self) -> EndedTrial:
        while True:
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=_POLL_EVERY_S)
                if isinstance(news, BaseException):
                    raise news
                if isinstance(news, EndedTrial):
                    return news
                self._reporter.trial_progress(news)

    def _serve(self, client: WorkerClient) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._news.put(self._judged(client, job))
        except BaseException as error:  # anything that ends this thread is the main one's to raise
            self._news.put(error)
        finally:
            client.stop()

    def _judged(self, client: WorkerClient, job: _Job) -> EndedTrial:
        started, began = datetime.now(UTC), time.monotonic()
        result = client.judge(job.architecture, self._news.put, job.peers, job.history)
        return EndedTrial(job.architecture, result, started, time.monotonic() - began)

    def shutdown(self) -> None:
        """End the child processes, and the threads that watch them."""
        for _ in self._threads:
            self._jobs.put(None)
        for client in self._clients:
            client.kill()
        for thread in self._threads:
            thread.join()
        self._counter.stop()
        self._server.stop()


def share_of_memory(limit_gb: float | None, workers: int) -> int:
    """Bytes that each child may take: the configured limit, or its share of the allowance."""
    return memory_allowance(limit_gb) if limit_gb is not None else memory_allowance(None) // workers
