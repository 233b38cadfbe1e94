"""The engine `processes`: several trials at a time, each in a persistent child process."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import psutil

from pipeline.engines.parallel import Ended, ParallelEngine
from pipeline.engines.worker_client import WorkerClient, WorkerFailure, memory_allowance
from pipeline.judge import TrialResult
from pipeline.latency_source import history_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.budget import Budget
    from pipeline.config import RunConfig
    from pipeline.console import Reporter
    from pipeline.engines.options import ProcessesOptions
    from pipeline.journal import Journal
    from pipeline.spaces.base import Architecture, SearchSpace

_LOOK_EVERY_S = 0.2  # a wait without end couldn't be interrupted on every platform


class ProcessesEngine(ParallelEngine):
    """See the module. Options: `pipeline.engines.options.ProcessesOptions`.

    A thread watches each child; this process's main thread alone writes the journal and talks to strategy and
    reporter. The children share the cores, and the memory that they may take.
    """

    def __init__(
        self, config: RunConfig, space: SearchSpace, journal: Journal, budget: Budget, reporter: Reporter, log: Path
    ) -> None:
        options = cast("ProcessesOptions", config.engine)
        workers = options.workers or _cores()
        super().__init__(config, space, journal, budget, reporter, workers)
        self._jobs: queue.SimpleQueue[Architecture | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[dict[str, Any] | Ended | BaseException] = queue.SimpleQueue()
        self._clients = [
            WorkerClient(
                json.loads(config.model_dump_json()),
                log,
                limit_s=options.trial_minutes * 60,
                memory_bytes=_share_of_memory(options.memory_gb, workers),
                history=self._history,
                threads=max(1, _cores() // workers),
            )
            for _ in range(workers)
        ]
        self._threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._clients]
        for thread in self._threads:
            thread.start()

    def _history(self) -> list[dict[str, Any]]:
        return history_of(list(self._known.values()))

    def _start(self, architecture: Architecture) -> None:
        self._jobs.put(architecture)

    def _wait(self) -> Ended:
        while True:
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=_LOOK_EVERY_S)
                if isinstance(news, BaseException):
                    raise news
                if isinstance(news, Ended):
                    return news
                self._reporter.trial_progress(news)

    def _serve(self, client: WorkerClient) -> None:
        try:
            while (architecture := self._jobs.get()) is not None:
                self._news.put(self._judged(client, architecture))
        except BaseException as error:  # whatever ends this thread, the main one has to hear of it
            self._news.put(error)
        finally:
            client.stop()

    def _judged(self, client: WorkerClient, architecture: Architecture) -> Ended:
        started, began = datetime.now(UTC), time.monotonic()
        try:
            answer = client.ask({"architecture": architecture}, self._news.put)
            result = TrialResult(answer["status"], answer["objectives"], answer["details"], answer["error"])
        except WorkerFailure as failure:
            result = TrialResult("failed", error=str(failure))
        return Ended(architecture, result, started, time.monotonic() - began)

    def shutdown(self) -> None:
        """End the child processes, and the threads that watch them."""
        for _ in self._threads:
            self._jobs.put(None)
        for client in self._clients:
            client.kill()
        for thread in self._threads:
            thread.join()


def _cores() -> int:
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count() or 1


def _share_of_memory(limit_gb: float | None, workers: int) -> int:
    """Bytes that each may take: the configured limit, or its share of what may be taken now."""
    return memory_allowance(limit_gb) if limit_gb is not None else memory_allowance(None) // workers
