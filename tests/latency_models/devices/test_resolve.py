import subprocess
import sys
from pathlib import Path

import pytest

from latency_models.devices import device_file
from latency_models.devices import resolve as module
from latency_models.devices.device import DEVICES, Device
from latency_models.devices.device_file import DeviceDefinition
from latency_models.devices.resolve import resolve_device
from latency_models.errors import CostError, DeviceError


@pytest.fixture(autouse=True)
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_file, "files", lambda: (tmp_path / "devices.yaml", tmp_path / "home" / "devices.yaml"))


def test_defaults() -> None:
    assert resolve_device("cpu") == Device() == Device("cpu", threads=1, batch_size=1, precision="fp32")


def test_settings_are_kept() -> None:
    assert resolve_device("cpu", threads=2, batch_size=8).as_dict() == {
        "name": "cpu", "threads": 2, "batch_size": 8, "precision": "fp32",
    }  # fmt: skip
    assert resolve_device("cpu", 1, 1, "int8").precision == "int8"


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
        ({"precision": "fp23"}, "did you mean 'fp32'.* valid: fp32, int8"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(DeviceError, match=named):
        resolve_device("cpu", **settings)  # type: ignore[arg-type]


def test_cuda_is_onnx_runtimes_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_providers", lambda: ("CUDAExecutionProvider", "CPUExecutionProvider"))
    monkeypatch.setattr(module, "missing_torch_gpu", lambda: pytest.fail("torch was asked"))
    found = resolve_device("cuda")
    assert (found.runtime, found.provider) == ("onnxruntime", "CUDAExecutionProvider")
    assert found.as_dict() == {"name": "cuda", "threads": 1, "batch_size": 1, "precision": "fp32"}


def test_cuda_is_torchs_where_only_torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_providers", lambda: ("CPUExecutionProvider",))
    monkeypatch.setattr(module, "missing_torch_gpu", lambda: None)
    found = resolve_device("cuda")
    assert (found.runtime, found.provider) == ("torch", "")
    assert found.as_dict()["runtime"] == "torch"
    with pytest.raises(DeviceError, match="torch, which runs no int8"):
        resolve_device("cuda", precision="int8")


def test_without_either_both_ways_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_providers", lambda: ("CPUExecutionProvider",))
    monkeypatch.setattr(module, "missing_torch_gpu", lambda: "no GPU here")
    with pytest.raises(DeviceError) as caught:
        resolve_device("cuda")
    for word in ("CUDAExecutionProvider", "installed: CPUExecutionProvider", "onnxruntime-gpu", "no GPU here"):
        assert word in str(caught.value)


def test_what_torch_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    assert "build without CUDA" in str(module.missing_torch_gpu())
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no NVIDIA GPU" in str(module.missing_torch_gpu())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.missing_torch_gpu() is None
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "can't be imported" in str(module.missing_torch_gpu())


def test_any_provider_is_a_device_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_providers", lambda: ("OpenVINOExecutionProvider", "CPUExecutionProvider"))
    definition = DeviceDefinition(provider="OpenVINOExecutionProvider", provider_options={"device_type": "CPU"})
    found = resolve_device("openvino", definition=definition)
    assert found == Device("openvino", "onnxruntime", "OpenVINOExecutionProvider", (("device_type", "CPU"),))
    assert found.as_dict() == {
        "name": "openvino", "threads": 1, "batch_size": 1, "precision": "fp32",
        "provider": "OpenVINOExecutionProvider", "provider_options": {"device_type": "CPU"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "named"),
    [
        ("OpenVINOExecutionProvider", "OpenVINOExecutionProvider, which is not installed; installed: .*CPUExec"),
        ("OpenVinoExecutionProvider", "doesn't know: unknown provider .* did you mean 'OpenVINOExecutionProvider'"),
    ],
)
def test_a_provider_that_is_not_here(monkeypatch: pytest.MonkeyPatch, provider: str, named: str) -> None:
    monkeypatch.setattr(module, "installed_providers", lambda: ("CPUExecutionProvider",))
    with pytest.raises(DeviceError, match=named):
        resolve_device("mine", definition=DeviceDefinition(provider=provider))


def test_another_host_has_its_own_providers_and_cores() -> None:
    definition = DeviceDefinition(host="pi@board", ssh_options=["-p", "22"], provider="AclExecutionProvider")
    found = resolve_device("board", threads=512, definition=definition)
    assert found == Device(
        "board", "onnxruntime", "AclExecutionProvider", (), 512, 1, "fp32", "pi@board", ("-p", "22"), "python3"
    )
    assert found.as_dict() == {
        "name": "board", "threads": 512, "batch_size": 1, "precision": "fp32", "provider": "AclExecutionProvider",
        "host": "pi@board", "ssh_options": ["-p", "22"], "python": "python3",
    }  # fmt: skip


def test_a_built_in_keeps_its_meaning() -> None:
    with pytest.raises(DeviceError, match="'cpu' is a built-in"):
        resolve_device("cpu", definition=DeviceDefinition(host="pi@board"))


def test_a_device_of_a_file_has_the_files_settings_unless_others_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "devices.yaml").write_text("devices: {board: {host: pi, threads: 4, precision: int8}}")
    assert resolve_device("board") == Device("board", threads=4, precision="int8", host="pi")
    assert resolve_device("board", threads=2, precision="fp32") == Device("board", threads=2, host="pi")


def test_a_cpu_loads_neither_torch_nor_the_file() -> None:
    code = (
        "import sys, latency_models.errors, latency_models.devices.resolve as d; print('onnxruntime' in sys.modules);"
        "d.resolve_device('cpu'); print(any(name in sys.modules for name in ('torch', 'yaml', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"threads is 100000, but this machine has \d+ cores"):
        resolve_device("cpu", threads=100_000)
