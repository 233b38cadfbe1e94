"""Devices: the hardware, runtime and settings that a model runs with."""

from __future__ import annotations

from dataclasses import dataclass

ONNXRUNTIME = "onnxruntime"
TORCH = "torch"
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class DeviceSpec:
    """A built-in device: ONNX Runtime's execution provider and a description."""

    provider: str
    description: str


DEVICES: dict[str, DeviceSpec] = {
    "cpu": DeviceSpec(CPU_PROVIDER, "this machine's CPU through ONNX Runtime"),
    "cuda": DeviceSpec(CUDA_PROVIDER, "an NVIDIA GPU through ONNX Runtime's CUDA provider, or else through torch"),
}
"""The built-in devices; all others stand in the user's file (`latency_models.devices.device_file`)."""

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Device:
    """A device with its settings. Make one with `resolve_device`, which checks them.

    Attributes:
        runtime: "onnxruntime", or "torch" for an NVIDIA GPU without ONNX Runtime's CUDA provider.
        provider: ONNX Runtime's execution provider; "" for torch.
        provider_options: the provider's own options, as ONNX Runtime spells them.
        precision: of the models, fp32 or int8. Nothing here quantises: int8 models come from the caller.
        host: an ssh destination (user@host, or a Host of ssh's config); None is this machine.
        ssh_options: put before the destination on ssh's command line, e.g. ("-p", "2222").
        python: the interpreter on `host`.
    """

    name: str = "cpu"
    runtime: str = ONNXRUNTIME
    provider: str = CPU_PROVIDER
    provider_options: tuple[tuple[str, str], ...] = ()
    threads: int = 1
    batch_size: int = 1
    precision: str = "fp32"
    host: str | None = None
    ssh_options: tuple[str, ...] = ()
    python: str = "python3"

    def as_dict(self) -> dict[str, object]:
        """The device for JSON: the name and the numbers always, other settings where the name doesn't imply them."""
        document: dict[str, object] = {
            "name": self.name,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "precision": self.precision,
        }
        if self.runtime != ONNXRUNTIME:
            document["runtime"] = self.runtime
        elif self.name not in DEVICES or DEVICES[self.name].provider != self.provider:
            document["provider"] = self.provider
        if self.provider_options:
            document["provider_options"] = dict(self.provider_options)
        if self.host is not None:
            document.update(host=self.host, ssh_options=list(self.ssh_options), python=self.python)
        return document
