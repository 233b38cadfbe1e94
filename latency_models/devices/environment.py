"""What a measurement was taken on: a number without it is not a measurement."""

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

# How busy the machine was, and what doesn't decide how fast a model runs.
_NOT_IN_FINGERPRINT = ("load_at_start", "python", "cores")
_TORCH = "torch"


@dataclass(frozen=True)
class Environment:
    """Hardware, software and settings of a measurement, of the machine that the model ran on.

    `load_at_start` is the 1-minute load average; `gpu` the NVIDIA GPU's model where the device isn't the CPU alone;
    `torch` its version where that is what ran the model.
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
        """All fields and the fingerprint, as JSON takes them."""
        return {**asdict(self), "provider_options": dict(self.provider_options), "fingerprint": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides speed: the machine's kind, not its name, and neither load nor batch."""
        deciding = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_FINGERPRINT}
        deciding["provider_options"] = sorted(self.provider_options)
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def capture(device: Device) -> Environment:
    """The environment of a measurement on `device` in this process or another one of this machine, from now on."""
    return environment_of(timer.facts(), device)


def environment_of(facts: Mapping[str, Any], device: Device) -> Environment:
    """The environment of a measurement on `device`; `facts` are `Timer.facts()` of the machine that models run on."""
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
