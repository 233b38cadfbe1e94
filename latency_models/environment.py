"""What a measurement was taken on: a number without it is not a measurement."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latency_models.device import Device

# How busy the machine was, and what doesn't decide how fast a model runs.
_NOT_IN_FINGERPRINT = ("load_at_start", "onnx", "python")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Environment:
    """Hardware, software and settings of a measurement. `load_at_start` is the 1-minute load average."""

    cpu_model: str
    cpu_flags_digest: str
    cores: int
    governor: str
    load_at_start: float | None
    threads: int
    provider: str
    precision: str
    onnxruntime: str
    onnx: str
    numpy: str
    python: str
    platform: str

    def as_dict(self) -> dict[str, object]:
        """All fields and the fingerprint, as JSON takes them."""
        return {**asdict(self), "fingerprint": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides speed; the load is not in it."""
        deciding = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_FINGERPRINT}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def capture(device: Device) -> Environment:
    """The environment of a measurement on `device` that starts now."""
    import numpy
    import onnx
    import onnxruntime

    cpu_model, flags_digest = _cpu()
    return Environment(
        cpu_model=cpu_model,
        cpu_flags_digest=flags_digest,
        cores=usable_cores(),
        governor=_governor(),
        load_at_start=load_average(),
        threads=device.threads,
        provider=device.provider,
        precision=device.precision,
        onnxruntime=onnxruntime.__version__,
        onnx=onnx.__version__,
        numpy=numpy.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """The 1-minute load average, None where the system keeps none."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


@cache
def _cpu() -> tuple[str, str]:
    """The CPU's name and a digest of its instruction sets, which choose ONNX Runtime's kernels."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or platform.machine()
    flags = " ".join(sorted((fields.get("flags") or fields.get("Features") or "").split()))
    return name, hashlib.sha256(flags.encode()).hexdigest()[:12]


def _governor() -> str:
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip()
    except OSError as error:
        return f"unavailable: {error.strerror or type(error).__name__}"
