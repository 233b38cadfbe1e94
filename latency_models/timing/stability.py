"""Warnings: reasons not to trust a latency, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.timing.statistics import low_time, two_modes
from latency_models.timing.timers import stays_in_thread

if TYPE_CHECKING:
    from latency_models.devices.device import Device

_BUSY_CPU_SHARE = 0.95
_SPREAD = 1.15
_DRIFT = 1.15
_CHANGE = 1.05
_CONTENDED = 1.10
_SAME_SIZE = 4.0


@dataclass(frozen=True)
class Evidence:
    """Signs of an unstable measurement.

    Attributes:
        wall_ns, undisturbed_ns: the model's runs by the wall and without interruptions.
        cpu_share: the timing thread's share of a core.
        half_width: of the 95 % interval, from the scatter of the runs alone (relative).
        drift: the references' time now over their stored time.
        change: the references' time in the last third over that in the first.
        size: the model's time over the references'.
        contention: the memory probe's slowdown beyond `drift`; None where it had no part.
    """

    wall_ns: np.ndarray
    undisturbed_ns: np.ndarray
    cpu_share: float
    half_width: float
    drift: float
    change: float
    size: float
    contention: float | None = None


def warnings_of(evidence: Evidence, device: Device, target_half_width: float) -> list[str]:
    """The warnings that the evidence gives rise to, a sentence each."""
    said = (
        _busy(evidence, device),
        _spread(evidence),
        _modes(evidence),
        _width(evidence, target_half_width),
        _drift(evidence.drift),
        _change(evidence.change),
        _contention(evidence.contention),
        _size(evidence.size),
    )
    return [each for each in said if each is not None]


def change_over_time(rounds: np.ndarray) -> float:
    """The median of the last third over the first's; 1 for less than 9 rounds."""
    third = len(rounds) // 3
    return float(np.median(rounds[-third:]) / np.median(rounds[:third])) if third >= 3 else 1.0


def _busy(evidence: Evidence, device: Device) -> str | None:
    if not stays_in_thread(device) or evidence.cpu_share >= _BUSY_CPU_SHARE:
        return None
    return f"the machine was busy: this process had a core for {evidence.cpu_share:.0%} of the time"


def _spread(evidence: Evidence) -> str | None:
    spread = float(np.median(evidence.wall_ns)) / low_time(evidence.undisturbed_ns)
    return f"the median run took {spread - 1:.0%} longer than an undisturbed one" if spread > _SPREAD else None


def _modes(evidence: Evidence) -> str | None:
    modes = two_modes(evidence.undisturbed_ns)
    if modes is None:
        return None
    return (
        f"the runs come in two kinds, of {modes.fast / 1e6:.4g} and {modes.slow / 1e6:.4g} ms "
        f"({modes.slow_share:.0%} are slow ones); latency_ms is of the fast ones"
    )


def _width(evidence: Evidence, target: float) -> str | None:
    if evidence.half_width <= target:
        return None
    return f"the runs settle it to ±{evidence.half_width:.2%} only, not to the ±{target:.2%} asked for"


def _drift(drift: float) -> str | None:
    if 1 / _DRIFT < drift < _DRIFT:
        return None
    return f"the machine is {_by(drift)} than when its reference was timed; latency_ms is on the scale of that time"


def _change(change: float) -> str | None:
    if 1 / _CHANGE < change < _CHANGE:
        return None
    return f"the machine got {_by(change)} while it was timed: it may be throttling, or have been before"


def _contention(contention: float | None) -> str | None:
    if contention is None or 1 / _CONTENDED < contention < _CONTENDED:
        return None
    return (
        f"memory is {_by(contention)} than when the references were timed, which this model feels; "
        "the correction for it is rough, and the interval says so"
    )


def _size(size: float) -> str | None:
    if 1 / _SAME_SIZE < size < _SAME_SIZE:
        return None
    return (
        f"the reference that it was timed against takes {1 / size:.2g} times its time; one of about its size "
        "would make the interval more trustworthy"
    )


def _by(factor: float) -> str:
    return f"{max(factor, 1 / factor) - 1:.0%} {'slower' if factor > 1 else 'faster'}"
