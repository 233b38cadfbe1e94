"""How runs are clocked on a device; the clock itself is `latency_models.timer.burst`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models import timer
from latency_models.device import ONNXRUNTIME

if TYPE_CHECKING:
    from latency_models.device import Device


def stays_in_thread(device: Device) -> bool:
    """Whether a run on `device` does all its work in the thread that asks for it, and that thread can be timed."""
    return device.runtime == ONNXRUNTIME and timer.stays_in_thread(device.provider, device.threads)
