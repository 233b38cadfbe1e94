"""Text for a terminal: whatever a name or a message of somebody else's holds, it steers nothing.

Trials, nodes, files, hosts and errors have names that this program didn't choose. All that the command line shows goes
through `clean`: letters that would move the cursor, change colours, retitle the window or turn the direction of writing
are shown by their numbers.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDS = re.compile(r"\r\n")
_KEPT = "\n\t"
_SPACES = "Zs"


def clean(text: str) -> str:
    """The text with the numbers of letters that aren't shown in their place; spaces, tabs and ends of lines stay."""
    if text.isascii() and text.replace("\r\n", "").replace("\n", "").isprintable():
        return text
    return "\r\n".join(_cleaned(part) for part in _ENDS.split(text))


def clean_line(text: str) -> str:
    """Like `clean`, for what has to stay one line."""
    return clean(text).replace("\n", "\\n").replace("\r", "\\r")


def _cleaned(text: str) -> str:
    return "".join(letter if _is_shown(letter) else _number_of(letter) for letter in text)


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == _SPACES


def _number_of(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class _CleanHandler(logging.Handler):
    """Shows what libraries log on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        _tell(self.format(record))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _tell(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n"))


def _tell(text: str) -> None:
    print(clean(text), file=sys.stderr)


@contextmanager
def clean_warnings() -> Iterator[None]:
    """Have what libraries log and warn reach the terminal through `clean`, where nobody else listens."""
    logs, shows = logging.lastResort, warnings.showwarning
    logging.lastResort, warnings.showwarning = _CleanHandler(logging.WARNING), _show_warning
    try:
        yield
    finally:
        logging.lastResort, warnings.showwarning = logs, shows
