"""The user's own devices: a YAML file of definitions, read strictly.

    devices:
      raspberry:
        host: pi@raspberrypi.local
        ssh_options: [-p, "2222"]
        threads: 2
      openvino:
        provider: OpenVINOExecutionProvider
        provider_options: {device_type: CPU}

The file in the user's config folder comes first. A `devices.yaml` of the working folder may be a stranger's: it adds
devices, but none whose use would run a program, or read a file, that it chooses.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from latency_models.devices.device import CPU_PROVIDER, DEVICES, ONNXRUNTIME, TORCH
from latency_models.devices.ssh_options import refusal, runs_nothing
from latency_models.errors import DeviceError, unknown_name
from latency_models.strict_yaml import UnreadableYamlError, read_yaml, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE_NAME = "devices.yaml"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_DESTINATION = r"^[A-Za-z0-9_][^\s\x00-\x1f\x7f]*$"  # no leading "-": ssh would take it for an option
_ON_ONE_LINE = r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$"

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_:,+-]*|[+-]?\d+\.\d*")  # a word or a number: no path, no library's name
_PYTHON = re.compile(r"python[0-9.]*")
_LOG = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]


class DeviceDefinition(BaseModel):
    """A device's runtime, provider and host; the defaults are ONNX Runtime's CPU provider on this machine."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    runtime: Literal["onnxruntime", "torch"] | None = None
    provider: Annotated[str, Field(pattern=r"^\w+ExecutionProvider$")] | None = None
    provider_options: dict[str, str] | None = None
    host: Annotated[str, Field(pattern=_DESTINATION)] | None = None
    ssh_options: list[Annotated[str, Field(min_length=1)]] | None = None
    python: Annotated[str, Field(pattern=_ON_ONE_LINE)] | None = None

    @field_validator("provider_options", mode="before")
    @classmethod
    def _options_as_text(cls, values: object) -> object:
        """Turn numbers into text, which ONNX Runtime takes; YAML reads `device_id: 1` as a number."""
        if not isinstance(values, dict):
            return values
        return {key: str(value) if isinstance(value, (bool, int, float)) else value for key, value in values.items()}

    @field_validator("ssh_options", mode="before")
    @classmethod
    def _numbers_as_text(cls, values: object) -> object:
        """Turn numbers into text; YAML reads the port in `[-p, 2222]` as a number."""
        if not isinstance(values, list):
            return values
        return [str(value) if type(value) is int else value for value in values]

    @field_validator("ssh_options")
    @classmethod
    def _host_keys_stay_checked(cls, values: list[str] | None) -> list[str] | None:
        if values and (reason := refusal(values)) is not None:
            raise PydanticCustomError("ssh_options", "{reason}", {"reason": reason})
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> DeviceDefinition:
        if self.host is None and (only := [key for key in ("ssh_options", "python") if getattr(self, key) is not None]):
            raise PydanticCustomError("device", "{keys} without a host", {"keys": " and ".join(only)})
        if self.runtime == TORCH:
            for key in ("provider", "provider_options", "host"):
                if getattr(self, key) is not None:
                    raise PydanticCustomError(
                        "device", "runtime torch is this machine's NVIDIA GPU and takes no {key}", {"key": key}
                    )
        return self

    def runtime_and_provider(self) -> tuple[str, str]:
        """The runtime and the provider, as in `Device`."""
        if self.runtime == TORCH:
            return TORCH, ""
        return ONNXRUNTIME, self.provider or CPU_PROVIDER

    def device_fields(self) -> dict[str, Any]:
        """The other fields of `Device` that the definition sets."""
        fields: dict[str, Any] = {"provider_options": tuple((self.provider_options or {}).items())}
        if self.host is not None:
            fields.update(host=self.host, ssh_options=tuple(self.ssh_options or ()), python=self.python or "python3")
        return fields

    def what_it_chooses(self) -> str | None:
        """The key by which this definition chooses what is run or read where it is used; None where none does."""
        if any(_PLAIN_VALUE.fullmatch(value) is None for value in (self.provider_options or {}).values()):
            return "provider_options"
        if not runs_nothing(self.ssh_options or ()):
            return "ssh_options"
        if self.python is not None and _PYTHON.fullmatch(PurePosixPath(self.python).name) is None:
            return "python"
        return None

    def explicit(self) -> dict[str, Any]:
        """The keys of this definition with its defaults: they define the same device without the file."""
        runtime, provider = self.runtime_and_provider()
        fields: dict[str, Any] = {"runtime": runtime}
        if provider:
            fields["provider"] = provider
        if self.provider_options:
            fields["provider_options"] = dict(self.provider_options)
        if self.host is not None:
            fields.update(host=self.host, ssh_options=list(self.ssh_options or ()), python=self.python or "python3")
        return fields


class DefinedDevice(DeviceDefinition):
    """A device of the user's file: its definition and its default settings."""

    threads: Count | None = None
    batch_size: Count | None = None
    precision: Literal["fp32", "int8"] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that the file has for the device."""
        found = {"threads": self.threads, "batch_size": self.batch_size, "precision": self.precision}
        return {key: value for key, value in found.items() if value is not None}

    @property
    def description(self) -> str:
        """A line on the device for people."""
        runtime, provider = self.runtime_and_provider()
        what = "an NVIDIA GPU through torch" if runtime == TORCH else f"ONNX Runtime's {provider}"
        return what if self.host is None else f"{what} on {self.host}, over ssh"


def files() -> tuple[Path, Path]:
    """The places of a file of devices: in the working folder, and in the user's config folder."""
    return Path(FILE_NAME), platformdirs.user_config_path("hwnas") / FILE_NAME


def defined_devices() -> dict[str, DefinedDevice]:
    """All devices of both files; where both define a name, the user's own file wins.

    Raises:
        DeviceError: a file that can't be read, or a mistake in one.
    """
    here, users = files()
    return {**_devices_in(here), **_devices_in(users)}


def described_devices() -> dict[str, str]:
    """A line on each device of both files for people; it says which ones are the working folder's.

    Raises:
        DeviceError: a file that can't be read, or a mistake in one.
    """
    here, users = files()
    lines = {}
    for name, device in _devices_in(here).items():
        key = device.what_it_chooses()
        unused = "" if key is None else f", not used: its {key} choose what is run or read"
        lines[name] = f"{device.description} ({here} in the working folder{unused})"
    return {**lines, **{name: device.description for name, device in _devices_in(users).items()}}


def users_devices() -> dict[str, DefinedDevice]:
    """The devices of the user's config folder alone, since a working folder may hold a stranger's files.

    Raises:
        DeviceError: the file can't be read, or there is a mistake in it.
    """
    return _devices_in(files()[1])


def _devices_in(path: Path) -> dict[str, DefinedDevice]:
    return read_devices(path) if path.exists() or path.is_symlink() else {}


def defined_device(name: str) -> DefinedDevice:
    """The device of that name: the user's own, or else the working folder's, if it chooses nothing to be run.

    A message in the log says which one is used, where both files define it and where one of the working folder is on
    another host.

    Raises:
        DeviceError: no device has this name, a file has a mistake, or a device of the working folder isn't used.
    """
    here, users = files()
    own = users_devices()
    if name in own:
        if name in _names_in(here):
            _LOG.warning("device %r is the one of %s; %s in the working folder has another one", name, users, here)
        return own[name]
    found = _devices_in(here)
    if name not in found:
        valid = [*DEVICES, *own, *found]
        raise DeviceError(f"{unknown_name('device', name, valid)} (others are defined in {here} or {users})")
    device = found[name]
    if (key := device.what_it_chooses()) is not None:
        raise DeviceError(
            f"device {name!r} of {here} in the working folder isn't used: its {key} choose what is run or read, "
            f"which only your own file may do; if it is yours, put the device into {users}"
        )
    if device.host is not None:
        _LOG.warning("device %r is the one of %s in the working folder: %s", name, here, device.description)
    return device


def _names_in(path: Path) -> list[str]:
    """The names that a file defines; none where it can't be read, since it isn't needed."""
    try:
        return list(_devices_in(path))
    except DeviceError:
        return []


def read_devices(path: Path) -> dict[str, DefinedDevice]:
    """The devices of one file.

    Raises:
        DeviceError: a file that can't be read, or a mistake: its file, device and key, the value, and valid ones.
    """
    try:
        document = read_yaml(path)
    except UnreadableYamlError as error:
        raise DeviceError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise DeviceError(f"{path}: needs a mapping with the key 'devices', found {_kind(document)}")
    for key in document:
        if key != "devices":
            raise DeviceError(f"{path}: {unknown_name('key', key, ['devices'])}")
    devices = document.get("devices")
    if not isinstance(devices, dict):
        raise DeviceError(f"{path}: devices: needs a mapping of names to devices, found {_kind(devices)}")
    return {_checked_name(name, path): _read_device(name, value, path) for name, value in devices.items()}


def _checked_name(name: object, path: Path) -> str:
    if not isinstance(name, str) or re.match(NAME_PATTERN, name) is None:
        raise DeviceError(
            f"{path}: devices: {name!r} is no name for a device; valid: up to 64 letters, digits, '.', '_', '-', "
            "a letter or digit first"
        )
    if name in DEVICES:
        raise DeviceError(f"{path}: devices.{name}: {name!r} is a built-in device; give this one a name of its own")
    return name


def _read_device(name: str, value: object, path: Path) -> DefinedDevice:
    if value is None:
        value = {}  # a name alone: the CPU with its defaults
    try:
        return DefinedDevice.model_validate(value)
    except ValidationError as error:
        sentences = "; ".join(_sentence(each) for each in error.errors())
        raise DeviceError(f"{path}: devices.{name}: {sentences}") from None


def _sentence(error: ErrorDetails) -> str:
    """A sentence on a mistake in one key of a device: the value, and valid ones."""
    key = ".".join(str(part) for part in error["loc"])
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return unknown_name("key", key, DefinedDevice.model_fields)
        case "literal_error":
            return f"{key}: found {shown(found)}; valid: {error['ctx']['expected']}"
        case "model_type":
            return f"needs a mapping of keys to values, found {shown(found)}"
        case _:
            said = error["msg"][:1].lower() + error["msg"][1:]
            return (f"{key}: {said}" if key else said) + ("" if isinstance(found, dict) else f", found {shown(found)}")


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
