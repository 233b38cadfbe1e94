"""What verifying a bundle finds; no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check: `ok` is None where it could not be made, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str
