"""The timer that fits a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.devices.device import TORCH

if TYPE_CHECKING:
    from latency_models.devices.device import Device
from latency_models.timing.timers import InProcessTimer, Timer


def timer_for(device: Device) -> Timer:
    """The timer of a device: a worker process here, or one on `device.host`; torch runs in this process."""
    if device.runtime == TORCH:
        from latency_models.runners.torch_runner import TorchRunner

        return InProcessTimer(device, TorchRunner)
    if device.host is not None:
        from latency_models.timing.remote import SshTimer

        return SshTimer(device)
    from latency_models.timing.process_timer import WorkerTimer

    return WorkerTimer(device)
