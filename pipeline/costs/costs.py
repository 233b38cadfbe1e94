"""Costs under the names that configs use."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latency_models.counters.energy import Unavailable, read_gpu
from latency_models.graph.static_costs import static_costs
from pipeline.errors import ReadingError

if TYPE_CHECKING:
    from latency_models.devices.device import Device
    from latency_models.graph.static_costs import StaticCosts
    from latency_models.model_profile import Profile
    from latency_models.timing.meter import Latency

MEGABYTE = 10**6
SEARCH_MEASURE_S = 0.06
"""For a candidate's latency: enough for about ±1 % on a quiet machine; what may win is measured again at length."""


def counted(costs: StaticCosts) -> dict[str, float]:
    """The costs that need no clock, under the names that configs use."""
    return {
        "macs": float(costs.macs),
        "params": float(costs.params),
        "size_mb": costs.size_bytes / MEGABYTE,
        "peak_memory_mb": costs.peak_memory_bytes / MEGABYTE,
    }


def counted_as_run(source: bytes, content: bytes, device: Device) -> dict[str, float]:
    """The costs that need no clock of a float graph, `content` being what the device runs of it."""
    costs = counted(static_costs(content, device))
    if content is not source:  # a network has the parameters that it has: scales and zero points are none
        plain = static_costs(source, device)
        costs.update(macs=float(plain.macs), params=float(plain.params))
    return costs


def interval(latency: Latency) -> dict[str, Any]:
    """A latency without its samples, for the journal."""
    return {
        "low_ms": latency.low_ms,
        "high_ms": latency.high_ms,
        "p50_ms": latency.p50_ms,
        "p99_ms": latency.p99_ms,
        "reference": latency.reference,
        "warnings": list(latency.warnings),
    }


def measured_metrics(measured: Profile) -> dict[str, float]:
    """A profile under the names that configs use; what can't be had is left out."""
    found: dict[str, float | Unavailable] = {
        "latency_ms": measured.latency.latency_ms,
        "macs": measured.macs,
        "params": measured.params,
        "size_mb": measured.size_bytes / MEGABYTE,
        "peak_memory_mb": _scaled(measured.peak_memory_bytes),
        "energy_mj": measured.energy_mj,
    }
    return {name: float(value) for name, value in found.items() if not isinstance(value, Unavailable)}


def _scaled(size_bytes: int | Unavailable) -> float | Unavailable:
    return size_bytes if isinstance(size_bytes, Unavailable) else size_bytes / MEGABYTE


def available(value: float | Unavailable) -> float:
    """A reading that a trial can't do without.

    Raises:
        ReadingError: the device didn't give it this time.
    """
    if isinstance(value, Unavailable):
        raise ReadingError(value.reason)
    return value


def gpu_facts() -> dict[str, Any]:
    """What NVML says of the GPU, field by field; a reason in place of what it can't say."""
    readings = read_gpu()
    if isinstance(readings, Unavailable):
        return {"unavailable": readings.reason}
    return {
        name: f"unavailable: {value['reason']}" if isinstance(value, dict) else value
        for name, value in asdict(readings).items()
    }
