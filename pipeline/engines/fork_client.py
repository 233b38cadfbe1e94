"""The parent's end of a fork server: start it, and have it fork workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.engines.control import receive, send
from pipeline.errors import HwnasError
from pipeline.files import open_to_append
from pipeline.thread_settings import child_environment
from pipeline.user_modules import current_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_START_LIMIT_S = 300.0
_ANSWER_LIMIT_S = 30.0


class ForkServer:
    """A process that has imported all that workers need, and forks them; started when the first one is wanted.

    It ends with this process, however that ends, and its workers end with it. Several threads may use it.

    Args:
        setup: the config, as a mapping.
        log: file that the processes' stdout and stderr are appended to.
    """

    def __init__(self, setup: Mapping[str, Any], log: Path) -> None:
        self.log = log
        self._setup, self._names = setup, current_source().as_json()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the server, unless it runs, from a thread that lives as long as the workers are needed.

        The kernel ends the server with the *thread* that started it, not only with its process.

        Raises:
            HwnasError: it can't begin at all, for example because the data is missing.
        """
        with self._lock, self._told():
            self._start()

    def begin(self) -> tuple[int, int, int]:
        """Fork a worker.

        Returns:
            Its process id, and the descriptors of this end of its pipes, for requests and for answers.

        Raises:
            HwnasError: the server can't begin at all, for example because the data is missing.
        """
        child_in, requests = os.pipe()
        answers, child_out = os.pipe()
        try:
            with self._lock, self._told():
                self._start()
                pid: int = self._ask({"begin": True}, (child_in, child_out))["pid"]
        except BaseException:  # also one that interrupts the wait
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        return pid, requests, answers

    def reap(self, pid: int) -> int | None:
        """The exit code of a worker that ends, negative for a signal; None where it isn't known."""
        with self._lock:
            try:
                code: int | None = self._ask({"reap": pid})["code"]
            except (OSError, EOFError):  # it has ended itself, and its workers with it
                return None
            return code

    def stop(self) -> None:
        """End the server, and any worker that still runs."""
        with self._lock:
            self._end()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell in a sentence that the server has ended, and be ready for another one."""
        try:
            yield
        except (OSError, EOFError) as error:
            self._end()
            raise HwnasError(f"the process that starts workers has ended; see {self.log}") from error

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        self._control, other = socket.socketpair()
        # -P: a `pipeline.py` of the user's, in the working folder, isn't taken for this package.
        command = [sys.executable, "-P", "-m", "pipeline.engines.fork_server", str(other.fileno()), str(os.getpid())]
        with other, open_to_append(self.log) as log:
            self._process = subprocess.Popen(  # a session of its own: Ctrl-C is the parent's to handle
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
                pass_fds=(other.fileno(),),
                start_new_session=True,
            )
        self._control.settimeout(_START_LIMIT_S)
        answer = self._ask({"setup": self._setup, "names": self._names})
        self._control.settimeout(_ANSWER_LIMIT_S)
        if "fatal" in answer:
            self._end()
            raise fatal(answer)

    def _ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        if self._control is None:
            raise EOFError
        send(self._control, message, descriptors)
        return receive(self._control)[0]


def fatal(answer: Mapping[str, Any]) -> HwnasError:
    """The error that ended a process before it could work, with its exit code."""
    error = HwnasError(answer["fatal"])
    error.exit_code = answer["exit_code"]
    return error
