"""The config's section `device`, and the device that it stands for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from latency_models.devices.device import DEVICES, Device
from latency_models.devices.device_file import NAME_PATTERN, DeviceDefinition, defined_device, files, users_devices
from latency_models.devices.resolve import resolve_device
from latency_models.errors import DeviceError, unknown_name
from pipeline.config.base import Count


class DeviceOptions(DeviceDefinition):
    """Hardware, runtime and settings that costs are measured on.

    The name is a built-in device's, one of a file of devices, or a new one with its definition in the same section.
    A config that was read has the definition in any case, so that a run doesn't depend on the file later.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "cpu"
    threads: Count = 1
    batch_size: Count = 1
    precision: Literal["fp32", "int8"] = "fp32"

    @model_validator(mode="after")
    def _keeps_built_ins(self) -> DeviceOptions:
        if self.name in DEVICES and (keys := [key for key in DeviceDefinition.model_fields if key in self.defined]):
            raise PydanticCustomError(
                "device",
                "{name} is a built-in device and takes no {keys}; give this one a name of its own",
                {"name": repr(self.name), "keys": " or ".join(keys)},
            )
        return self

    @property
    def defined(self) -> dict[str, Any]:
        """The keys of a definition that were given, with their values."""
        given = {key: getattr(self, key) for key in DeviceDefinition.model_fields}
        return {key: value for key, value in given.items() if value is not None}

    def definition(self) -> DeviceDefinition | None:
        """The definition in this section, or None where there is only the name."""
        return DeviceDefinition(**self.defined) if self.defined else None

    @model_serializer(mode="plain")
    def _given(self) -> dict[str, Any]:
        """Serialise the settings, and only those keys of a definition that were given."""
        settings = {key: getattr(self, key) for key in ("name", "threads", "batch_size", "precision")}
        return {**settings, **self.defined}


def device_of(options: DeviceOptions) -> Device:
    """The device of a config's section `device`.

    Raises:
        DeviceError: there is no such device, or this machine can't give what it asks for.
    """
    return resolve_device(options.name, options.threads, options.batch_size, options.precision, options.definition())


def device_on_a_word(options: DeviceOptions) -> Device:
    """Resolve a device that an untrusted file names, such as a bundle's manifest.

    It may name any device of this machine. A device on another host, or with options for a provider (some are paths
    of code to load), has to be defined alike in the user's own file of devices.

    Raises:
        DeviceError: it isn't, there is no such device, or this machine can't give what is asked for.
    """
    check_on_a_word(options)
    if options.name not in DEVICES and not options.defined:
        raise DeviceError(unknown_name("device", options.name, DEVICES))
    return device_of(options)


def check_on_a_word(options: DeviceOptions, way_out: str = "") -> None:
    """Check that a device of an untrusted file runs nothing that the file chooses.

    Args:
        options: the device.
        way_out: what else the user can do, beside defining it.

    Raises:
        DeviceError: it is on another host, or has options for a provider, and isn't defined alike in the user's own
            file of devices.
    """
    if options.host is None and not options.provider_options:
        return
    own = users_devices().get(options.name)
    if (
        own is None
        or own.device_fields() != options.device_fields()
        or own.runtime_and_provider() != options.runtime_and_provider()
    ):
        described = ", ".join(f"{key} {value!r}" for key, value in options.defined.items())
        raise DeviceError(
            f"device {options.name!r} isn't used on a file's word; define it alike in {files()[1]} first"
            + (f", or, {way_out}" if way_out else "")
            + f" ({described})"
        )


def defined(section: Any) -> Any:
    """A config's section `device`, completed by the definition of its name in a file of devices.

    A section that is no mapping, names a built-in device or defines one itself stays as it is.

    Raises:
        DeviceError: the name is unknown, or there is a mistake in a file of devices.
    """
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(name, str) or name in DEVICES or any(key in section for key in DeviceDefinition.model_fields):
        return section
    found = defined_device(name)
    return {**found.explicit(), **found.settings(), **section}
