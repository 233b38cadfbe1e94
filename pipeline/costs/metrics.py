"""Costs under the names that configs use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.counters.unavailable import Unavailable
from latency_models.errors import UnknownShapeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.counted_costs import StaticCosts
    from latency_models.model_profile import Profile

MEGABYTE = 10**6
COUNTED = ("macs", "params", "size_mb", "peak_memory_mb")
"""The metrics that need no clock."""


def counted(costs: StaticCosts, needed: Iterable[str] = ()) -> dict[str, float]:
    """The metrics that need no clock, without those that can't be known.

    Raises:
        UnknownShapeError: one of the `needed` ones can't be known.
    """
    memory = costs.peak_memory_bytes
    found: dict[str, float | Unavailable] = {
        "macs": costs.macs,
        "params": costs.params,
        "size_mb": costs.size_bytes / MEGABYTE,
        "peak_memory_mb": memory if isinstance(memory, Unavailable) else memory / MEGABYTE,
    }
    for name in needed:
        value = found.get(name)
        if isinstance(value, Unavailable):
            raise UnknownShapeError(f"{name} can't be had: {value.reason}")
    return {name: float(value) for name, value in found.items() if not isinstance(value, Unavailable)}


def measured_metrics(measured: Profile) -> dict[str, float]:
    """The metrics of a profile, without those that the device can't give."""
    memory = measured.peak_memory_bytes
    found: dict[str, float | Unavailable] = {
        "latency_ms": measured.latency.latency_ms,
        "macs": measured.macs,
        "params": measured.params,
        "size_mb": measured.size_bytes / MEGABYTE,
        "peak_memory_mb": memory if isinstance(memory, Unavailable) else memory / MEGABYTE,
        "energy_mj": measured.energy_mj,
    }
    return {name: float(value) for name, value in found.items() if not isinstance(value, Unavailable)}
