"""The choice of a timer for a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.devices.device import TORCH
from latency_models.timing.process_timer import WorkerTimer
from latency_models.timing.remote import SshTimer
from latency_models.timing.timers import InProcessTimer, Timer

if TYPE_CHECKING:
    from latency_models.devices.device import Device


def timer_for(device: Device) -> Timer:
    """The timer that fits a device: a worker process here or on `device.host`; for torch, this process."""
    if device.runtime == TORCH:
        from latency_models.runners.torch_runner import TorchRunner

        return InProcessTimer(device, TorchRunner)
    return WorkerTimer(device) if device.host is None else SshTimer(device)
