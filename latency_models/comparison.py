"""Comparison of several files: all timed in one rotation, each with its costs and its ratio to the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.model_profile import Profile, profile
from latency_models.timing.meter import LatencyMeter, Ratio, same_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.devices.device import Device


@dataclass(frozen=True)
class ComparisonRow:
    """One file's costs, and the ratio of its latency to the first file's (1 for the first itself)."""

    profile: Profile
    ratio: Ratio

    def as_dict(self) -> dict[str, object]:
        """The profile for JSON, with `ratio`, its 95 % interval, and whether that leaves out 1."""
        return {
            **self.profile.as_dict(),
            "ratio": self.ratio.ratio,
            "ratio_low": self.ratio.low,
            "ratio_high": self.ratio.high,
            "different": self.ratio.different,
        }


def compare(
    models: Sequence[bytes | Path], device: Device, *, budget_s: float = 4.0, meter: LatencyMeter | None = None
) -> tuple[ComparisonRow, ...]:
    """Time `models` together on `device`, within about `budget_s`, and count their other costs.

    `meter` is a meter of the same device, if the caller has one.

    Raises:
        InvalidModelError: one of them is no loadable model, or can't be run.
    """
    meter = meter if meter is not None else LatencyMeter(device)
    joint = meter.measure_together(models, budget_s=budget_s)
    same_environment(joint.latencies)
    profiles = (profile(model, device, latency=each) for model, each in zip(models, joint.latencies, strict=True))
    return tuple(ComparisonRow(each, ratio) for each, ratio in zip(profiles, joint.ratios, strict=True))
