"""A strict reader of JSON files that may be anybody's: one meaning, and no more work and memory than their size."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from latency_models.files import read_file
from latency_models.timer import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_DEEPEST = 64
_MOST_MISTAKES = 3
_LONGEST_QUOTE = 60


class DamagedJsonError(ValueError):
    """A file holds no JSON, or JSON that readers may take for different things; the message leaves out its name."""


def read_json(path: Path, most_bytes: int) -> object:
    """The document in a JSON file of at most `most_bytes`.

    Raises:
        OSError: the file can't be read, is no plain file, or is larger.
        DamagedJsonError: it is no JSON, has a key twice, NaN or a number beyond a float's, or is nested too deeply.
    """
    content = read_file(path, most_bytes)
    try:
        document = json.loads(
            content.decode("utf-8"), parse_constant=_refused, parse_float=_finite, object_pairs_hook=_distinct
        )
    except RecursionError:
        raise DamagedJsonError("it is nested too deeply") from None
    except (ValueError, MemoryError) as error:
        raise DamagedJsonError(f"no JSON ({one_line(error)})") from error
    _check_depth(document)
    return document


def mistakes(error: ValidationError) -> str:
    """The first mistakes that a schema found in a document: where each is, what it is, and what was found."""
    sentences = [_sentence(each) for each in error.errors(include_url=False, include_context=False)]
    more = len(sentences) - _MOST_MISTAKES
    return "; ".join(sentences[:_MOST_MISTAKES]) + (f"; and {more} more" if more > 0 else "")


def _sentence(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{place}: is missing"
    said, found = error["msg"][:1].lower() + error["msg"][1:], error["input"]
    quoted = "" if isinstance(found, dict | BaseModel) else f", found {_shown(found)}"
    return (f"{place}: " if place else "") + said + quoted


def _shown(found: object) -> str:
    text = repr(found)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 1]}…"


def _check_depth(document: object) -> None:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [
            each
            for part in level
            if isinstance(part, dict | list)
            for each in (part.values() if isinstance(part, dict) else part)
            if isinstance(each, dict | list)
        ]
        if not level:
            return
    raise DamagedJsonError(f"it is nested more than {_DEEPEST} deep")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is beyond what a number may be")
    return number
