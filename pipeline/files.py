"""Files and directories that survive a kill: written whole, and held by one process at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNFINISHED = ".unfinished"
"""Suffix of temporary files; a process that was killed may leave one."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new, never a part."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; the file written there takes its place when the block succeeds."""
    unfinished = _beside(path)
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out before long work whether `write_whole` can write a file.

    Raises:
        OSError: it can't.
    """
    unfinished = _beside(path)
    unfinished.touch()
    unfinished.unlink()


def _beside(path: Path) -> Path:
    # The file's own name may be as long as a name may be, and another process may write the same file.
    return path.with_name(f".hwnas-{os.getpid()}{UNFINISHED}")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the lock ends with the process, however it ends.

    Raises:
        RunDirectoryError: another process holds it, or it can't be locked.
    """
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunDirectoryError(f"{directory} is in use by another hwnas process") from None
    except OSError as error:
        raise RunDirectoryError(f"{directory} can't be locked: {error}") from error
    try:
        yield
    finally:
        lock.release()
