"""The parent's end of a worker process: start, ask, watch and replace it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.engines.fork_client import fatal
from pipeline.errors import HwnasError, StorageError
from pipeline.spaces.base import architecture_id
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.engines.fork_client import ForkServer
    from pipeline.spaces.base import Architecture

_WATCH_EVERY_S = 0.1
_START_LIMIT_S = 300.0
_PILOT_LIMIT_S = 120.0


class WorkerFailure(Exception):  # noqa: N818 - a trial's outcome, not a mistake in the program
    """A worker that died, hung or outgrew its memory while it ran a trial, in words."""


class WorkerClient:
    """One worker process, started when it is needed and replaced after a failure.

    Requests and answers are JSON lines over two pipes. The worker's own output goes to the log. It ends with this
    process, however that ends.

    Args:
        server: forks the worker.
        limit_s: seconds that one request may take.
        memory_bytes: resident memory that the child may take; a change holds from its next start on.
        threads: number that it computes with; torch's default when None. It may be changed between requests.
    """

    def __init__(
        self,
        server: ForkServer,
        *,
        limit_s: float,
        memory_bytes: int,
        threads: int | None = None,
    ) -> None:
        self._server, self.threads = server, threads
        self._limit_s, self.memory_bytes = limit_s, memory_bytes
        self._pid: int | None = None
        self._requests = -1
        self._answers = -1
        self._buffer = b""
        self._peers_sent = self._history_sent = 0

    def judge(
        self,
        architecture: Architecture,
        on_progress: Callable[[dict[str, Any]], None],
        peers: Sequence[dict[str, Any]] = (),
        history: Sequence[dict[str, Any]] = (),
    ) -> TrialResult:
        """Have the child run a trial; one that the child doesn't survive has failed.

        Args:
            architecture: in canonical form.
            on_progress: called after every epoch.
            peers: the trials that it is compared with, earlier calls' first; only new ones are sent.
            history: the trials that it may learn from, as `pipeline.costs.latency_source.history_of` gives them;
                likewise.

        Raises:
            HwnasError: the child can't begin at all, for example because its data is missing.
            StorageError: something couldn't be written, a full disk's fault and not the candidate's.
        """
        self.start()
        request = {
            "architecture": architecture,
            "peers": peers[self._peers_sent :],
            "history": history[self._history_sent :],
            "threads": self.threads,
        }
        self._peers_sent, self._history_sent = len(peers), len(history)
        try:
            answer = self._ask(request, on_progress)
        except WorkerFailure as failure:
            self.stop()
            return TrialResult("failed", error=str(failure))
        if refused := answer.get("refused"):
            self.stop()
            raise StorageError(f"trial {architecture_id(architecture)}: {answer['error']}", refused)
        if answer.get("replace"):
            self.stop()
        return TrialResult(answer["status"], answer["objectives"], answer["details"], answer["error"])

    def count(self, architecture: Architecture) -> TrialResult | None:
        """Have the child count a candidate's costs; its result where these break a limit, None where it is to be tried.

        What goes wrong the trial itself will tell. This worker runs no trials.

        Raises:
            HwnasError: the child can't begin at all, for example because its data is missing.
        """
        self.start(counts=True)
        try:
            answer = self._ask({"architecture": architecture}, lambda _: None)
        except WorkerFailure:
            self.stop()
            return None
        return TrialResult(answer["status"], answer["objectives"], answer["details"]) if "status" in answer else None

    def _ask(self, request: dict[str, Any], on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        self._send(request)
        deadline = time.monotonic() + self._limit_s  # one for the whole trial, however much it reports
        while "progress" in (answer := self._receive(deadline)):
            on_progress(answer["progress"])
        return answer

    def steps_per_second(self, architecture: Architecture, seconds: float, threads: int) -> float | None:
        """Steps of a candidate's training in a second with `threads` threads; None where that can't be known."""
        self.start()
        request = {"architecture": architecture, "pilot_s": seconds, "threads": threads}
        try:
            self._send(request)
            found: float | None = self._receive(time.monotonic() + _PILOT_LIMIT_S)["steps_per_s"]
        except WorkerFailure:
            self.stop()
            return None
        return found

    def kill(self) -> None:
        """Kill the worker, also from another thread; a call that waits for its answer ends with a failed trial."""
        pid = self._pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill the worker and wait for its end."""
        if self._pid is None:
            return
        self.kill()
        self._server.reap(self._pid)
        self._pid = None
        os.close(self._requests)
        os.close(self._answers)
        self._buffer = b""
        self._peers_sent = self._history_sent = 0

    def start(self, *, counts: bool = False) -> None:
        """Start the worker, unless it runs; one that `counts` can do nothing else.

        Raises:
            HwnasError: it can't begin at all, for example because its data is missing.
        """
        if self._pid is not None:
            return
        self._pid, self._requests, self._answers = self._server.begin()
        try:
            limits = {"memory_bytes": self.memory_bytes, "threads": self.threads}
            self._send({"counts": counts, **limits})
            answer = self._receive(time.monotonic() + _START_LIMIT_S)
        except WorkerFailure as failure:
            self.stop()
            raise HwnasError(f"the worker process can't start: {failure}; see {self._server.log}") from failure
        except BaseException:
            self.stop()
            raise
        if "fatal" in answer:
            self.stop()
            raise fatal(answer)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            os.write(self._requests, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerFailure(self._last_words()) from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._answers], [], [], _WATCH_EVERY_S)
            if readable:
                content = os.read(self._answers, 1 << 16)
                if not content:
                    raise WorkerFailure(self._last_words())
                self._buffer += content
                continue
            if time.monotonic() > deadline:
                raise WorkerFailure(f"hung: no result within {self._limit_s:g} s")
            self._check_memory()
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _check_memory(self) -> None:
        assert self._pid is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            resident = psutil.Process(self._pid).memory_info().rss
            if resident > self.memory_bytes:
                raise WorkerFailure(
                    f"out of memory: took {resident / 1e9:.1f} GB, may take {self.memory_bytes / 1e9:.1f} GB"
                )

    def _last_words(self) -> str:
        assert self._pid is not None
        code = self._server.reap(self._pid)
        if code is None:
            return "closed its pipe"
        if code < 0:
            return f"died from signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"


def memory_allowance(limit_gb: float | None) -> int:
    """Bytes that a worker may take: the configured limit, or four fifths of the memory available now."""
    return round(limit_gb * 1e9) if limit_gb is not None else round(0.8 * psutil.virtual_memory().available)
