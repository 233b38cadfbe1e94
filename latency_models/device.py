"""Devices: hardware, runtime and settings that a model is timed with."""

from __future__ import annotations

from dataclasses import dataclass

from latency_models.environment import usable_cores
from latency_models.errors import DeviceError, unknown_name


@dataclass(frozen=True)
class DeviceSpec:
    """One row of the table of devices: ONNX Runtime's execution provider, and a line for people."""

    provider: str
    description: str


DEVICES: dict[str, DeviceSpec] = {
    "cpu": DeviceSpec("CPUExecutionProvider", "this machine's CPU through ONNX Runtime"),
    "cuda": DeviceSpec("CUDAExecutionProvider", "an NVIDIA GPU through ONNX Runtime's CUDA provider"),
}

PRECISIONS = ("fp32",)


@dataclass(frozen=True)
class Device:
    """A device with its settings. Make one with `resolve_device`, which checks them."""

    name: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    precision: str = "fp32"

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider."""
        return DEVICES[self.name].provider

    def as_dict(self) -> dict[str, object]:
        """The settings as JSON takes them."""
        return {
            "name": self.name,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "precision": self.precision,
        }


def installed_providers() -> tuple[str, ...]:
    """The execution providers of the ONNX Runtime that is installed."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def resolve_device(name: str, threads: int = 1, batch_size: int = 1, precision: str = "fp32") -> Device:
    """The device of that name with these settings.

    Raises:
        DeviceError: an unknown name or precision, a count below 1, or a provider that isn't installed.
    """
    if name not in DEVICES:
        raise DeviceError(unknown_name("device", name, DEVICES))
    if precision not in PRECISIONS:
        raise DeviceError(unknown_name("precision", precision, PRECISIONS))
    for setting, value in (("threads", threads), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DeviceError(f"device {name!r}: {setting} is {value!r}; it has to be a whole number from 1 on")
    if threads > usable_cores():
        raise DeviceError(f"device {name!r}: threads is {threads}, but this machine has {usable_cores()} cores for it")
    provider = DEVICES[name].provider
    if name != "cpu" and provider not in (installed := installed_providers()):
        raise DeviceError(
            f"device {name!r} needs ONNX Runtime's {provider}, which is not installed; "
            f"installed: {', '.join(installed)}"
        )
    return Device(name, threads, batch_size, precision)
