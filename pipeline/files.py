"""Files and directories that survive a kill: written whole, and held by one process at a time.

A directory may be a stranger's. So nothing that waits in it under a name is followed or trusted: temporary files lie in
a folder of their own with a random name, a file that is appended to or locked is opened only if it is a plain one, and
a directory that is only looked at is sealed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from latency_models.files import kind_of
from pipeline.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNFINISHED = ".unfinished"
"""Suffix of temporary folders; a process that was killed may leave one."""

_LOCK = ".lock"
_SEALED: ContextVar[tuple[Path, frozenset[str]] | None] = ContextVar("sealed directory", default=None)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new, never a part."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; the file written there takes the place of `path` when the block succeeds.

    A link of that name is replaced, not followed.

    Raises:
        OSError: it can't be written.
        SealedDirectoryError: it lies in a directory that is only looked at.
    """
    with _folder_beside(path) as folder:
        unfinished = folder / "content"  # the file's own name may be as long as a name may be
        try:
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:  # that of a full disk names no file, others name the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(path: Path) -> None:
    """Find out before long work whether `write_whole` can write a file.

    Raises:
        OSError: it can't.
    """
    with _folder_beside(path) as folder:
        (folder / "content").touch()


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Give a new folder beside a file, with a name that nobody can guess, for this user alone."""
    _check_unsealed(path)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".hwnas-", suffix=UNFINISHED, dir=path.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to write at its end; it is made where there is none.

    Raises:
        OSError: it can't be written, or it is no plain file of its own: a link, a pipe, or a file with another name
            elsewhere, which would be changed there.
        SealedDirectoryError: it lies in a directory that is only looked at.
    """
    return os.fdopen(_open_own(path, os.O_WRONLY | os.O_APPEND), "ab")


def _open_own(path: Path, flags: int) -> int:
    """The descriptor of a plain file that has this name alone, made where there is none; nothing in it is changed."""
    _check_unsealed(path)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise OSError(errno.EINVAL, f"is {kind_of(path.lstat().st_mode)}, not a file", str(path)) from error
        raise
    try:
        _check_own(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_own(path: Path) -> None:
    """Check that a file that is to be written in its place is a plain one, and has this name alone.

    Raises:
        OSError: it isn't, or isn't there.
    """
    _check_unsealed(path)
    _check_own(path.lstat(), path)


def _check_own(seen: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, f"is {kind_of(seen.st_mode)}, not a file", str(path))
    if seen.st_nlink > 1:
        fault = "has another name elsewhere (a hard link), where it would be changed as well; put a copy in its place"
        raise OSError(errno.EINVAL, fault, str(path))


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the lock ends with the process, however it ends.

    Raises:
        RunDirectoryError: another process holds it, or it can't be locked.
    """
    try:
        descriptor = _open_own(directory / _LOCK, os.O_RDWR)
    except OSError as error:
        raise RunDirectoryError(f"{directory} can't be locked: {_LOCK} {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirectoryError(f"{directory} is in use by another hwnas process") from None
        except OSError as error:
            raise RunDirectoryError(f"{directory} can't be locked: {error.strerror or error}") from error
        yield
    finally:
        os.close(descriptor)


class SealedDirectoryError(Exception):
    """A command that only looks at a directory was about to write into it: a fault of ours."""


@contextmanager
def sealed(directory: Path, writes: frozenset[str] = frozenset()) -> Iterator[None]:
    """Have nothing written into a directory, as long as the context lasts.

    Args:
        directory: of which a command is given to look at.
        writes: names of files in it that the command is there to write.
    """
    token = _SEALED.set((directory.absolute(), writes))
    try:
        yield
    finally:
        _SEALED.reset(token)


def _check_unsealed(path: Path) -> None:
    seal = _SEALED.get()
    if seal is None:
        return
    directory, writes = seal
    place = path.absolute()
    if place.is_relative_to(directory) and place.relative_to(directory).as_posix() not in writes:
        raise SealedDirectoryError(f"{path} would be written, but {directory} is only looked at")


def check_plain(path: Path) -> None:
    """Check that what stands under a name, if anything, is a file or a folder, not a link or a special file.

    Raises:
        OSError: it is something else.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, f"is {kind_of(mode)}; put the file or the folder itself in its place", str(path))
