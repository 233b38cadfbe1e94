import os
from pathlib import Path

import pytest

from latency_models.devices import device_file
from latency_models.devices.device_file import (
    DefinedDevice,
    defined_device,
    defined_devices,
    described_devices,
    read_devices,
    users_devices,
)
from latency_models.errors import DeviceError

DEVICES = """
devices:
  raspberry:
    host: pi@raspberrypi.local
    ssh_options: [-p, 2222]
    python: python3.11
    threads: 2
  openvino:
    provider: OpenVINOExecutionProvider
    provider_options: {device_type: CPU, num_of_threads: 4, enable: true}
  two_threads: {threads: 2}
  plain:
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty current directory and an empty config folder: where the two files would be."""
    here, users = tmp_path / "here", tmp_path / "config"
    here.mkdir()
    users.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(device_file.platformdirs, "user_config_path", lambda name: users)
    return here / "devices.yaml", users / "devices.yaml"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    found = read_devices(written(tmp_path / "devices.yaml", DEVICES))
    assert list(found) == ["raspberry", "openvino", "two_threads", "plain"]
    assert found["raspberry"].device_fields() == {
        "provider_options": (), "host": "pi@raspberrypi.local", "ssh_options": ("-p", "2222"), "python": "python3.11",
    }  # fmt: skip
    assert found["raspberry"].settings() == {"threads": 2}
    assert found["raspberry"].runtime_and_provider() == ("onnxruntime", "CPUExecutionProvider")
    assert found["openvino"].device_fields()["provider_options"] == (
        ("device_type", "CPU"), ("num_of_threads", "4"), ("enable", "True"),
    )  # fmt: skip
    assert found["plain"] == DefinedDevice()


def test_what_is_written_out_needs_no_file(tmp_path: Path) -> None:
    for device in read_devices(written(tmp_path / "devices.yaml", DEVICES)).values():
        again = DefinedDevice(**device.explicit(), **device.settings())
        assert (again.runtime_and_provider(), again.device_fields()) == (
            device.runtime_and_provider(),
            device.device_fields(),
        )
        assert again.settings() == device.settings()
        assert again.explicit() == device.explicit()


def test_descriptions_say_where_a_device_is() -> None:
    assert DefinedDevice(host="pi").description == "ONNX Runtime's CPUExecutionProvider on pi, over ssh"
    assert DefinedDevice(runtime="torch").description == "an NVIDIA GPU through torch"


def test_the_users_own_file_comes_before_the_working_folders(places: tuple[Path, Path]) -> None:
    here, users = places
    assert defined_devices() == {}
    written(users, "devices: {a: {threads: 1}, b: {threads: 1}}")
    written(here, "devices: {b: {threads: 2}, c: {threads: 2}}")
    assert {name: device.threads for name, device in defined_devices().items()} == {"a": 1, "b": 1, "c": 2}
    assert {name: device.threads for name, device in users_devices().items()} == {"a": 1, "b": 1}


def test_a_message_says_which_of_two_is_used(places: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    here, users = places
    written(users, "devices: {board: {host: mine}, mine: {host: mine}}")
    written(here, "devices: {board: {host: theirs}, other: {host: theirs}, plain: {threads: 2}}")
    assert defined_device("board").host == "mine"
    assert f"'board' is the one of {users}; devices.yaml in the working folder has another one" in caplog.text
    caplog.clear()
    assert (defined_device("mine").host, defined_device("plain").threads) == ("mine", 2)
    assert caplog.text == ""
    assert defined_device("other").host == "theirs"
    assert "'other' is the one of devices.yaml in the working folder" in caplog.text
    assert "on theirs, over ssh" in caplog.text
    written(here, "devices: {board: [")  # what isn't needed does no harm
    assert defined_device("board").host == "mine"


def test_a_list_says_which_devices_are_the_working_folders(places: tuple[Path, Path]) -> None:
    here, users = places
    written(users, "devices: {both: {host: mine}}")
    written(here, "devices: {both: {host: theirs}, plain: , evil: {host: h, ssh_options: [-F, settings]}}")
    assert described_devices() == {
        "both": "ONNX Runtime's CPUExecutionProvider on mine, over ssh",
        "plain": "ONNX Runtime's CPUExecutionProvider (devices.yaml in the working folder)",
        "evil": "ONNX Runtime's CPUExecutionProvider on h, over ssh (devices.yaml in the working folder, not used: its "
        "ssh_options choose what is run or read)",
    }


CHOOSING = {
    "proxy": ("host: h, ssh_options: [-o, 'ProxyCommand=touch mark']", "ssh_options"),
    "local": ("host: h, ssh_options: ['-oLocalCommand=touch mark', -oPermitLocalCommand=yes]", "ssh_options"),
    "settings": ("host: h, ssh_options: [-F, ./ssh_config]", "ssh_options"),
    "library": ("host: h, ssh_options: [-I, ./keys.so]", "ssh_options"),
    "log": ("host: h, ssh_options: [-E, log]", "ssh_options"),
    "between": ("host: h, ssh_options: [-J, elsewhere]", "ssh_options"),
    "agent": ("host: h, ssh_options: [-A]", "ssh_options"),
    "bundled": ("host: h, ssh_options: [-4A]", "ssh_options"),
    "known": ("host: h, ssh_options: [-oUserKnownHostsFile=hosts]", "ssh_options"),
    "program": ("host: h, python: /bin/sh", "python"),
    "plugin": ("provider: QNNExecutionProvider, provider_options: {backend_path: ./evil.so}", "provider_options"),
    "found": ("provider: QNNExecutionProvider, provider_options: {backend_path: evil.so}", "provider_options"),
}
PLAIN = {
    "port": "host: h, ssh_options: [-p, 22, -l, pi, -4C, -i, ~/.ssh/id, -oConnectTimeout=5, -o, 'User pi']",
    "python": "host: h, python: ~/venv/bin/python3.11",
    "options": "provider: OpenVINOExecutionProvider, provider_options: {device_type: 'CPU', threads: 4, share: 0.5}",
}


@pytest.mark.parametrize("name", [*CHOOSING, *PLAIN])
def test_the_working_folders_file_chooses_nothing_that_is_run(places: tuple[Path, Path], name: str) -> None:
    here, users = places
    keys, key = CHOOSING.get(name, (PLAIN.get(name), ""))
    text = f"devices: {{{name}: {{{keys}}}}}"
    written(here, text)
    if key:
        with pytest.raises(DeviceError, match=f"'{name}' of devices.yaml in the working folder isn't used: its {key}"):
            defined_device(name)
        here.replace(users)  # the way out
    assert defined_device(name) == read_devices(written(users, text))[name]


@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "huge"])
def test_a_file_that_is_none_is_refused_at_once(places: tuple[Path, Path], kind: str) -> None:
    here = places[0]
    if kind == "pipe":
        os.mkfifo(here)
    elif kind == "huge":
        with here.open("wb") as file:
            file.truncate(10**12)
    else:
        here.symlink_to("nowhere")
    words = {"pipe": "is a pipe, not a file", "huge": "is too large", "link to nothing": "No such file"}[kind]
    with pytest.raises(DeviceError, match=rf"devices\.yaml: can't be read: .*{words}"):
        defined_devices()


def test_an_unknown_name_lists_all_and_both_places(places: tuple[Path, Path]) -> None:
    written(places[0], DEVICES)
    with pytest.raises(DeviceError) as caught:
        defined_device("rasberry")
    for word in ("'rasberry'", "did you mean 'raspberry'", "cpu, cuda", "openvino", "devices.yaml", str(places[1])):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("needs a mapping with the key 'devices'", "nothing")),
        ("- a", ("needs a mapping", "list")),
        ("device: {}", ("unknown key 'device'", "did you mean 'devices'")),
        ("devices:", ("devices: needs a mapping", "nothing")),
        ("devices: [a]", ("devices: needs a mapping", "list")),
        ("devices: {cpu: {threads: 2}}", ("devices.cpu", "built-in", "name of its own")),
        ("devices: {-p: {}}", ("'-p' is no name", "letters, digits")),
        ("devices: {1: {}}", ("1 is no name",)),
        ("devices: {a b: {}}", ("'a b' is no name",)),
        ("devices: {a: 5}", ("devices.a: needs a mapping of keys to values, found 5",)),
        ("devices: {a: {hots: pi}}", ("devices.a: unknown key 'hots'", "did you mean 'host'", "provider_options")),
        ("devices: {a: {host: 7}}", ("devices.a: host: ", "string", "found 7")),
        ("devices: {a: {host: -oProxyCommand=x}}", ("devices.a: host: ", "-oProxyCommand=x")),
        ("devices: {a: {host: 'pi x'}}", ("devices.a: host: ", "'pi x'")),
        ("devices: {a: {threads: 0}}", ("devices.a: threads: ", "greater than or equal to 1", "found 0")),
        ("devices: {a: {threads: '2'}}", ("devices.a: threads: ", "integer", "'2'")),
        ("devices: {a: {precision: fp16}}", ("devices.a: precision: found 'fp16'", "'fp32' or 'int8'")),
        ("devices: {a: {runtime: tensorrt}}", ("runtime: found 'tensorrt'", "'onnxruntime' or 'torch'")),
        ("devices: {a: {provider: CUDA}}", ("devices.a: provider: ", "ExecutionProvider", "'CUDA'")),
        ("devices: {a: {provider_options: {x: [1]}}}", ("devices.a: provider_options.x: ", "string", "[1]")),
        ("devices: {a: {host: pi, ssh_options: [-o, no]}}", ("ssh_options.1: ", "string", "False")),
        ("devices: {a: {ssh_options: -p}}", ("devices.a: ssh_options: ", "list", "'-p'")),
        ("devices: {a: {ssh_options: [-p, '2']}}", ("devices.a: ssh_options without a host",)),
        ("devices: {a: {python: x, ssh_options: [-4]}}", ("ssh_options and python without a host",)),
        ("devices: {a: {host: pi, python: ''}}", ("devices.a: python: ",)),
        ("devices: {a: {runtime: torch, host: pi}}", ("devices.a: runtime torch", "takes no host")),
        ("devices: {a: {runtime: torch, provider: XExecutionProvider}}", ("takes no provider",)),
        (
            "devices: {a: {host: pi, ssh_options: [-o, StrictHostKeyChecking=no]}}",
            ("devices.a: ssh_options: ", "StrictHostKeyChecking=no turns the check of the host's key off", "yes"),
        ),
        ("devices: {a: {threads: 1, threads: 2}}", ("line 1", "the key 'threads' is given twice")),
        ("devices: {a: {}, a: {}}", ("the key 'a' is given twice",)),
        ("devices: {a: [}", ("line 1", "no valid YAML")),
        ("devices: {a: 2001-13-45}", ("no valid YAML",)),
        ("devices: " + 1000 * "[", ("nested",)),
        ("devices: !!python/object/apply:os.getcwd []", ("no valid YAML",)),
    ],
)
def test_mistakes_are_one_clear_error(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = written(tmp_path / "devices.yaml", text)
    with pytest.raises(DeviceError) as caught:
        read_devices(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, places: tuple[Path, Path]) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"devices: {\xe4: {}}")
    with pytest.raises(DeviceError, match=r"latin\.yaml: can't be read"):
        read_devices(tmp_path / "latin.yaml")
    places[0].mkdir()
    with pytest.raises(DeviceError, match=r"devices\.yaml: can't be read"):
        defined_devices()
