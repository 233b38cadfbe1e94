"""Costs under the names that configs use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.counters.unavailable import Unavailable

if TYPE_CHECKING:
    from latency_models.graph.static_costs import StaticCosts
    from latency_models.model_profile import Profile

MEGABYTE = 10**6


def counted(costs: StaticCosts) -> dict[str, float]:
    """The metrics that need no clock."""
    return {
        "macs": float(costs.macs),
        "params": float(costs.params),
        "size_mb": costs.size_bytes / MEGABYTE,
        "peak_memory_mb": costs.peak_memory_bytes / MEGABYTE,
    }


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
