"""What libraries log and warn, on the terminal: cleaned like all that the command line shows."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from export.bundle.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator


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
