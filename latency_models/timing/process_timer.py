"""Timers in other processes: started when they are needed, replaced when they die."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_models import timer
from latency_models.errors import InvalidModelError, TimerError
from latency_models.graph.model_file import check_readable, model_label
from latency_models.runners.runner import user_error
from latency_models.timing.connection import Connection, ConnectionEndedError, exit_in_words, last_line, printable
from latency_models.timing.timers import Rounds, Timer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from latency_models.devices.device import Device

STARTING = "it was started"

_PATIENCE = 20.0  # times as long as the first runs of the models suggest


@dataclass(frozen=True)
class TimeLimits:
    """Seconds after which a process that gives no answer is ended: at its start, to a request, to a model to load."""

    start_s: float = 120.0
    answer_s: float = 60.0
    load_s: float = 1800.0  # some providers compile a model for many minutes


@dataclass
class _Loaded:
    """A model as it was handed over, and its handle in the present process (None: not loaded there yet)."""

    model: bytes | Path
    batch_size: int
    feeds: Mapping[str, np.ndarray] | None
    handle: int | None = None
    first_run_s: float = 0.0


class ProcessTimer(Timer):
    """The base of timers that run models in another process.

    A subclass starts the process and explains its end. A process that dies, hangs or is interrupted is ended; the next
    call starts a fresh one and loads there what was loaded before.
    """

    def __init__(self, device: Device, limits: TimeLimits | None = None) -> None:
        self.limits = limits if limits is not None else TimeLimits()
        self._device = device
        self._connection: Connection | None = None
        self._loaded: dict[int, _Loaded] = {}
        self._next = 0

    @property
    def pid(self) -> int | None:
        """The id of the process on this machine; None where none is running."""
        return None if self._connection is None else self._connection.pid

    @abstractmethod
    def _start(self) -> Connection:
        """Start the process and read its hello."""

    def _greeted(self, connection: Connection, preamble: bytes = b"", *, place: str = "this machine") -> Connection:
        """The connection after its hello; TimerError where the process lacks a package."""
        hello = connection.greet(self.limits.start_s, preamble)
        if hello["missing"] is not None:
            connection.end()
            python = printable(f"Python {hello['python']} ({hello['executable']})")
            raise TimerError(
                f"{python} on {place} can't import {printable(hello['missing'])}; models are timed with numpy and "
                "onnxruntime: install them for that Python, or name another one"
            )
        return connection

    @abstractmethod
    def _explained(self, ended: ConnectionEndedError, doing: str) -> TimerError:
        """The error for the user when the process ended while `doing`."""

    @abstractmethod
    def _packed(self, model: bytes | Path) -> tuple[str | None, list[bytes]]:
        """A model in a form for the process: a path that it can open, or None and the bytes."""

    def facts(self) -> dict[str, Any]:
        return dict(self._ask({"do": "facts"}, doing="it told what machine it runs on")[0]["facts"])

    def load(self, model: bytes | Path, batch_size: int, feeds: Mapping[str, np.ndarray] | None = None) -> int:
        check_readable(model)
        loaded = _Loaded(model, batch_size, feeds)
        self._load(loaded)
        self._next += 1
        self._loaded[self._next] = loaded
        return self._next

    def alternate(self, handles: Sequence[int], runs: Sequence[int], rounds: int) -> Rounds:
        models = [self._loaded[handle] for handle in handles]
        self._connected()
        for model in models:
            if model.handle is None:
                self._load(model)
        expected_s = rounds * sum(model.first_run_s * count for model, count in zip(models, runs, strict=True))
        limit_s = self.limits.answer_s + _PATIENCE * expected_s
        handles_there = [model.handle for model in models]
        request = {"do": "alternate", "handles": handles_there, "runs": list(runs), "rounds": rounds}
        answer, parts = self._ask(request, doing="models were run", limit_s=limit_s)
        times = [np.frombuffer(part, "<i8").reshape(rounds, 2, count) for part, count in zip(parts, runs, strict=True)]
        return Rounds(tuple(times), answer["cpu_share"])

    def unload(self, handle: int) -> None:
        model = self._loaded.pop(handle)
        if model.handle is not None and self._connection is not None:
            with contextlib.suppress(TimerError):  # the model went with its process
                self._ask({"do": "unload", "handle": model.handle}, doing="a model was freed")

    def close(self) -> None:
        """End the process."""
        self._drop()
        self._loaded.clear()

    def _load(self, loaded: _Loaded) -> None:
        path, parts = self._packed(loaded.model)
        feeds = None
        if loaded.feeds is not None:
            arrays = {name: np.ascontiguousarray(array) for name, array in loaded.feeds.items()}
            for name, array in arrays.items():
                if array.dtype.hasobject:
                    raise InvalidModelError(model_label(loaded.model), f"input {name!r} is no array of numbers")
            feeds = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
            parts = [*parts, *(array.tobytes() for array in arrays.values())]
        answer, _ = self._ask(
            {"do": "load", "batch_size": loaded.batch_size, "path": path, "feeds": feeds},
            parts,
            doing="it loaded the model",
            limit_s=self.limits.load_s,
            model=loaded.model,
        )
        loaded.handle, loaded.first_run_s = answer["handle"], answer["first_run_s"]

    def _ask(
        self,
        request: dict[str, Any],
        parts: Sequence[bytes] = (),
        *,
        doing: str,
        limit_s: float | None = None,
        model: bytes | Path = b"",
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send one request and return its answer; what is refused is raised as the user's error."""
        connection = self._connected()
        try:
            answer, samples = connection.exchange(request, parts, limit_s or self.limits.answer_s)
        except ConnectionEndedError as ended:
            self._drop()
            raise self._explained(ended, doing) from None
        except BaseException:
            self._drop()  # an answer that nobody read would pass for the next one's
            raise
        if "refused" in answer:
            raise user_error(timer.RefusedError(answer["refused"], printable(answer["reason"])), model, self._device)
        return answer, samples

    def _connected(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._start()
            except ConnectionEndedError as ended:
                raise self._explained(ended, STARTING) from None
            self._open()
        return self._connection

    def _open(self) -> None:
        settings = {
            "threads": self._device.threads,
            "provider": self._device.provider,
            "provider_options": dict(self._device.provider_options),
        }
        try:
            self._ask({"do": "open", **settings}, doing=STARTING)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """End the process, if there is one; models are loaded again when they are next run."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None
        for loaded in self._loaded.values():
            loaded.handle = None


class WorkerTimer(ProcessTimer):
    """A timer in a fresh Python process of this machine, which lasts until the timer is closed."""

    def _start(self) -> Connection:
        if not sys.executable:
            raise TimerError("no Python is known here that a worker process could be started with")
        # The kernel ends the worker with the thread that starts it, so only one that lasts is named.
        lasting = threading.current_thread() is threading.main_thread()
        # -P: beside the file there are others, one of them with the name of a standard module.
        command = [sys.executable, "-P", timer.__file__, str(os.getpid() if lasting else 0)]
        return self._greeted(Connection(command))

    def _explained(self, ended: ConnectionEndedError, doing: str) -> TimerError:
        if ended.hung_s is not None:
            return TimerError(f"the worker process gave no answer for {ended.hung_s:.0f} s while {doing}; it was ended")
        how = exit_in_words(ended.exit_code)
        return TimerError(f"the worker process {how} while {doing}{last_line(ended.said)}")

    def _packed(self, model: bytes | Path) -> tuple[str | None, list[bytes]]:
        if isinstance(model, bytes):
            return None, [model]
        return str(model.absolute()), []
