"""Energy of an inference above idle, from a counter of the device; `Unavailable` where there is none to read.

An NVIDIA GPU counts its energy in NVML; a CPU's packages count theirs in RAPL, which Linux shows under
/sys/class/powercap. A counter sees all that its device does: on a busy machine the result is too high.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency_models.counters.nvml import read_gpu
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import CPU_PROVIDER, CUDA_PROVIDER, TORCH
from latency_models.errors import ObjectiveUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from latency_models.devices.device import Device

# The counters move in steps of up to tenths of a second: a measurement has to be long beside them.
LOOP_S = 2.0
IDLE_S = 2.0
_SETTLE_S = 0.2
# An excess over idle of less than this share of all is the counter's own unsteadiness.
_LEAST_SHARE = 0.01
_POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")
_GPU_PROVIDERS = (CUDA_PROVIDER, "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_CPU_PROVIDERS = (CPU_PROVIDER, "DnnlExecutionProvider", "XnnpackExecutionProvider")


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of energy in µJ that only goes up, with a number for each of its domains.

    `ranges_uj` are the numbers at which each domain starts again from 0; None where it doesn't.
    """

    source: str
    read: Callable[[], tuple[int, ...] | Unavailable]
    ranges_uj: tuple[int | None, ...] = (None,)

    def spent_mj(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """The energy between two readings in mJ; a counter may have started again once."""
        spent = 0
        for earlier, later, wraps_at in zip(before, after, self.ranges_uj, strict=True):
            difference = later - earlier
            spent += difference + wraps_at if difference < 0 and wraps_at is not None else difference
        return spent / 1000


def energy_counter(device: Device, *, powercap: Path = _POWERCAP) -> EnergyCounter | Unavailable:
    """The counter of the energy that `device` spends, after a first reading; or the reason why there is none."""
    if device.host is not None:
        return Unavailable(f"it is on another host ({device.host}), whose counters aren't read")
    if is_gpu(device):
        counter: EnergyCounter | Unavailable = _nvml_counter(gpu_index(device))
    elif device.provider in _CPU_PROVIDERS:
        counter = _rapl_counter(powercap)
    else:
        counter = Unavailable(f"no energy counter is known for ONNX Runtime's {device.provider}")
    if isinstance(counter, Unavailable):
        return counter
    return first if isinstance(first := counter.read(), Unavailable) else counter


def is_gpu(device: Device) -> bool:
    """Whether the device is an NVIDIA GPU of this machine, which NVML can read."""
    return device.host is None and (device.runtime == TORCH or device.provider in _GPU_PROVIDERS)


def gpu_index(device: Device) -> int:
    """The index of the device among CUDA's GPUs."""
    chosen = dict(device.provider_options).get("device_id", "0")
    return int(chosen) if chosen.isdecimal() else 0


def _nvml_counter(index: int) -> EnergyCounter:
    def read() -> tuple[int, ...] | Unavailable:
        readings = read_gpu(index)
        if isinstance(readings, Unavailable):
            return readings
        return readings.energy_mj if isinstance(readings.energy_mj, Unavailable) else (readings.energy_mj * 1000,)

    return EnergyCounter("NVML", read)


def _rapl_counter(powercap: Path) -> EnergyCounter | Unavailable:
    """The counter of all the machine's CPU packages; the whole system's, where there is one, would count them twice."""
    try:
        packages = sorted(_packages(powercap))
        ranges = tuple(int(_text(package / "max_energy_range_uj")) for package in packages)
    except PermissionError as error:
        return Unavailable(f"RAPL can't be read: {error.filename} needs root's rights")
    except (OSError, ValueError) as error:
        return Unavailable(f"RAPL can't be read: {error}")
    if not packages:
        return Unavailable(f"there is no RAPL counter under {powercap}: another CPU, a virtual machine or a container")

    def read() -> tuple[int, ...] | Unavailable:
        try:
            return tuple(int(_text(package / "energy_uj")) for package in packages)
        except PermissionError as error:
            return Unavailable(f"RAPL can't be read: {error.filename} needs root's rights")
        except (OSError, ValueError) as error:
            return Unavailable(f"RAPL can't be read: {error}")

    return EnergyCounter("RAPL", read, ranges)


def _packages(powercap: Path) -> Iterator[Path]:
    for domain in powercap.glob("intel-rapl:*"):
        if _PACKAGE.fullmatch(domain.name) and _text(domain / "name").startswith("package"):
            yield domain


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def energy_per_run_mj(
    run: Callable[[], None],
    counter: EnergyCounter,
    *,
    seconds: float = LOOP_S,
    idle_seconds: float = IDLE_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> float | Unavailable:
    """The energy of one `run()` in mJ above idle, where idle is the power draw with the model merely loaded.

    The idle power is measured first, over `idle_seconds`, after one run that wakes the device; then the counter's
    difference over a loop of `seconds`.
    """
    run()
    sleep(_SETTLE_S)
    idle = _spent(counter, lambda: sleep(idle_seconds), clock)
    if isinstance(idle, Unavailable):
        return idle
    runs = 0

    def loop() -> None:
        nonlocal runs
        deadline = clock() + seconds
        while runs == 0 or clock() < deadline:
            run()
            runs += 1

    busy = _spent(counter, loop, clock)
    if isinstance(busy, Unavailable):
        return busy
    (idle_mj, idle_s), (busy_mj, busy_s) = idle, busy
    if busy_mj <= 0:
        return Unavailable(f"the energy counter ({counter.source}) did not move over {runs} runs in {busy_s:.3g} s")
    idle_mw = idle_mj / idle_s
    above_mj = busy_mj - idle_mw * busy_s
    if above_mj <= _LEAST_SHARE * busy_mj:
        return Unavailable(
            f"over {runs} runs the device drew {busy_mj / busy_s / 1000:.3g} W, hardly more than the "
            f"{idle_mw / 1000:.3g} W when idle ({counter.source})"
        )
    return above_mj / runs


def _spent(
    counter: EnergyCounter, during: Callable[[], None], clock: Callable[[], float]
) -> tuple[float, float] | Unavailable:
    """The energy in mJ and the time in s that `during()` takes."""
    before, start = counter.read(), clock()
    if isinstance(before, Unavailable):
        return before
    during()
    after, end = counter.read(), clock()
    if isinstance(after, Unavailable):
        return after
    return counter.spent_mj(before, after), end - start


def require_energy(device: Device, *, powercap: Path = _POWERCAP) -> None:
    """Raise ObjectiveUnavailableError unless energy can be measured on `device`."""
    if isinstance(reason := energy_counter(device, powercap=powercap), Unavailable):
        raise ObjectiveUnavailableError("energy_mj", device.name, reason.reason)
