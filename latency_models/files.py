"""Files that are there whole or not at all, and files that are read only if they are plain ones of a sensible size."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

MOST_BYTES = 64 * 10**6
"""Of a text file that is read whole: some hundred times the largest that this project writes."""

_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(mode: int) -> str:
    """Name the kind of a file, from its `st_mode`."""
    return next((words for is_one, words in _KINDS if is_one(mode)), "a file")


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Read a file; what could hang or fill the memory is refused before anything is read.

    Raises:
        OSError: it can't be read, is no file (but a pipe, a device or a folder), or is larger than it may be.
    """
    _check_kind(path.stat(), path)  # opening alone does things to some devices
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a pipe isn't waited for
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        _check_kind(seen, path)
        if seen.st_size <= most_bytes and len(content := file.read(most_bytes + 1)) <= most_bytes:
            return content
    raise OSError(errno.EFBIG, f"is too large: more than {most_bytes / 1e6:g} MB", str(path))


def _check_kind(seen: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(seen.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, f"is {kind_of(seen.st_mode)}, not a file", str(path))


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a machine that loses power, finds the old file or the new one.

    Raises:
        OSError: the folder can't be made, or the file can't be written; nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that nobody can guess, and a file that wasn't there: no link that waits there is followed.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".hwnas-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
