"""A process that answers the timer's requests over its pipes, and how its end reads in words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any, cast

from latency_models import timer
from latency_models.errors import TimerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

_END_S = 2.0
_MOST_CHATTER = 1 << 20
_LAST_WORDS = 4000
_LONGEST_ANSWER = 1 << 30


class ConnectionEndedError(Exception):
    """A process ended, or was ended.

    `said` is the end of its standard error, `exit_code` as Popen has it, and `hung_s` the time that it was given to
    answer, where it took longer.
    """

    def __init__(self, said: str, exit_code: int | None, hung_s: float | None) -> None:
        self.said, self.exit_code, self.hung_s = said, exit_code, hung_s
        super().__init__(said)


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
        """End the process. Python does it anyway when the connection is no longer referenced, or at its own end."""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def greet(self, limit_s: float, preamble: bytes = b"") -> dict[str, Any]:
        """Send `preamble` and return the hello; what is printed before it is skipped."""
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
        """Send a request with binary parts and return its answer, likewise."""
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
        """Kill the process when the block takes longer; any end of it becomes a ConnectionEndedError."""
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
            self._process.wait(_END_S)  # its standard error is complete only then
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
    """Kill a process that took too long. A function, so that the watchdog's thread keeps no connection alive."""
    hung_s.append(limit_s)
    process.kill()


def _end(process: subprocess.Popen[bytes], errors: BinaryIO, owner: int) -> None:
    """Close the pipes, at which the process ends by itself; kill it where it doesn't."""
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
    """The end of a process in words, to be put after "the process"."""
    if exit_code is None:
        return "stopped answering"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def last_line(said: str) -> str:
    """The last line of a process's standard error, to be put after a sentence."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; the last that it said: {printable(lines[-1][:300])}" if lines else ""


def printable(text: object) -> str:
    """A text from another host, without characters that could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))
