"""What does this model cost on this device?

What a program uses is here, loaded when it is first asked for: `import latency_models` alone imports neither ONNX
Runtime nor torch nor onnx. Start with `profile(Path("model.onnx"), resolve_device("cpu"))`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime's builds from 1.29 on report their use over the network unless they are told not to; it has to be said
# before onnxruntime is imported, and child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from latency_models.comparison import ComparisonRow, compare
    from latency_models.counted_costs import StaticCosts, static_costs
    from latency_models.counters.unavailable import Unavailable
    from latency_models.devices.device import Device
    from latency_models.devices.resolve import resolve_device
    from latency_models.errors import CostError
    from latency_models.file_predictor import PredictorStore
    from latency_models.model_profile import Profile, profile
    from latency_models.runners.runner import OnnxRuntimeRunner, Runner
    from latency_models.timing.meter import Latency, LatencyMeter, Ratio
    from latency_models.timing.timers import InProcessTimer, Timer

__all__ = [
    "ComparisonRow", "CostError", "Device", "InProcessTimer", "Latency", "LatencyMeter", "OnnxRuntimeRunner",
    "PredictorStore", "Profile", "Ratio", "Runner", "StaticCosts", "Timer", "Unavailable", "compare", "profile",
    "resolve_device", "static_costs",
]  # fmt: skip

_HOMES = {
    "latency_models.comparison": ("ComparisonRow", "compare"),
    "latency_models.counters.unavailable": ("Unavailable",),
    "latency_models.devices.device": ("Device",),
    "latency_models.devices.resolve": ("resolve_device",),
    "latency_models.errors": ("CostError",),
    "latency_models.file_predictor": ("PredictorStore",),
    "latency_models.counted_costs": ("StaticCosts", "static_costs"),
    "latency_models.model_profile": ("Profile", "profile"),
    "latency_models.runners.runner": ("OnnxRuntimeRunner", "Runner"),
    "latency_models.timing.meter": ("Latency", "LatencyMeter", "Ratio"),
    "latency_models.timing.timers": ("InProcessTimer", "Timer"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
