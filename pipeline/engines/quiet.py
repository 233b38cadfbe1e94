"""Measurements that wait until no training computes, although several processes train side by side.

A training is in the room, and leaves it for a moment after each step. A measurement closes the door, waits until the
room is empty, and has it alone. The door and the room are two bytes of one file that the processes lock (POSIX record
locks), so that a process that dies leaves nothing locked.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOOR, _ROOM = 0, 1
_LOOK_EVERY_S = 0.002
_PATIENCE_S = 20.0
"""A training that takes no steps of an optimizer leaves the room at its end only: then one measures beside it."""


class Quiet:
    """The room that the trainings and measurements of one search share.

    Args:
        file: descriptor of the shared file, as `shared_file` makes it; None where nothing runs side by side.
        patience_s: how long a measurement waits for the trainings.
    """

    def __init__(self, file: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._file, self._patience_s = file, patience_s

    @contextmanager
    def working(self) -> Iterator[None]:
        """Compute in the room, and let measurements in after each step of any torch optimizer."""
        if self._file is None:
            yield
            return
        self._enter()
        hook = register_optimizer_step_post_hook(lambda *_: self._let_pass())
        try:
            yield
        finally:
            hook.remove()
            self._lock(fcntl.LOCK_UN, _ROOM)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Have the room alone; gives whether that was possible before the patience ended."""
        if self._file is None:
            yield True
            return
        self._lock(fcntl.LOCK_EX, _DOOR)
        try:
            yield self._is_empty_in_time()
        finally:
            self._lock(fcntl.LOCK_UN, _ROOM)
            self._lock(fcntl.LOCK_UN, _DOOR)

    def _let_pass(self) -> None:
        self._lock(fcntl.LOCK_UN, _ROOM)
        self._enter()

    def _enter(self) -> None:
        self._lock(fcntl.LOCK_SH, _DOOR)
        self._lock(fcntl.LOCK_SH, _ROOM)
        self._lock(fcntl.LOCK_UN, _DOOR)

    def _is_empty_in_time(self) -> bool:
        until = time.monotonic() + self._patience_s
        while not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _ROOM):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _lock(self, how: int, byte: int) -> bool:
        assert self._file is not None
        try:
            fcntl.lockf(self._file, how, 1, byte)
        except BlockingIOError:
            return False
        return True


def shared_file() -> int:
    """A new file without a name, for the processes that inherit its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hwnas-quiet")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
