from __future__ import annotations

import ast
import gc
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper

from helpers.cost_graphs import model, small_net, value
from helpers.timer_contract import check_contract
from latency_models import timer
from latency_models.devices.device import Device
from latency_models.devices.environment import capture, environment_of
from latency_models.errors import CostError, DeviceError, InvalidModelError, TimerError
from latency_models.timing.process_timer import TimeLimits, WorkerTimer
from latency_models.timing.timer_for import timer_for
from latency_models.timing.timers import InProcessTimer, stays_in_thread

NET = small_net().SerializeToString()


@pytest.mark.parametrize("make", [InProcessTimer, WorkerTimer])
def test_contract(make: type[InProcessTimer | WorkerTimer], tmp_path: Path) -> None:
    check_contract(make(Device()), tmp_path)


def test_each_device_gets_its_timer() -> None:
    assert isinstance(timer_for(Device()), WorkerTimer)
    assert type(timer_for(Device(host="far.example"))).__name__ == "SshTimer"


def test_the_file_needs_an_old_python_numpy_and_onnxruntime_only() -> None:
    tree = ast.parse(Path(timer.__file__).read_text(), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"numpy", "onnxruntime"}


# ---- the clock


def test_time_without_interruptions_is_never_longer_than_by_the_wall() -> None:
    walls, alone = timer.burst(lambda: None, 50, in_thread=True)
    assert walls.shape == alone.shape == (50,)
    assert (alone <= walls).all()
    walls, alone = timer.burst(lambda: None, 50, in_thread=False)
    assert (alone == walls).all()


def test_an_interruption_is_left_out_where_the_run_stays_in_its_thread() -> None:
    walls, alone = timer.burst(lambda: time.sleep(0.01), 2, in_thread=True)
    assert (walls >= 10e6).all()
    assert (alone < 10e6).all()


def test_only_one_thread_on_a_cpu_stays_in_its_thread() -> None:
    assert stays_in_thread(Device())
    assert not stays_in_thread(Device(threads=2))
    assert not stays_in_thread(Device(provider="CUDAExecutionProvider"))
    assert not stays_in_thread(Device(runtime="torch", provider=""))


def test_models_take_turns_and_no_garbage_is_collected() -> None:
    seen: list[tuple[str, bool]] = []
    calls = [lambda name=name: seen.append((name, gc.isenabled())) for name in "ab"]
    times, cpu_share = timer.alternate(calls, [2, 1], 3, in_thread=True)
    assert [name for name, _ in seen] == ["a", "a", "b"] * 3
    assert not any(enabled for _, enabled in seen)
    assert gc.isenabled()
    assert [each.shape for each in times] == [(3, 2, 2), (3, 2, 1)]
    assert cpu_share > 0.0


def test_garbage_is_collected_again_after_a_failure() -> None:
    def fail() -> None:
        raise ValueError("a run that fails")

    with pytest.raises(ValueError, match="a run that fails"):
        timer.alternate([fail], [1], 1, in_thread=True)
    assert gc.isenabled()


# ---- sessions


def session(net: bytes, **settings: object) -> timer.Session:
    given = {"provider": timer.CPU_PROVIDER, "provider_options": {}, "threads": 1, "batch_size": 1, **settings}
    return timer.Session(net, **given)  # type: ignore[arg-type]


def test_inputs_are_made_up_from_the_declaration() -> None:
    nodes = [helper.make_node("Gather", ["table", "at"], ["y"])]
    inputs = [value("table", ["N", 4]), value("at", ["N"], TensorProto.INT64)]
    net = model(nodes, inputs, [value("y", ["N", 4])]).SerializeToString()
    feed = session(net, batch_size=3).feed
    assert (feed["table"].shape, feed["table"].dtype) == ((3, 4), np.float32)
    assert 0.0 <= feed["table"].min() < feed["table"].max() < 1.0
    assert feed["at"].tolist() == [0, 0, 0]
    assert np.array_equal(session(net, batch_size=3).feed["table"], feed["table"])


def test_given_inputs_are_fed() -> None:
    image = np.ones((2, 3, 8, 8), np.float32)
    assert session(NET, feed={"x": image}).feed["x"] is image


def test_the_provider_and_its_options_reach_the_session() -> None:
    assert timer.providers("CPUExecutionProvider", {}) == ["CPUExecutionProvider"]
    with_options = timer.providers("XExecutionProvider", {"device_id": "1"})
    assert with_options == [("XExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]


def test_a_provider_that_is_left_out_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a provider's own libraries are missing, ONNX Runtime makes a session of the CPU's without a word."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **_: real(*args, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(timer.RefusedError, match="CUDAExecutionProvider can't be used: it was left out") as caught:
        session(NET, provider="CUDAExecutionProvider")
    assert caught.value.kind == "device"


def test_a_provider_that_fails_is_blamed_and_not_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no device is connected")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["NpuExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    with pytest.raises(timer.RefusedError, match="NpuExecutionProvider can't be used: no device is connected"):
        session(NET, provider="NpuExecutionProvider")


def test_with_a_provider_that_works_the_model_is_blamed() -> None:
    with pytest.raises(timer.RefusedError, match="not a loadable ONNX model") as caught:
        session(b"this is no model", provider_options={"some": "option"})
    assert caught.value.kind == "model"


# ---- the wire


def test_frames_come_out_as_they_went_in() -> None:
    stream = io.BytesIO()
    timer.write_frame(stream, {"do": "this", "é": [1, None]}, [b"", b"abc", memoryview(np.arange(3, dtype="<i8"))])
    timer.write_frame(stream, {})
    stream.seek(0)
    first = timer.read_frame(stream)
    assert first == ({"do": "this", "é": [1, None]}, [b"", b"abc", np.arange(3, dtype="<i8").tobytes()])
    assert timer.read_frame(stream) == ({}, [])
    assert timer.read_frame(stream) is None


def test_a_frame_that_is_cut_off_is_none_and_one_that_is_too_large_is_refused() -> None:
    stream = io.BytesIO()
    timer.write_frame(stream, {"a": 1}, [b"abc"])
    whole = stream.getvalue()
    assert all(timer.read_frame(io.BytesIO(whole[:size])) is None for size in range(len(whole)))
    with pytest.raises(ValueError, match="parts"):
        timer.read_frame(io.BytesIO(whole), longest_part=2)
    with pytest.raises(ValueError, match="header"):
        timer.read_frame(io.BytesIO(b"\xff" * 10))


# ---- the worker process


def pid_of(timing: WorkerTimer) -> int:
    assert timing.pid is not None
    return timing.pid


def test_nothing_starts_before_it_is_needed_and_the_process_persists() -> None:
    with WorkerTimer(Device()) as timing:
        assert timing.pid is None
        timing.facts()
        first = pid_of(timing)
        timing.load(NET, 1)
        assert pid_of(timing) == first
    assert not psutil.pid_exists(first)


def test_a_timer_that_nobody_holds_ends_its_process() -> None:
    timing = WorkerTimer(Device())
    timing.facts()
    process = psutil.Process(pid_of(timing))
    del timing
    gc.collect()
    assert not process.is_running()


@pytest.mark.parametrize(("by", "said"), [(signal.SIGKILL, "SIGKILL.*out of memory"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_worker_that_dies_is_told_and_replaced(by: signal.Signals, said: str) -> None:
    with WorkerTimer(Device()) as timing:
        handle = timing.load(NET, 1)
        first = pid_of(timing)
        os.kill(first, by)
        with pytest.raises(TimerError, match=f"worker process was ended by {said}.* while models were run"):
            timing.alternate([handle], [1], 1)
        assert timing.alternate([handle], [2], 3).times_ns[0].shape == (3, 2, 2)
        assert pid_of(timing) != first


def test_freeing_a_model_of_a_dead_worker_is_no_error() -> None:
    with WorkerTimer(Device()) as timing:
        handle = timing.load(NET, 1)
        os.kill(pid_of(timing), signal.SIGKILL)
        timing.unload(handle)
        with pytest.raises(KeyError):
            timing.alternate([handle], [1], 1)


def test_a_worker_that_hangs_is_ended() -> None:
    with WorkerTimer(Device()) as timing:
        timing.facts()
        hung = pid_of(timing)
        timing.limits = TimeLimits(answer_s=0.3)
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(TimerError, match="gave no answer for"):
            timing.facts()
        assert not psutil.pid_exists(hung)


def test_a_model_that_kills_its_worker_does_not_come_back() -> None:
    """What could not be loaded isn't loaded again with the rest."""
    with WorkerTimer(Device()) as timing:
        good = timing.load(NET, 1)
        os.kill(pid_of(timing), signal.SIGKILL)
        with pytest.raises(TimerError, match="while it loaded the model"):
            timing.load(NET, 1)
        timing.alternate([good], [1], 1)
        assert timing.load(NET, 1) == good + 1


def test_an_interrupted_request_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with WorkerTimer(Device()) as timing:
        handle = timing.load(NET, 1)
        with monkeypatch.context() as patched:
            patched.setattr(timer, "read_frame", interrupted)
            with pytest.raises(KeyboardInterrupt):
                timing.facts()
        assert timing.alternate([handle], [1], 2).times_ns[0].shape == (2, 2, 1)


def test_what_libraries_print_stays_out_of_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = "import os\nreal = os.getloadavg\nos.getloadavg = lambda: (os.write(1, b'noise\\n'), real())[1]\n"
    (tmp_path / "sitecustomize.py").write_text(noise + "print('noise before the hello')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerTimer(Device()) as timing:
        assert timing.facts()["cores"] >= 1
        os.kill(pid_of(timing), signal.SIGKILL)
        with pytest.raises(TimerError, match="the last that it said: noise"):
            timing.facts()


def test_another_version_of_the_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = tmp_path / "timer.py"
    text = Path(timer.__file__).read_text()
    newer.write_text(text.replace("PROTOCOL = 1\n", "PROTOCOL = 99\n"))
    monkeypatch.setattr(timer, "__file__", str(newer))
    with WorkerTimer(Device()) as timing, pytest.raises(TimerError, match=r"version 99 .* version 1"):
        timing.facts()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (Device(provider="CUDAExecutionProvider"), "device 'cpu': it needs ONNX Runtime's CUDAExecutionProvider"),
        (Device(threads=4096), "threads is 4096, but there are"),
    ],
)
def test_what_the_machine_lacks_is_told(device: Device, said: str) -> None:
    if device.provider in onnxruntime.get_available_providers() and device.threads == 1:
        pytest.skip("this machine has the provider")
    with WorkerTimer(device) as timing, pytest.raises(DeviceError, match=said) as caught:
        timing.load(NET, 1)
    assert isinstance(caught.value, CostError)


def test_objects_are_no_inputs() -> None:
    with WorkerTimer(Device()) as timing, pytest.raises(InvalidModelError, match="no array of numbers"):
        timing.load(NET, 1, {"x": np.array([None, "text"], object)})


ORPHAN = """
import os, signal, sys
from latency_models.timing.timers import stays_in_thread
from latency_models.devices.device import Device
from latency_models.timing.process_timer import WorkerTimer
timing = WorkerTimer(Device())
timing.facts()
os.kill(timing.pid, signal.SIGSTOP)  # so that it can't see the end of its requests
print(timing.pid, flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux' kernel ends a process with its parent")
def test_the_worker_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.communicate()
    gone(orphan)


def gone(process: psutil.Process) -> None:
    """Wait for the end of a process of somebody else's."""
    deadline = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.02)


# ---- the environment


def test_the_worker_says_the_same_of_this_machine_as_this_process() -> None:
    with WorkerTimer(Device()) as timing:
        facts = timing.facts()
    assert {**facts, "load": None} == {**timer.facts(), "load": None}
    assert environment_of(facts, Device()).fingerprint == capture(Device()).fingerprint


def test_another_machine_and_other_settings_are_another_environment() -> None:
    facts, device = timer.facts(), Device()
    here = environment_of(facts, device).fingerprint
    others = [
        environment_of({**facts, "cpu_model": "another"}, device),
        environment_of({**facts, "cpu_flags_digest": "another"}, device),
        environment_of({**facts, "l2_cache_bytes": 1}, device),
        environment_of({**facts, "onnxruntime": "0.1"}, device),
        environment_of(facts, replace(device, provider_options=(("a", "b"),))),
        environment_of(facts, replace(device, threads=2)),
        environment_of(facts, replace(device, precision="int8")),
    ]
    assert len({here, *(other.fingerprint for other in others)}) == 1 + len(others)
    same = [
        environment_of({**facts, "load": 99.0, "python": "3.9"}, device),
        environment_of(facts, replace(device, batch_size=8, name="another", host="far.example")),
    ]
    assert {each.fingerprint for each in same} == {here}


def test_gpus_count_where_they_are_used() -> None:
    facts = {**timer.facts(), "gpus": ["One", "Two"]}
    assert environment_of(facts, Device()).gpu is None
    cuda = Device(provider="CUDAExecutionProvider")
    assert environment_of(facts, cuda).gpu == "One"
    assert environment_of(facts, replace(cuda, provider_options=(("device_id", "1"),))).gpu == "Two"
    assert environment_of({**facts, "gpus": []}, cuda).gpu is None


@pytest.mark.parametrize(
    ("size", "level", "found"), [("512K", "2", 512 * 1024), ("2M", "2", 2 * 1024 * 1024), ("32K", "1", 77)]
)
def test_the_l2_cache_is_read(
    size: str, level: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("size", size), ("level", level)):
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(os, "sysconf", lambda _: 77)
    assert timer.l2_cache_bytes(str(tmp_path)) == found
