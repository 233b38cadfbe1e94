"""Reading JSON that somebody gave: one meaning, and no more work and memory than its size."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

MOST_BYTES = 24 * 10**6
"""Of a document; the confusions of 1,000 classes take half of it."""
_MOST_VALUES = 1_500_000
_DEEPEST = 64


def parse(content: bytes) -> object:
    """Parse a document.

    Raises:
        ValueError: no JSON, or JSON that another reader may take for something else: a key that is given twice, NaN,
            a number beyond a float's; or it is nested too deeply, or has too many values.
    """
    text = content.decode("utf-8")
    if text.count(",") + text.count("[") + text.count("{") > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    try:
        document = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_distinct_keys
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner += [each for each in part.values() if isinstance(each, dict | list)]
            elif isinstance(part, list):
                inner += [each for each in part if isinstance(each, dict | list)]
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond what a number may be")
    return number
