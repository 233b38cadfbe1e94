from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace

import pytest

from latency_models.device import Device
from latency_models.energy import (
    GpuReadings,
    Unavailable,
    energy_per_run_mj,
    read_gpu,
    require_energy,
)
from latency_models.errors import ObjectiveUnavailableError


class StandInError(Exception):
    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"code {value}")


def failing(code: int) -> Callable[..., object]:
    def ask(*_: object) -> object:
        raise StandInError(code)

    return ask


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A pynvml whose GPU answers everything."""
    module = ModuleType("pynvml")
    module.calls = []  # type: ignore[attr-defined]
    module.NVMLError = StandInError  # type: ignore[attr-defined]
    module.nvmlInit = lambda: module.calls.append("init")  # type: ignore[attr-defined]
    module.nvmlShutdown = lambda: module.calls.append("shutdown")  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: index  # type: ignore[attr-defined]
    module.nvmlDeviceGetName = lambda handle: b"A GPU"  # type: ignore[attr-defined]
    module.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(used=5, total=80)  # type: ignore[attr-defined]
    module.nvmlDeviceGetPowerUsage = lambda handle: 70_000  # type: ignore[attr-defined]
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 123  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_readings(nvml: ModuleType) -> None:
    assert read_gpu() == GpuReadings("A GPU", 5, 80, 70_000, 123)
    assert nvml.calls == ["init", "shutdown"]


@pytest.mark.parametrize("code", [1, 3, 4, 9, 12, 13, 15, 18])
def test_an_error_at_the_start_is_unavailable_with_its_reason(nvml: ModuleType, code: int) -> None:
    nvml.nvmlInit = failing(code)
    answer = read_gpu()
    assert isinstance(answer, Unavailable)
    assert f"code {code})" in answer.reason
    assert len(answer.reason) > len(f"(NVML code {code})") + 10


@pytest.mark.parametrize("code", [1, 3, 4, 9, 12, 13, 15, 18])
def test_one_missing_reading_leaves_the_others(nvml: ModuleType, code: int) -> None:
    nvml.nvmlDeviceGetTotalEnergyConsumption = failing(code)
    answer = read_gpu()
    assert isinstance(answer, GpuReadings)
    assert isinstance(answer.energy_mj, Unavailable)
    assert answer.power_mw == 70_000
    assert nvml.calls[-1] == "shutdown"


def test_missing_memory_and_no_device(nvml: ModuleType) -> None:
    nvml.nvmlDeviceGetMemoryInfo = failing(15)
    answer = read_gpu()
    assert isinstance(answer, GpuReadings)
    assert isinstance(answer.memory_used_bytes, Unavailable)
    assert isinstance(answer.memory_total_bytes, Unavailable)
    nvml.nvmlDeviceGetHandleByIndex = failing(6)
    assert isinstance(read_gpu(), Unavailable)
    assert nvml.calls == ["init", "shutdown"] * 2


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    answer = read_gpu()
    assert isinstance(answer, Unavailable)
    assert "pynvml" in answer.reason


def counter(*values: int | Unavailable) -> Callable[[], GpuReadings]:
    remaining: Iterator[int | Unavailable] = iter(values)
    return lambda: GpuReadings("A GPU", 1, 2, 3, next(remaining))


def test_energy_is_the_counters_difference_over_the_runs() -> None:
    runs: list[int] = []
    assert energy_per_run_mj(lambda: runs.append(1), read=counter(1000, 1450), seconds=0.0) == 450.0
    assert len(runs) == 1


def test_a_counter_that_stands_still_is_no_zero() -> None:
    answer = energy_per_run_mj(lambda: None, read=counter(7, 7), seconds=0.0)
    assert isinstance(answer, Unavailable)
    assert "did not move" in answer.reason


def test_an_unavailable_counter_runs_nothing() -> None:
    answer = energy_per_run_mj(lambda: pytest.fail("it ran"), read=counter(Unavailable("no")), seconds=0.0)
    assert answer == Unavailable("no")


def test_an_objective_that_the_device_cannot_give() -> None:
    with pytest.raises(ObjectiveUnavailableError, match="'energy_mj' can't be had on device 'cpu'"):
        require_energy(Device("cpu"))
    with pytest.raises(ObjectiveUnavailableError, match="no counter here"):
        require_energy(Device("cuda"), read=counter(Unavailable("no counter here")))
    require_energy(Device("cuda"), read=counter(5))
