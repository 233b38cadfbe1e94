"""Text for people: whatever a name or a message of somebody else's holds, it steers neither terminal nor page.

Trials, classes, nodes, files, hosts and errors have names that this program didn't choose. All that the command line
shows, the report and a bundle's model card go through `clean`: letters that would move the cursor, change colours,
retitle the window or turn the direction of writing are shown by their numbers.
"""

from __future__ import annotations

import re
import unicodedata

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
