"""The environment of a measurement: times of different environments must not be compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from latency_models import timer
from latency_models.timer import load_average as load_average
from latency_models.timer import usable_cores as usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device

# The load, and facts that don't decide a model's speed.
_NOT_IN_FINGERPRINT = ("load_at_start", "python", "cores")
_TORCH = "torch"


@dataclass(frozen=True)
class Environment:
    """Hardware, software and settings of a measurement, on the machine that the model ran on.

    `load_at_start` is the 1-minute load average; `gpu` the NVIDIA GPU's model, None for the CPU provider; `torch` its
    version, None where ONNX Runtime ran the model.
    """

    cpu_model: str
    cpu_flags_digest: str
    l2_cache_bytes: int | None
    cores: int
    governor: str
    gpu: str | None
    load_at_start: float | None
    threads: int
    provider: str
    provider_options: tuple[tuple[str, str], ...]
    precision: str
    onnxruntime: str
    torch: str | None
    numpy: str
    python: str
    platform: str

    def as_dict(self) -> dict[str, object]:
        """The fields and the fingerprint for JSON."""
        return {**asdict(self), "provider_options": dict(self.provider_options), "fingerprint": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """A digest (16 hex digits) of all fields that decide speed; the load and the batch size are not among them."""
        deciding = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_FINGERPRINT}
        deciding["provider_options"] = sorted(self.provider_options)
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def capture(device: Device) -> Environment:
    """The environment of measurements on `device`, on this machine, from now on."""
    return environment_of(timer.facts(), device)


def environment_of(facts: Mapping[str, Any], device: Device) -> Environment:
    """The environment of measurements on `device`, from the `Timer.facts()` of the machine that models run on."""
    gpus = facts["gpus"]
    index = dict(device.provider_options).get("device_id", "0")
    gpu = gpus[int(index)] if index.isdigit() and int(index) < len(gpus) else ", ".join(gpus)
    return Environment(
        cpu_model=facts["cpu_model"],
        cpu_flags_digest=facts["cpu_flags_digest"],
        l2_cache_bytes=facts["l2_cache_bytes"],
        cores=facts["cores"],
        governor=facts["governor"],
        gpu=(gpu or None) if device.provider != timer.CPU_PROVIDER else None,
        load_at_start=facts["load"],
        threads=device.threads,
        provider=device.provider,
        provider_options=device.provider_options,
        precision=device.precision,
        onnxruntime=facts["onnxruntime"],
        torch=_torch_version() if device.runtime == _TORCH else None,
        numpy=facts["numpy"],
        python=facts["python"],
        platform=facts["platform"],
    )


@cache
def _torch_version() -> str:
    import torch

    return str(torch.__version__)
