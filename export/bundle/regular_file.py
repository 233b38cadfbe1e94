"""Opening the files of a folder that somebody gave: regular ones in it alone, and nothing that could wait or lead away.

Opening a named pipe waits for a writer, reading a device may never end, and a link leads out of the folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotRegularError(OSError):
    """A name stands for something else than a regular file of the folder; the message begins after the name."""


def open_regular(folder: Path, name: str) -> BufferedReader:
    """Open a regular file of a folder for reading.

    Args:
        folder: itself may be a link; it's the user who names it.
        name: of the file, relative, with slashes between folders.

    Raises:
        NotRegularError: it is a link, or lies behind one, or is a folder, a pipe, a device or a socket.
        OSError: it is missing, or can't be read.
    """
    path = folder / name
    place = folder
    for part in PurePosixPath(name).parts:
        place /= part
        mode = place.lstat().st_mode  # before opening: that alone does things to some devices
        if stat.S_ISLNK(mode):
            raise NotRegularError(_link_words(folder, place))
    _check_regular(mode)
    descriptor = os.open(path, _FLAGS)
    try:
        _check_regular(os.fstat(descriptor).st_mode)
    except NotRegularError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bounded(folder: Path, name: str, most_bytes: int) -> bytes:
    """Read a regular file of a folder that may not be larger than `most_bytes`.

    Raises:
        NotRegularError: as `open_regular`, or it is larger.
        OSError: it is missing, or can't be read.
    """
    with open_regular(folder, name) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise NotRegularError(f"is larger than the {most_bytes:,} bytes that it may have")
    return content


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a named pipe, a device or a socket"
        raise NotRegularError(f"is no regular file, but {what}")


def _link_words(folder: Path, link: Path) -> str:
    try:
        outside = not link.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        outside = True
    return f"is a link to {'outside the bundle' if outside else 'another file'}; a bundle holds its files themselves"
