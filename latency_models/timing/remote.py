"""A timer on another host, reached through the system's `ssh`.

One file, `latency_models/timer.py`, is sent over ssh's standard input and run there from memory. Nothing is written on
the other host, which needs Python 3.9, numpy and onnxruntime. The host's key is always checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latency_models import timer
from latency_models.errors import TimerError
from latency_models.graph.external_data import external_tensors, load_with_external_data
from latency_models.timing.connection import Connection, ConnectionEndedError, last_line, printable
from latency_models.timing.process_timer import STARTING, ProcessTimer, TimeLimits

if TYPE_CHECKING:
    from latency_models.devices.device import Device

_SSH = "ssh"
# The first value that ssh meets for a setting counts: these stand before the user's options, the next ones after.
_ALWAYS = ("BatchMode=yes", "StrictHostKeyChecking=yes", "LogLevel=ERROR", "ClearAllForwardings=yes")
_UNLESS_GIVEN = ("ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3")
_SSH_FAILED = 255
_NO_SUCH_COMMAND = (126, 127)
_OLDEST_PYTHON = (3, 9)
_TOO_OLD = "hwnas needs another Python: "
# Runs on whatever Python answers, Python 2 as well; the folder that a session starts in is no place for modules.
_CHECK = f"""\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
if sys.version_info < {_OLDEST_PYTHON}:
    sys.exit({_TOO_OLD!r} + sys.version.split()[0])
exec(compile(sys.stdin.buffer.read(SIZE), "timer.py", "exec"), {{"__name__": "__main__"}})
"""


class SshTimer(ProcessTimer):
    """A timer on `device.host`, in a process that lasts until the timer is closed or the connection ends."""

    def __init__(self, device: Device, limits: TimeLimits | None = None) -> None:
        if device.host is None:
            raise ValueError(f"device {device.name!r} has no host")
        super().__init__(device, limits)
        self._host = device.host

    def _start(self) -> Connection:
        if shutil.which(_SSH) is None:
            raise TimerError(
                f"device {self._device.name!r} is on host {self._host!r}, but there is no ssh on this machine; "
                "install OpenSSH's client (Debian's package openssh-client)"
            )
        source = Path(timer.__file__).read_bytes()
        check = _CHECK.replace("SIZE", str(len(source))).encode()
        # ssh's own messages are recognised, so they have to be in English.
        connection = Connection(self._command(len(check)), env={**os.environ, "LC_ALL": "C"})
        return self._greeted(connection, check + source, place=f"host {self._host!r}")

    def _command(self, check_size: int) -> list[str]:
        begin = f'import sys;exec(getattr(sys.stdin,"buffer",sys.stdin).read({check_size}))'
        there = f"exec {shell_quoted(self._device.python)} -u -B -c {shlex.quote(begin)}"
        always = [part for setting in _ALWAYS for part in ("-o", setting)]
        unless_given = [part for setting in _UNLESS_GIVEN for part in ("-o", setting)]
        return [_SSH, "-T", "-a", "-x", *always, *self._device.ssh_options, *unless_given, "--", self._host, there]

    def _explained(self, ended: ConnectionEndedError, doing: str) -> TimerError:
        host = f"host {self._host!r}"
        if ended.hung_s is not None:
            return TimerError(f"{host} gave no answer for {ended.hung_s:.0f} s while {doing}; the connection was ended")
        failed_to_start = ended.exit_code == _SSH_FAILED and doing == STARTING
        if failed_to_start and (reason := self._known_failure(ended.said)) is not None:
            return TimerError(f"{host} can't be reached: {reason}")
        if _TOO_OLD in ended.said:
            version = printable(ended.said.partition(_TOO_OLD)[2].split()[0])
            oldest = ".".join(map(str, _OLDEST_PYTHON))
            return TimerError(
                f"{self._device.python!r} on {host} is Python {version}; needed is {oldest} or newer: name another "
                "one as the device's python"
            )
        if ended.exit_code in _NO_SUCH_COMMAND:
            return TimerError(
                f"{host} has no Python that starts as {self._device.python!r}{last_line(ended.said)}; name another "
                "one as the device's python"
            )
        if ended.exit_code == _SSH_FAILED or ended.exit_code is None:
            return TimerError(f"the connection to {host} ended while {doing}{last_line(ended.said)}")
        code = ended.exit_code
        how = f"with exit code {code}" if code >= 0 else "because ssh was killed"
        return TimerError(f"the timer on {host} ended {how} while {doing}{last_line(ended.said)}")

    def _known_failure(self, said: str) -> str | None:
        """The meaning of ssh's messages and what to do about it; None for messages that no row of `_FAILURES` knows."""
        by_hand = shlex.join([_SSH, *self._device.ssh_options, self._host])
        for pattern, sentence in _FAILURES:
            if (match := re.search(pattern, said)) is not None:
                return sentence.format(found=printable(match[0].strip()), by_hand=by_hand)
        return None

    def _packed(self, model: bytes | Path) -> tuple[str | None, list[bytes]]:
        return None, [model if isinstance(model, bytes) else sendable(model)]


_FAILURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its key is not the one that is known for it. Either it was set up anew, or another machine answers in its "
        "place. Once you know that it is right, remove the old key (ssh-keygen -R) and accept the new one: {by_hand}",
    ),
    (
        r"No \S+ host key is known for [^\n]*|Host key verification failed",
        "its key isn't known here ({found}). Connect once by hand and compare the fingerprint: {by_hand}",
    ),
    (
        r"Could not resolve hostname [^\n]*",
        "its name isn't known ({found}); check the device's host, or the Host of that name in ssh's config",
    ),
    (
        r"[^\n]*Connection refused[^\n]*",
        "no ssh server listens there ({found}); start one, or check host and port",
    ),
    (
        r"[^\n]*(?:timed out|No route to host|[Uu]nreachable)[^\n]*",
        "nothing answers there ({found}); check that it is on, and the network between",
    ),
    (
        r"[^\n]*(?:Permission denied|Too many authentication failures)[^\n]*",
        "it lets you in by no key of yours ({found}); nobody is asked for a password here, so {by_hand} has to work "
        "without one (ssh-copy-id, ssh-agent)",
    ),
    (
        r"[^\n]*(?:[Bb]ad configuration option|command-line|usage: ssh|unknown option|[Uu]nsupported)[^\n]*",
        "ssh doesn't take its options ({found}); check the device's ssh_options and ssh's config",
    ),
)


def sendable(path: Path) -> bytes:
    """The bytes to send for a model's file, with its external data put in.

    Raises:
        InvalidModelError: external data that can't be read, or that makes it too large for one message (2 GB).
    """
    content = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError):
        return content  # ONNX Runtime says what is wrong with it
    if not external_tensors(proto):
        return content
    return bytes(load_with_external_data(path)[0].SerializeToString())


def shell_quoted(command: str) -> str:
    """The command quoted for a shell's line; a leading ~/ becomes the home of whoever runs it."""
    if command.startswith("~/"):
        return f'"$HOME"/{shlex.quote(command[2:])}'
    return shlex.quote(command)
