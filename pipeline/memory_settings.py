"""What the C library does with memory that is freed and soon needed again, for the processes that train.

A step of a training allocates its activations, frees them, and the next one needs the same again. By default glibc
gives large blocks back to the kernel at once and asks anew: that is tens of thousands of page faults a step. While
`kept_memory` holds, what is freed stays with the process; afterwards it goes back. The numbers computed are the same.

Other C libraries and allocators do as they like; nothing is set there. Nor where the user has set glibc's own
variables: what the user has set stays.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from latency_models.timer import c_library, give_back_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # mallopt's parameters, from malloc.h
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
# Where glibc's adjusting of its own accord ends in a process that frees large blocks: it ends for good when set.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 64 * _MIB}


class _Uses:
    """Counts the uses that last: the first sets the C library up, the last sets it back."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def begin(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                _set(_KEPT)

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                _set(_USUAL)
                give_back_memory()


_USES = _Uses()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep memory that is freed for what comes next; at the end of the last of several uses it goes back."""
    if not _is_ours_to_set():
        yield
        return
    _USES.begin()
    try:
        yield
    finally:
        _USES.end()


def _set(values: dict[int, int]) -> None:
    if (library := c_library()) is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def _is_ours_to_set() -> bool:
    """Whether this is glibc and the user hasn't decided: by `GLIBC_TUNABLES`, or by the older variables."""
    own = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    return c_library() is not None and not own and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", "")
