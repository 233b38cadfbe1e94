"""Readings of an NVIDIA GPU through NVML: memory and energy; `Unavailable`, not 0, for a missing one."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from latency_models.counters.unavailable import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from latency_models.runners.runner import Runner

T = TypeVar("T")

# NVML's return codes (nvml.h) that mean "not here", not "broken".
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


@dataclass(frozen=True)
class GpuReadings:
    """A GPU's readings at one moment.

    `energy_mj` counts up since the driver was loaded: take differences over seconds. `own_memory_bytes` is this
    process's share of the GPU's memory.
    """

    name: str | Unavailable
    memory_used_bytes: int | Unavailable
    own_memory_bytes: int | Unavailable
    energy_mj: int | Unavailable


def read_gpu(index: int = 0) -> GpuReadings | Unavailable:
    """The readings of the GPU that CUDA counts as `index`, each of them possibly `Unavailable`.

    CUDA_VISIBLE_DEVICES is followed; where GPUs of different kinds sit in one machine, CUDA_DEVICE_ORDER=PCI_BUS_ID
    makes CUDA count them as NVML does.
    """
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
        handle = reading(lambda: _handle(pynvml, index))
        if isinstance(handle, Unavailable):
            return handle
        name = reading(lambda: pynvml.nvmlDeviceGetName(handle))
        memory = reading(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
        processes = reading(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
        return GpuReadings(
            name=name.decode() if isinstance(name, bytes) else name,
            memory_used_bytes=memory if isinstance(memory, Unavailable) else int(memory.used),
            own_memory_bytes=processes if isinstance(processes, Unavailable) else _own_memory(processes),
            energy_mj=reading(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))),
        )
    finally:
        reading(pynvml.nvmlShutdown)


def _handle(pynvml: Any, index: int) -> Any:
    """NVML's handle of the GPU that CUDA counts as `index`; NVML's own index counts hidden ones too."""
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    chosen = visible[index] if index < len(visible) else str(index)
    if chosen.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(chosen))
    return pynvml.nvmlDeviceGetHandleByUUID(chosen)


def _own_memory(processes: list[Any]) -> int | Unavailable:
    for process in processes:
        if process.pid == os.getpid():
            held = process.usedGpuMemory
            return Unavailable("the driver doesn't tell processes apart") if held is None else int(held)
    return Unavailable("NVML lists no process of this one's id; in a container the ids differ")


def _reason(error: Exception) -> str:
    """The reason of an NVML error in words, with its code."""
    code = getattr(error, "value", None)
    return f"{_REASONS.get(int(code), str(error)) if code is not None else error} (NVML code {code})"


def memory_growth_bytes(
    load: Callable[[], AbstractContextManager[Runner]],
    *,
    read: Callable[[], GpuReadings | Unavailable] = read_gpu,
) -> int | Unavailable:
    """The growth of the GPU's memory while a model is loaded and run: weights, activations, the runtime's reserve.

    It is the process's own share where NVML gives it, and otherwise the GPU's used memory, which others may change at
    the same time. The caller loads the runtime's own libraries before.
    """
    before = read()
    if isinstance(before, Unavailable):
        return before
    with load() as runner:
        runner.run()
        after = read()
    if isinstance(after, Unavailable):
        return after
    own = _grown(before.own_memory_bytes, after.own_memory_bytes)
    growth = own if isinstance(own, int) else _grown(before.memory_used_bytes, after.memory_used_bytes)
    if isinstance(growth, int) and growth <= 0:
        return Unavailable(
            "the GPU's used memory did not grow: the runtime had enough in reserve, or others freed some"
        )
    return growth


def _grown(before: int | Unavailable, after: int | Unavailable) -> int | Unavailable:
    if isinstance(before, Unavailable):
        return before
    return after if isinstance(after, Unavailable) else after - before
