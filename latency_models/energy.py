"""Power and energy of an NVIDIA GPU through NVML; what the machine can't give is said to be unavailable."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from latency_models.errors import ObjectiveUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.device import Device

T = TypeVar("T")

# NVML's return codes (nvml.h) that say "not here", not "broken".
_REASONS = {
    1: "NVML is not initialised",
    3: "the GPU doesn't support this reading",
    4: "no permission to read it",
    9: "the NVIDIA driver is not loaded",
    12: "NVML's shared library is not found: no NVIDIA driver is installed",
    13: "the installed driver's NVML lacks this function",
    15: "the GPU has fallen off the bus",
    18: "the installed driver and the NVML library have different versions",
}
# The counter moves in steps of some milliseconds' worth: a loop has to be long beside them.
_LOOP_S = 2.0


@dataclass(frozen=True)
class Unavailable:
    """A reading that can't be had, with the reason in words."""

    reason: str


@dataclass(frozen=True)
class GpuReadings:
    """One look at a GPU. `energy_mj` counts up since the driver was loaded: take differences over seconds."""

    name: str | Unavailable
    memory_used_bytes: int | Unavailable
    memory_total_bytes: int | Unavailable
    power_mw: int | Unavailable
    energy_mj: int | Unavailable


def read_gpu(index: int = 0) -> GpuReadings | Unavailable:
    """The GPU's readings, each of them possibly `Unavailable`; never a zero in place of a missing one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # an older package of the same name announces its end
            import pynvml
    except ImportError as error:
        return Unavailable(f"pynvml can't be imported: {error}")

    def reading(ask: Callable[[], T]) -> T | Unavailable:
        try:
            return ask()
        except pynvml.NVMLError as error:
            return Unavailable(_reason(error))

    started = reading(pynvml.nvmlInit)
    if isinstance(started, Unavailable):
        return started
    try:
        handle = reading(lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
        if isinstance(handle, Unavailable):
            return handle
        name = reading(lambda: pynvml.nvmlDeviceGetName(handle))
        memory = reading(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
        return GpuReadings(
            name=name.decode() if isinstance(name, bytes) else name,
            memory_used_bytes=memory if isinstance(memory, Unavailable) else int(memory.used),
            memory_total_bytes=memory if isinstance(memory, Unavailable) else int(memory.total),
            power_mw=reading(lambda: int(pynvml.nvmlDeviceGetPowerUsage(handle))),
            energy_mj=reading(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))),
        )
    finally:
        reading(pynvml.nvmlShutdown)


def _reason(error: Exception) -> str:
    """The reason in words with NVML's code."""
    code = getattr(error, "value", None)
    return f"{_REASONS.get(int(code), str(error)) if code is not None else error} (NVML code {code})"


def energy_per_run_mj(
    run: Callable[[], None],
    *,
    read: Callable[[], GpuReadings | Unavailable] = read_gpu,
    seconds: float = _LOOP_S,
) -> float | Unavailable:
    """The GPU's energy for one `run()` in mJ, idle power included: the counter's difference over a loop."""
    before = _counter_mj(read)
    if isinstance(before, Unavailable):
        return before
    runs = 0
    deadline = time.perf_counter() + seconds
    while runs == 0 or time.perf_counter() < deadline:
        run()
        runs += 1
    after = _counter_mj(read)
    if isinstance(after, Unavailable):
        return after
    if after <= before:
        return Unavailable(f"the GPU's energy counter did not move over {runs} runs")
    return (after - before) / runs


def require_energy(device: Device, *, read: Callable[[], GpuReadings | Unavailable] = read_gpu) -> None:
    """Raise ObjectiveUnavailableError unless energy can be measured on `device`."""
    if isinstance(reason := energy_counter(device, read=read), Unavailable):
        raise ObjectiveUnavailableError("energy_mj", device.name, reason.reason)


def energy_counter(device: Device, *, read: Callable[[], GpuReadings | Unavailable] = read_gpu) -> int | Unavailable:
    """What the device's energy counter shows now in mJ, or why there is none."""
    if device.name != "cuda":
        return Unavailable("it has no energy counter; only NVIDIA GPUs are read, through NVML")
    return _counter_mj(read)


def _counter_mj(read: Callable[[], GpuReadings | Unavailable]) -> int | Unavailable:
    readings = read()
    return readings if isinstance(readings, Unavailable) else readings.energy_mj
