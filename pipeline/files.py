"""One process at a time in a directory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
