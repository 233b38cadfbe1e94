"""A timer in another process: started when it is needed, asked over its pipes, replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from latency_models import timer
from latency_models.errors import InvalidModelError, TimerError
from latency_models.graph.model_file import check_readable, model_label
from latency_models.runners.runner import in_words
from latency_models.timing.timers import Alternation, Timer, as_load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from latency_models.devices.device import Device

STARTING = "it was started"

_START_S = 120.0
_ANSWER_S = 60.0
_LOAD_S = 1800.0  # some providers compile a model for many minutes
_PATIENCE = 20.0  # times as long as the first runs of the models suggest
_END_S = 2.0
_MOST_CHATTER = 1 << 20
_LAST_WORDS = 4000
_LONGEST_ANSWER = 1 << 30


class ConnectionEndedError(Exception):
    """The process ended, or was ended; `said` is the end of its standard error, `exit_code` as Popen has it."""

    def __init__(self, said: str, exit_code: int | None, hung_s: float | None) -> None:
        self.said, self.exit_code, self.hung_s = said, exit_code, hung_s
        super().__init__(said)


@dataclass
class _Loaded:
    """A model as it was handed over, and what the present process calls it (None: not loaded there yet)."""

    model: bytes | Path
    batch_size: int
    feeds: Mapping[str, np.ndarray] | None
    handle: int | None = None
    first_run_s: float = 0.0


class ProcessTimer(Timer):
    """What timers in other processes share; a subclass starts the process and says what its end means.

    A process that dies, hangs or is interrupted is ended. The next call starts a fresh one and loads there what was
    loaded before.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._connection: Connection | None = None
        self._loaded: dict[int, _Loaded] = {}
        self._next = 0

    @abstractmethod
    def _start(self) -> Connection:
        """Start the process, up to where it says hello."""

    def _greeted(self, connection: Connection, preamble: bytes = b"", *, place: str = "this machine") -> Connection:
        """The connection after its hello, which has to tell of no missing package."""
        hello = connection.greet(_START_S, preamble)
        if hello["missing"] is not None:
            connection.end()
            python = printable(f"Python {hello['python']} ({hello['executable']})")
            raise TimerError(
                f"{python} on {place} can't import {printable(hello['missing'])}; models are timed with numpy and "
                "onnxruntime: install them for that Python, or name another one"
            )
        return connection

    @abstractmethod
    def _end_in_words(self, ended: ConnectionEndedError, doing: str) -> TimerError:
        """What the end of the process while `doing` means, for the user."""

    @abstractmethod
    def _packed(self, model: bytes | Path) -> tuple[str | None, list[bytes]]:
        """A model as the process gets it: a path that it can open, or None and the bytes."""

    def facts(self) -> dict[str, Any]:
        """See `Timer.facts`."""
        return dict(self._ask({"do": "facts"}, doing="it told what machine it runs on")[0]["facts"])

    def load(self, model: bytes | Path, batch_size: int, feeds: Mapping[str, np.ndarray] | None = None) -> int:
        """See `Timer.load`."""
        check_readable(model)
        loaded = _Loaded(model, batch_size, feeds)
        self._load(loaded)
        self._next += 1
        self._loaded[self._next] = loaded
        return self._next

    def alternate(self, handles: Sequence[int], runs: Sequence[int], rounds: int) -> Alternation:
        """See `Timer.alternate`."""
        models = [self._loaded[handle] for handle in handles]
        self._connected()
        for model in models:
            if model.handle is None:
                self._load(model)
        expected_s = rounds * sum(model.first_run_s * count for model, count in zip(models, runs, strict=True))
        request = {
            "do": "alternate",
            "handles": [model.handle for model in models],
            "runs": list(runs),
            "rounds": rounds,
        }
        answer, parts = self._ask(request, doing="models were run", limit_s=_ANSWER_S + _PATIENCE * expected_s)
        times = [np.frombuffer(part, "<i8").reshape(rounds, 2, count) for part, count in zip(parts, runs, strict=True)]
        return Alternation(tuple(times), answer["cpu_share"], as_load(answer["load"]))

    def unload(self, handle: int) -> None:
        """See `Timer.unload`."""
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
            limit_s=_LOAD_S,
            model=loaded.model,
        )
        loaded.handle, loaded.first_run_s = answer["handle"], answer["first_run_s"]

    def _ask(
        self,
        request: dict[str, Any],
        parts: Sequence[bytes] = (),
        *,
        doing: str,
        limit_s: float = _ANSWER_S,
        model: bytes | Path = b"",
    ) -> tuple[dict[str, Any], list[bytes]]:
        """One request and its answer."""
        connection = self._connected()
        try:
            answer, samples = connection.exchange(request, parts, limit_s)
        except ConnectionEndedError as ended:
            self._drop()
            raise self._end_in_words(ended, doing) from None
        except BaseException:
            self._drop()  # an answer that nobody took would be taken for the next one's
            raise
        if "refused" in answer:
            raise in_words(timer.RefusedError(answer["refused"], printable(answer["reason"])), model, self._device)
        return answer, samples

    def _connected(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._start()
            except ConnectionEndedError as ended:
                raise self._end_in_words(ended, STARTING) from None
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
        """End the process, if there is one; the models are loaded again when they are asked for."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None
        for loaded in self._loaded.values():
            loaded.handle = None


class WorkerTimer(ProcessTimer):
    """Runs models in a fresh Python process of this machine, which persists until it is closed."""

    def _start(self) -> Connection:
        if not sys.executable:
            raise TimerError("no Python is known here that a worker process could be started with")
        # The kernel ends the worker with the thread that starts it, so only one that lasts is named.
        lasting = threading.current_thread() is threading.main_thread()
        # -P: beside the file there are others, one of them with the name of a standard module.
        command = [sys.executable, "-P", timer.__file__, str(os.getpid() if lasting else 0)]
        return self._greeted(Connection(command))

    def _end_in_words(self, ended: ConnectionEndedError, doing: str) -> TimerError:
        if ended.hung_s is not None:
            return TimerError(f"the worker process gave no answer for {ended.hung_s:.0f} s while {doing}; it was ended")
        how = exit_in_words(ended.exit_code)
        return TimerError(f"the worker process {how} while {doing}{last_line(ended.said)}")

    def _packed(self, model: bytes | Path) -> tuple[str | None, list[bytes]]:
        if isinstance(model, bytes):
            return None, [model]
        return str(model.absolute()), []


class Connection:
    """A process that speaks the timer's protocol over its standard input and output.

    Raises ConnectionEndedError from every method that talks to it, when it ends or takes longer than it may.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._errors = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - `_end` closes it
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=env,
                start_new_session=True,  # Ctrl-C is this process's to handle
            )
        except OSError as error:
            self._errors.close()
            raise TimerError(f"{command[0]} can't be started: {error.strerror or error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        self._hung_s: list[float] = []
        self.end = weakref.finalize(self, _end, self._process, self._errors, os.getpid())
        """End the process; what Python does anyway when nobody holds this object any more, or at its own end."""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def greet(self, limit_s: float, preamble: bytes = b"") -> dict[str, Any]:
        """Send `preamble` and wait for the hello, past whatever is printed before it."""
        with self._within(limit_s):
            self._to.write(preamble)
            self._to.flush()
            self._skip_to_magic()
            hello = self._read()[0]
        if hello.get("protocol") != timer.PROTOCOL:
            self.end()
            raise TimerError(
                f"the timer speaks version {hello.get('protocol')} of its protocol, this process version "
                f"{timer.PROTOCOL}: hwnas was changed while it ran; start it again"
            )
        return hello

    def exchange(
        self, request: Mapping[str, Any], parts: Sequence[bytes], limit_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and wait for its answer."""
        with self._within(limit_s):
            timer.write_frame(self._to, request, parts)
            return self._read()

    def _read(self) -> tuple[dict[str, Any], list[bytes]]:
        frame = timer.read_frame(self._from, _LONGEST_ANSWER)
        if frame is None:
            raise EOFError
        return frame

    def _skip_to_magic(self) -> None:
        seen = b""
        for _ in range(_MOST_CHATTER):
            byte = self._from.read(1)
            if not byte:
                raise EOFError
            seen = (seen + byte)[-len(timer.MAGIC) :]
            if seen == timer.MAGIC:
                return
        raise ValueError(f"{_MOST_CHATTER} bytes of something else came before the hello")

    @contextlib.contextmanager
    def _within(self, limit_s: float) -> Iterator[None]:
        """Kill the process when the block takes longer, and say in one way how it ended."""
        watchdog = threading.Timer(limit_s, _hang, [self._process, self._hung_s, limit_s])
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except (EOFError, OSError, ValueError) as error:
            raise self._ended(error) from error
        finally:
            watchdog.cancel()

    def _ended(self, error: Exception) -> ConnectionEndedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)  # what it said is complete only then
        exit_code = self._process.poll()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _LAST_WORDS))
        said = self._errors.read().decode(errors="replace")
        if isinstance(error, ValueError):
            said += f"\nno answer that can be read: {error}"
            self._process.kill()
        self.end()
        return ConnectionEndedError(said, exit_code, self._hung_s[0] if self._hung_s else None)


def _hang(process: subprocess.Popen[bytes], hung_s: list[float], limit_s: float) -> None:
    """Note that it took too long and kill it; a function, so that its thread keeps no connection from its end."""
    hung_s.append(limit_s)
    process.kill()


def _end(process: subprocess.Popen[bytes], errors: BinaryIO, owner: int) -> None:
    """Close the pipes, which asks the process to end, and kill it when it doesn't."""
    if os.getpid() != owner:
        return  # a forked copy of the process that started it
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    errors.close()


def exit_in_words(exit_code: int | None) -> str:
    """How a process ended."""
    if exit_code is None:
        return "stopped answering"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    import signal

    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def last_line(said: str) -> str:
    """The last line that a process wrote to its standard error, to be put after a sentence."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; the last that it said: {printable(lines[-1][:300])}" if lines else ""


def printable(text: object) -> str:
    """What came from another host, without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))
