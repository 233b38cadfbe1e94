"""The stand-in for a reading that can't be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """A reading that can't be had, with the reason in words."""

    reason: str
