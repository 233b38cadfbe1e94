import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.fake_nvml import CODES, StandInNvml
from latency_models.counters import energy
from latency_models.counters.energy import (
    EnergyCounter,
    energy_counter,
    energy_per_run_mj,
    gpu_index,
    is_gpu,
    require_energy,
)
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import Device
from latency_models.errors import ObjectiveUnavailableError

GPU = Device("cuda", provider="CUDAExecutionProvider")
TORCH_GPU = Device("cuda", runtime="torch", provider="")
BOARD = Device("board", host="pi@board")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> StandInNvml:
    stand_in = StandInNvml(idle_w=70, busy_w=270)
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


def measured(nvml: StandInNvml, run: Callable[[], None] | None = None, seconds: float = 2.0) -> float | Unavailable:
    counter = energy_counter(GPU)
    assert isinstance(counter, EnergyCounter)
    return energy_per_run_mj(run or nvml.work, counter, seconds=seconds, clock=nvml.clock, sleep=nvml.sleep)


def test_energy_is_what_lies_above_idle(nvml: StandInNvml) -> None:
    """10 ms a run at 200 W above idle: 2 J; with the idle power it would be 2.7."""
    assert measured(nvml) == pytest.approx(2000, rel=1e-3)
    assert nvml.now_s == pytest.approx(0.01 + 0.2 + 2.0 + 2.0, abs=0.05)


def test_a_run_longer_than_the_loop_is_made_once(nvml: StandInNvml) -> None:
    runs: list[int] = []

    def long() -> None:
        runs.append(1)
        nvml.work(5.0)

    assert measured(nvml, long) == pytest.approx(1_000_000, rel=1e-3)
    assert len(runs) == 2  # one of them woke the device


@pytest.mark.parametrize("busy_w", [60, 70, 70.5])
def test_no_more_than_idle_is_no_zero(nvml: StandInNvml, busy_w: float) -> None:
    nvml.busy_w = busy_w
    answer = measured(nvml)
    assert isinstance(answer, Unavailable)
    assert "hardly more than the 70 W when idle (NVML)" in answer.reason


def test_a_counter_that_stands_still_is_no_zero(nvml: StandInNvml) -> None:
    nvml.idle_w = nvml.busy_w = 0.0
    answer = measured(nvml)
    assert isinstance(answer, Unavailable)
    assert "did not move" in answer.reason


@pytest.mark.parametrize("code", CODES)
def test_each_code_makes_energy_unavailable_with_its_reason(nvml: StandInNvml, code: int) -> None:
    for call in ("nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTotalEnergyConsumption"):
        nvml.failing = {call: code}
        answer = energy_counter(GPU)
        assert isinstance(answer, Unavailable)
        assert answer.reason.endswith(f"(NVML code {code})")
    nvml.failing = {"nvmlDeviceGetMemoryInfo": code}
    assert isinstance(energy_counter(GPU), EnergyCounter)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_gpu_that_fails_in_the_middle(nvml: StandInNvml, code: int, looks: int) -> None:
    """Before the idle time, before the loop, after it."""
    counter = energy_counter(GPU)
    assert isinstance(counter, EnergyCounter)
    left = iter(range(looks))

    def read() -> tuple[int, ...] | Unavailable:
        if next(left, None) is None:
            nvml.failing = {"nvmlInit": code}
        return counter.read()

    failing = EnergyCounter("NVML", read)
    answer = energy_per_run_mj(nvml.work, failing, seconds=0.1, clock=nvml.clock, sleep=nvml.sleep)
    assert isinstance(answer, Unavailable)
    assert f"(NVML code {code})" in answer.reason


def test_which_devices_are_gpus_of_this_machine() -> None:
    assert is_gpu(GPU)
    assert is_gpu(TORCH_GPU)
    assert not is_gpu(Device())
    assert not is_gpu(Device("far", provider="CUDAExecutionProvider", host="far"))
    assert gpu_index(GPU) == 0
    assert gpu_index(Device("g", provider="CUDAExecutionProvider", provider_options=(("device_id", "1"),))) == 1


def test_devices_without_a_counter_say_why() -> None:
    far = energy_counter(BOARD)
    assert isinstance(far, Unavailable)
    assert "another host (pi@board)" in far.reason
    other = energy_counter(Device("acl", provider="AclExecutionProvider"))
    assert isinstance(other, Unavailable)
    assert "AclExecutionProvider" in other.reason


# --- RAPL


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with a part of each, and the whole system's counter, as Linux shows them."""
    names = {
        "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "package-1", "intel-rapl:1:0": "dram",
        "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0",
    }  # fmt: skip
    for folder, name in names.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("1000000\n")
        (tmp_path / folder / "energy_uj").write_text("400000\n")
    return tmp_path


def test_rapl_sums_the_packages_alone(powercap: Path) -> None:
    counter = energy_counter(Device(), powercap=powercap)
    assert isinstance(counter, EnergyCounter)
    assert counter.source == "RAPL"
    assert counter.read() == (400_000, 400_000)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("450000\n")
    after = counter.read()
    assert isinstance(after, tuple)
    assert counter.spent_mj((400_000, 400_000), after) == 50.0


def test_rapl_starts_again_at_its_range(powercap: Path) -> None:
    counter = energy_counter(Device(), powercap=powercap)
    assert isinstance(counter, EnergyCounter)
    assert counter.spent_mj((990_000, 5), (10_000, 5)) == 20.0


def test_energy_of_a_cpu(powercap: Path) -> None:
    """1 W when idle, 3 W at work, 10 ms a run: 20 mJ above idle; the counter starts again on the way."""
    stand_in = StandInNvml(idle_w=1, busy_w=3)
    counter = energy_counter(Device(), powercap=powercap)
    assert isinstance(counter, EnergyCounter)

    def moving() -> tuple[int, ...] | Unavailable:
        micro_joules = 400_000 + int(1000 * (stand_in.energy_mj - 5_000_000))
        (powercap / "intel-rapl:0" / "energy_uj").write_text(str(micro_joules % 1_000_000))
        return counter.read()

    found = energy_per_run_mj(
        stand_in.work,
        EnergyCounter(counter.source, moving, counter.ranges_uj),
        seconds=0.2,
        idle_seconds=0.2,
        clock=stand_in.clock,
        sleep=stand_in.sleep,
    )
    assert found == pytest.approx(20, rel=1e-3)


def test_no_rapl_is_unavailable_with_the_reason(tmp_path: Path, powercap: Path) -> None:
    nowhere = energy_counter(Device(), powercap=tmp_path / "nowhere")
    assert isinstance(nowhere, Unavailable)
    assert "no RAPL counter" in nowhere.reason
    (powercap / "intel-rapl:0" / "energy_uj").write_text("many")
    damaged = energy_counter(Device(), powercap=powercap)
    assert isinstance(damaged, Unavailable)
    assert "RAPL can't be read" in damaged.reason


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_rapl_for_root_alone(powercap: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    read_text = Path.read_text

    def refusing(path: Path, *arguments: object, **options: object) -> str:
        if path.name == file:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refusing)
    answer = energy_counter(Device(), powercap=powercap)
    assert isinstance(answer, Unavailable)
    assert file in answer.reason
    assert "needs root's rights" in answer.reason


# --- as an objective


def test_an_objective_that_the_device_cannot_give(tmp_path: Path, nvml: StandInNvml, powercap: Path) -> None:
    with pytest.raises(ObjectiveUnavailableError, match=r"'energy_mj' can't be had on device 'cpu': .*RAPL"):
        require_energy(Device("cpu"), powercap=tmp_path / "nowhere")
    with pytest.raises(ObjectiveUnavailableError, match="'board': it is on another host"):
        require_energy(BOARD)
    nvml.failing = {"nvmlDeviceGetTotalEnergyConsumption": 3}
    with pytest.raises(ObjectiveUnavailableError, match="'cuda': the GPU doesn't support this reading"):
        require_energy(GPU)
    nvml.failing = {}
    require_energy(GPU)
    require_energy(TORCH_GPU)
    require_energy(Device("cpu"), powercap=powercap)


def test_the_loops_are_long_beside_the_counters_steps() -> None:
    """NVML's counter moves in steps of up to a tenth of a second."""
    assert min(energy.LOOP_S, energy.IDLE_S) >= 2.0
