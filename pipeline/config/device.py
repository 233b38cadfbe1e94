"""From a config's device section to the device that costs are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latency_models.devices.device import DEVICES, Device
from latency_models.devices.device_file import DeviceDefinition, defined_device, files, users_devices
from latency_models.devices.resolve import resolve_device
from latency_models.errors import DeviceError, unknown_name

if TYPE_CHECKING:
    from pipeline.config.run import DeviceOptions


def device_of(options: DeviceOptions) -> Device:
    """The device of a config's section `device`.

    Raises:
        DeviceError: there is no such device, or this machine can't give what it asks for.
    """
    return resolve_device(options.name, options.threads, options.batch_size, options.precision, options.definition())


def device_on_a_word(options: DeviceOptions) -> Device:
    """The device that a stranger's file names, as a bundle's manifest may be one.

    It may choose among what this machine has. Where it would have another host connected to, or hand options to
    a provider (some are paths of code to load), the user's own config folder has to define the same device.

    Raises:
        DeviceError: it doesn't, there is no such device, or this machine can't give what is asked for.
    """
    if options.host is not None or options.provider_options:
        own = users_devices().get(options.name)
        if own is None or own.whereabouts() != options.whereabouts() or own.runs_with() != options.runs_with():
            place = files()[1]
            raise DeviceError(f"device {options.name!r} isn't used on a file's word; define it alike in {place} first")
    elif options.name not in DEVICES and not options.defined:
        raise DeviceError(unknown_name("device", options.name, DEVICES))
    return device_of(options)


def defined(section: Any) -> Any:
    """A config's section `device` with the definition of its name written out, where a file of devices holds it.

    What is no mapping, names a built-in or defines its device itself is left as it is.

    Raises:
        DeviceError: the name is unknown, or there is a mistake in a file of devices.
    """
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(name, str) or name in DEVICES or any(key in section for key in DeviceDefinition.model_fields):
        return section
    found = defined_device(name)
    return {**found.written_out(), **found.settings(), **section}
