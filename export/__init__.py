"""Is this ONNX file the network that was trained, in its cheapest exact form?

What a program uses is here, loaded when it is first asked for: `import export` alone imports neither torch nor onnx.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime's builds from 1.29 on report their use over the network unless they are told not to; it has to be said
# before onnxruntime is imported, and child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from export.activations.table import Activation, register
    from export.bundle.manifest import read_manifest
    from export.bundle.verify import verify_bundle
    from export.bundle.write import write_bundle
    from export.checks import Check, accuracy, parity
    from export.errors import ExportError
    from export.exporter.image_model import with_preprocessing
    from export.exporter.onnx_export import export_model
    from export.lowering.lower import lower
    from export.preprocessing import Preprocessing
    from export.quantization.quantize import quantize_int8

__all__ = [
    "Activation",
    "Check",
    "ExportError",
    "Preprocessing",
    "accuracy",
    "export_model",
    "lower",
    "parity",
    "quantize_int8",
    "read_manifest",
    "register",
    "verify_bundle",
    "with_preprocessing",
    "write_bundle",
]

_HOMES = {
    "export.activations.table": ("Activation", "register"),
    "export.bundle.manifest": ("read_manifest",),
    "export.bundle.verify": ("verify_bundle",),
    "export.bundle.write": ("write_bundle",),
    "export.checks": ("Check", "accuracy", "parity"),
    "export.errors": ("ExportError",),
    "export.exporter.image_model": ("with_preprocessing",),
    "export.exporter.onnx_export": ("export_model",),
    "export.lowering.lower": ("lower",),
    "export.preprocessing": ("Preprocessing",),
    "export.quantization.quantize": ("quantize_int8",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
