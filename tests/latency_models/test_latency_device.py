from __future__ import annotations

import subprocess
import sys

import pytest

from latency_models.device import DEVICES, Device, resolve_device
from latency_models.environment import capture
from latency_models.errors import CostError, DeviceError


def test_defaults() -> None:
    assert resolve_device("cpu") == Device("cpu", threads=1, batch_size=1, precision="fp32")


def test_settings_are_kept() -> None:
    assert resolve_device("cpu", threads=2, batch_size=8).as_dict() == {
        "name": "cpu", "threads": 2, "batch_size": 8, "precision": "fp32",
    }  # fmt: skip


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(DeviceError) as caught:
        resolve_device("cpuu")
    message = str(caught.value)
    assert all(name in message for name in DEVICES)
    assert "did you mean 'cpu'" in message
    assert isinstance(caught.value, CostError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"threads": True}, "threads is True"),
        ({"precision": "fp23"}, "did you mean 'fp32'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(DeviceError, match=named):
        resolve_device("cpu", **settings)  # type: ignore[arg-type]


def test_cuda_needs_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latency_models.device.installed_providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(DeviceError, match="CUDAExecutionProvider, which is not installed"):
        resolve_device("cuda")
    monkeypatch.setattr("latency_models.device.installed_providers", lambda: ("CUDAExecutionProvider",))
    assert resolve_device("cuda").provider == "CUDAExecutionProvider"


def test_the_fingerprint_tells_settings_apart_and_not_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latency_models.environment.load_average", lambda: 0.1)
    one = capture(resolve_device("cpu"))
    monkeypatch.setattr("latency_models.environment.load_average", lambda: 9.9)
    busy = capture(resolve_device("cpu"))
    assert (one.load_at_start, busy.load_at_start) == (0.1, 9.9)
    assert one.fingerprint == busy.fingerprint
    assert one.fingerprint != capture(resolve_device("cpu", threads=2)).fingerprint
    assert one.as_dict()["fingerprint"] == one.fingerprint
    # What is fed decides the time of a model, and not of a reference.
    assert one.fingerprint == capture(resolve_device("cpu", batch_size=7)).fingerprint


def test_importing_the_package_and_its_errors_loads_no_runtime() -> None:
    code = "import sys, latency_models.errors, latency_models.device; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"threads is 100000, but this machine has \d+ cores"):
        resolve_device("cpu", threads=100_000)
