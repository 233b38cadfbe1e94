import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest

from helpers.cost_graphs import small_net
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


def test_only_one_thread_on_a_cpu_stays_in_its_thread() -> None:
    assert stays_in_thread(Device())
    assert not stays_in_thread(Device(threads=2))
    assert not stays_in_thread(Device(provider="CUDAExecutionProvider"))
    assert not stays_in_thread(Device(runtime="torch", provider=""))


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


def test_the_worker_says_the_same_of_this_machine_as_this_process() -> None:
    with WorkerTimer(Device()) as timing:
        facts = timing.facts()
    assert {**facts, "load": None} == {**timer.facts(), "load": None}
    assert environment_of(facts, Device()).fingerprint == capture(Device()).fingerprint
