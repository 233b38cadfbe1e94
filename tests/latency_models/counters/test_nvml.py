import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.fake_nvml import CODES, EVERY_FAILURE, StandInNvml
from latency_models.counters.nvml import GpuReadings, memory_growth_bytes, read_gpu
from latency_models.counters.unavailable import Unavailable
from latency_models.runners.runner import Runner

FIELD_OF = {
    "nvmlDeviceGetName": ("name",),
    "nvmlDeviceGetMemoryInfo": ("memory_used_bytes",),
    "nvmlDeviceGetComputeRunningProcesses": ("own_memory_bytes",),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy_mj",),
}
FIELDS = [field for fields in FIELD_OF.values() for field in fields]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> StandInNvml:
    stand_in = StandInNvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


def readings() -> GpuReadings:
    answer = read_gpu()
    assert isinstance(answer, GpuReadings)
    return answer


def test_readings(nvml: StandInNvml) -> None:
    own = 300 * 2**20
    assert readings() == GpuReadings("A GPU", own + 2**30, own, 5_000_000)
    assert (nvml.asked[0], nvml.asked[-1]) == ("nvmlInit", "nvmlShutdown")


def test_counters_move_with_time(nvml: StandInNvml) -> None:
    before = readings()
    nvml.work(2.0)
    after = readings()
    assert isinstance(before.energy_mj, int)
    assert after.energy_mj == before.energy_mj + 540_000


@pytest.mark.parametrize(("call", "code"), EVERY_FAILURE)
def test_every_code_of_every_call_is_a_reason_and_never_a_zero(nvml: StandInNvml, call: str, code: int) -> None:
    whole = readings()
    nvml.failing = {call: code}
    answer = read_gpu()
    if call in ("nvmlInit", "nvmlDeviceGetHandleByIndex"):
        assert isinstance(answer, Unavailable)
        assert_reason(answer, code)
        return
    assert isinstance(answer, GpuReadings)
    lost = FIELD_OF.get(call, ())
    for field in FIELDS:
        found = getattr(answer, field)
        if field in lost:
            assert_reason(found, code)
        else:
            assert found == getattr(whole, field)


def assert_reason(found: object, code: int) -> None:
    assert isinstance(found, Unavailable)
    said, separator, _ = found.reason.partition(f" (NVML code {code})")
    assert separator
    assert len(said) > 5


def test_the_codes_reasons_differ(nvml: StandInNvml) -> None:
    reasons = set()
    for code in CODES:
        nvml.failing = {"nvmlInit": code}
        answer = read_gpu()
        assert isinstance(answer, Unavailable)
        reasons.add(answer.reason.partition(" (NVML")[0])
    assert len(reasons) == len(CODES)


def test_a_gpu_that_fails_is_left_as_it_was_found(nvml: StandInNvml) -> None:
    nvml.failing = {"nvmlDeviceGetHandleByIndex": 15}
    read_gpu()
    assert nvml.asked == ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlShutdown"]


def test_cuda_counts_only_what_it_may_see(nvml: StandInNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read_gpu(1), Unavailable)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 0")
    assert isinstance(read_gpu(0), Unavailable)
    assert isinstance(read_gpu(1), GpuReadings)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nvml.uuid)
    assert isinstance(read_gpu(0), GpuReadings)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-another")
    assert "code 6)" in str(read_gpu(0))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    answer = read_gpu()
    assert isinstance(answer, Unavailable)
    assert "pynvml" in answer.reason


def test_a_name_in_bytes_as_older_packages_give_it(nvml: StandInNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "nvmlDeviceGetName", lambda handle: b"An old GPU")
    assert readings().name == "An old GPU"


# --- a model's share of the memory


class Held(Runner):
    def run(self) -> None:
        """Nothing to do."""


@contextmanager
def loaded(nvml: StandInNvml, size: int) -> Iterator[Runner]:
    nvml.hold(size)
    yield Held()
    nvml.hold(-size)


def test_memory_is_what_the_processs_own_share_grows_by(nvml: StandInNvml) -> None:
    @contextmanager
    def beside_others() -> Iterator[Runner]:
        with loaded(nvml, 1000) as runner:
            nvml.others_bytes += 77
            yield runner

    assert memory_growth_bytes(beside_others) == 1000


@pytest.mark.parametrize("hidden", ["another process id", "no share", "no list"])
def test_the_whole_gpus_memory_counts_where_shares_are_not_told(nvml: StandInNvml, hidden: str) -> None:
    if hidden == "no list":
        nvml.failing = {"nvmlDeviceGetComputeRunningProcesses": 4}
    else:
        nvml.processes = {os.getpid() + 1: 5} if hidden == "another process id" else {os.getpid(): None}
    nvml.others_bytes = 10_000
    assert memory_growth_bytes(lambda: loaded(nvml, 1000)) == 1000


@pytest.mark.parametrize("code", CODES)
def test_memory_that_cannot_be_read_is_unavailable(nvml: StandInNvml, code: int) -> None:
    nvml.failing = {"nvmlDeviceGetMemoryInfo": code, "nvmlDeviceGetComputeRunningProcesses": code}
    assert_reason(memory_growth_bytes(lambda: loaded(nvml, 1000)), code)
    nvml.failing = {"nvmlInit": code}
    assert_reason(memory_growth_bytes(lambda: pytest.fail("it was loaded")), code)


def test_memory_that_does_not_grow_is_no_zero(nvml: StandInNvml) -> None:
    answer = memory_growth_bytes(lambda: loaded(nvml, 0))
    assert isinstance(answer, Unavailable)
    assert "did not grow" in answer.reason


def test_a_gpu_that_is_lost_while_the_model_is_there(nvml: StandInNvml) -> None:
    @contextmanager
    def lost() -> Iterator[Runner]:
        nvml.failing = {"nvmlInit": 15}
        yield Held()

    assert_reason(memory_growth_bytes(lost), 15)
