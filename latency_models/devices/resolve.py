"""Resolution of a device's name and settings into a device that this machine can use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.devices.device import CPU_PROVIDER, CUDA_PROVIDER, DEVICES, ONNXRUNTIME, PRECISIONS, TORCH, Device
from latency_models.devices.environment import usable_cores
from latency_models.errors import DeviceError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.devices.device_file import DeviceDefinition


def installed_providers() -> tuple[str, ...]:
    """The execution providers of the ONNX Runtime that is installed."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def resolve_device(
    name: str,
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    definition: DeviceDefinition | None = None,
) -> Device:
    """The device of that name with these settings.

    Args:
        name: a built-in, a device of the user's file, or any other name with its `definition`.
        threads: of one inference; None takes the file's, if it has one, or else 1.
        batch_size: likewise.
        precision: likewise, or else fp32.
        definition: of a device that is in no file.

    Raises:
        DeviceError: an unknown name or precision, a count below 1, more threads than this machine has, a
            provider that isn't installed, or a mistake in the file of devices.
    """
    given = {"threads": threads, "batch_size": batch_size, "precision": precision}
    settings: dict[str, object] = {"threads": 1, "batch_size": 1, "precision": "fp32"}
    if name not in DEVICES:
        from latency_models.devices.device_file import DefinedDevice, defined_device

        definition = definition if definition is not None else defined_device(name)
        if isinstance(definition, DefinedDevice):
            settings.update(definition.settings())
    elif definition is not None:
        raise DeviceError(f"device {name!r} is a built-in and can't be defined anew; give it a name of its own")
    settings.update({key: value for key, value in given.items() if value is not None})
    runtime, provider = _runtime_of(name) if definition is None else definition.runtime_and_provider()
    device = Device(
        name=name,
        runtime=runtime,
        provider=provider,
        threads=_count(name, "threads", settings["threads"]),
        batch_size=_count(name, "batch_size", settings["batch_size"]),
        precision=_precision(settings["precision"]),
        **({} if definition is None else definition.device_fields()),
    )
    if device.host is None:
        _check_here(device)
    return device


def _count(name: str, setting: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DeviceError(f"device {name!r}: {setting} is {value!r}; it has to be a whole number from 1 on")
    return value


def _precision(value: object) -> str:
    if value not in PRECISIONS:
        raise DeviceError(unknown_name("precision", value, PRECISIONS))
    return str(value)


def _runtime_of(name: str) -> tuple[str, str]:
    """The runtime and provider of a built-in; a GPU is used through torch where ONNX Runtime can't."""
    provider = DEVICES[name].provider
    if provider != CUDA_PROVIDER or provider in installed_providers():
        return ONNXRUNTIME, provider
    if (missing := missing_torch_gpu()) is None:
        return TORCH, ""
    raise DeviceError(
        f"device {name!r} needs either ONNX Runtime's {provider}, which is not installed (installed: "
        f"{', '.join(installed_providers())}; the package onnxruntime-gpu brings it), or torch with a GPU: {missing}"
    )


def missing_torch_gpu() -> str | None:
    """The reason why torch can't run a model on a GPU here; None where it can."""
    try:
        import torch
    except ImportError as error:
        return f"torch can't be imported ({error})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no NVIDIA GPU or no driver"
    return None


def _check_here(device: Device) -> None:
    """Raise DeviceError for a setting that this machine can't meet."""
    if device.threads > usable_cores():
        raise DeviceError(
            f"device {device.name!r}: threads is {device.threads}, but this machine has {usable_cores()} cores for it"
        )
    if device.runtime == TORCH:
        if device.precision != "fp32":
            raise DeviceError(f"device {device.name!r} runs with torch, which runs no {device.precision}; valid: fp32")
        if device.name not in DEVICES and (missing := missing_torch_gpu()) is not None:
            raise DeviceError(f"device {device.name!r} needs torch with a GPU: {missing}")
    elif device.provider != CPU_PROVIDER and device.provider not in (installed := installed_providers()):
        raise DeviceError(
            f"device {device.name!r} needs ONNX Runtime's {device.provider}, {_not_installed(device.provider)}; "
            f"installed: {', '.join(installed)}"
        )


def _not_installed(provider: str) -> str:
    """A clause on a missing provider: it belongs to another build, or it is unknown to ONNX Runtime."""
    import onnxruntime

    known: Iterable[str] = onnxruntime.get_all_providers()
    if provider in known:
        return "which is not installed"
    return f"of which it doesn't know: {unknown_name('provider', provider, known)}"
