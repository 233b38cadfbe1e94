"""Numbers and remarks as people read them."""

from __future__ import annotations

from typing import Any

from pipeline.trials.result import stop_phrase


def number(value: float) -> str:
    """Format a number for a table: thousands grouped, four significant digits below that."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def remark(row: dict[str, Any]) -> str:
    """Say why a trial can't win (its error, or the limits that it breaks) and whether it was stopped early."""
    if row["error"]:
        return str(row["error"])
    over = [f"{name} {share:.0%} over" for name, share in row["details"].get("excess", {}).items()]
    stopped = stop_phrase(row["details"])
    return ", ".join([*over, stopped] if stopped else over)
