"""A user's own devices: from the file or the config to the device, into the run directory, and out of a manifest."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from helpers.cli import SMALL, merged, small_config
from latency_models.devices import device_file
from latency_models.devices.device import Device
from latency_models.errors import DeviceError
from latency_models.runners.torch_runner import TorchRunner
from pipeline.commands import files as commands
from pipeline.config.device import DeviceOptions, device_of, device_on_a_word
from pipeline.config.file import dump_config, load_config, parse_config
from pipeline.errors import ConfigError
from pipeline.run import RunDirectory

BOARD = {"host": "pi@board", "ssh_options": ["-p", "2222"], "threads": 4, "precision": "int8"}
ON_BOARD = Device(
    "board", threads=4, precision="int8", host="pi@board", ssh_options=("-p", "2222"), python="python3"
)  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two files of devices, neither of them there."""
    here, users = tmp_path / "here", tmp_path / "config"
    here.mkdir()
    users.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(device_file.platformdirs, "user_config_path", lambda name: users)
    return here / "devices.yaml", users / "devices.yaml"


def write(path: Path, **devices: Any) -> None:
    path.write_text(yaml.safe_dump({"devices": devices}), encoding="utf-8")


def config_of(**device: Any) -> Any:
    return parse_config(merged(SMALL, {"device": device}), "my.yaml")


@pytest.mark.parametrize("place", [0, 1])
def test_a_config_names_a_device_of_the_file(places: tuple[Path, Path], place: int) -> None:
    write(places[place], board=BOARD)
    assert device_of(config_of(name="board").device) == ON_BOARD
    changed = config_of(name="board", threads=2, precision="fp32").device
    assert (changed.threads, changed.precision, changed.batch_size) == (2, "fp32", 1)


def test_a_config_defines_its_device_itself(places: tuple[Path, Path]) -> None:
    write(places[0], board={"host": "another"})
    assert device_of(config_of(name="board", **BOARD).device) == ON_BOARD


def test_a_run_holds_the_definition_and_needs_no_file(places: tuple[Path, Path], tmp_path: Path) -> None:
    write(places[0], board=BOARD, two={"threads": 1})
    for name in ("board", "two"):
        config = load_config(small_config(tmp_path / "c.yaml", device={"name": name}))
        created = RunDirectory.create(tmp_path / name, config)
        written = yaml.safe_load((tmp_path / name / "config.yaml").read_text(encoding="utf-8"))["device"]
        assert (written["runtime"], written["provider"]) == ("onnxruntime", "CPUExecutionProvider")
        created.open_journal().close()
    write(places[0], board={"host": "moved"})
    for name in ("board", "two"):
        opened = RunDirectory.open(tmp_path / name)
        opened.open_journal().close()  # what decides the search is the same
        assert device_of(opened.config.device).threads == {"board": 4, "two": 1}[name]
    places[0].write_text("devices: {a: [", encoding="utf-8")
    assert device_of(RunDirectory.open(tmp_path / "board").config.device) == ON_BOARD


def test_a_built_in_is_written_as_it_was() -> None:
    config = config_of(name="cpu", precision="int8")
    assert config.device.model_dump() == {"name": "cpu", "threads": 1, "batch_size": 1, "precision": "int8"}
    assert "provider" not in yaml.safe_load(dump_config(config))["device"]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"name": "bord"}, ("device.name: unknown device 'bord'", "did you mean 'board'", "cpu", "cuda")),
        ({"name": "cpu", "host": "pi"}, ("device: 'cpu' is a built-in device and takes no host", "name of its own")),
        ({"host": "pi"}, ("'cpu' is a built-in",)),
        ({"name": "b", "hots": "pi"}, ("unknown device 'b'",)),
        ({"name": "b", "host": "pi", "prot": 1}, ("device.prot: unknown key", "provider")),
        ({"name": "b", "host": "-x"}, ("device.host: ", "'-x'")),
        ({"name": "b", "python": "python3"}, ("device: python without a host",)),
        ({"name": "b", "runtime": "tensorrt"}, ("device.runtime: found 'tensorrt'", "torch")),
        ({"name": "b", "provider": "CUDA"}, ("device.provider: ", "'CUDA'")),
        ({"name": "-b", "runtime": "torch"}, ("device.name: ", "'-b'")),
        (
            {"name": "b", "host": "pi", "ssh_options": ["-oStrictHostKeyChecking=no"]},
            ("device.ssh_options: -o StrictHostKeyChecking=no turns the check of the host's key off",),
        ),
        (5, ("device: needs a mapping", "5")),
    ],
)
def test_mistakes_name_the_key(places: tuple[Path, Path], device: Any, words: tuple[str, ...]) -> None:
    write(places[0], board=BOARD)
    with pytest.raises(ConfigError) as caught:
        parse_config({**SMALL, "device": device}, "my.yaml")
    for word in ("my.yaml", *words):
        assert word in str(caught.value)


def test_a_mistake_in_the_file_is_told_with_the_file(places: tuple[Path, Path]) -> None:
    write(places[1], board={"hots": "pi"})
    with pytest.raises(ConfigError, match=r"devices\.yaml: devices\.board: unknown key 'hots'; did you mean 'host'"):
        config_of(name="board")
    assert config_of(name="cpu").device.name == "cpu"  # a built-in needs no file


def test_the_command_lists_and_takes_them(places: tuple[Path, Path], hwnas: Any) -> None:
    write(places[0], board=BOARD, two={"threads": 2})
    listed = hwnas("list", "devices", "--json").document()
    assert list(listed) == ["cpu", "cuda", "board", "two"]
    assert "pi@board" in listed["board"]
    assert commands.listing("devices") == listed
    wrong = hwnas("profile", places[0], "--device", "tow")
    assert wrong.code == 2
    assert "did you mean 'two'" in wrong.stderr


# --- what a stranger's file may ask for


def options(**device: Any) -> DeviceOptions:
    return DeviceOptions.model_validate(device)


def test_a_manifest_may_choose_among_what_is_here() -> None:
    assert device_on_a_word(options(name="cpu", precision="int8")) == Device(precision="int8")
    assert device_on_a_word(options(name="one", provider="CPUExecutionProvider")) == Device("one")


@pytest.mark.parametrize(
    "device",
    [
        {"name": "board", **BOARD},
        {"name": "local", "provider": "CPUExecutionProvider", "provider_options": {"library": "/tmp/evil.so"}},
    ],
)
def test_a_manifest_connects_to_no_host_and_hands_on_no_options(places: tuple[Path, Path], device: Any) -> None:
    """What lies in the current directory doesn't vouch for it either: that may be the bundle's own."""
    name = device["name"]
    own = {key: value for key, value in device.items() if key != "name"}
    write(places[0], **{name: own})
    with pytest.raises(DeviceError, match=f"{name!r} isn't used on a file's word; define it alike in .*devices.yaml"):
        device_on_a_word(options(**device))
    write(places[1], **{name: {**own, "provider": "XnnpackExecutionProvider"}})
    with pytest.raises(DeviceError, match="isn't used"):
        device_on_a_word(options(**device))
    write(places[1], **{name: own})
    assert device_on_a_word(options(**device)).name == name


def test_a_manifests_bare_name_is_a_built_ins_or_nobodys(places: tuple[Path, Path]) -> None:
    write(places[0], board=BOARD)
    with pytest.raises(DeviceError, match="unknown device 'board'"):
        device_on_a_word(options(name="board"))


# --- torch runs what candidates are made of


@pytest.mark.parametrize("name", activations.names())
def test_torchs_runner_agrees_with_onnx_runtime_on_every_activation(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        activations.create(name, 8),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        activations.create(name, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    content = quick_graph(net, (3, 16, 16))[0].SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).uniform(-10, 10, (1, 3, 16, 16)).astype(np.float32)
    feed = {session.get_inputs()[0].name: images}
    wanted = session.run(None, feed)[0]
    with TorchRunner(content, Device(), feed, torch_device="cpu") as runner:
        assert np.abs(runner.results[0] - wanted).max() <= 1e-4 * np.abs(wanted).max()
