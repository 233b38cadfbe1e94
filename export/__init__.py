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
    from export.bundle import write_bundle
    from export.errors import ExportError
    from export.image_model import with_preprocessing
    from export.lowering import lower
    from export.manifest import read_manifest
    from export.onnx_export import export_model
    from export.preprocessing import Preprocessing
    from export.quantize import quantize_int8
    from export.verify import Check, accuracy, parity, verify_bundle

__all__ = [
    "Check",
    "ExportError",
    "Preprocessing",
    "accuracy",
    "export_model",
    "lower",
    "parity",
    "quantize_int8",
    "read_manifest",
    "verify_bundle",
    "with_preprocessing",
    "write_bundle",
]

_HOMES = {
    "export.bundle": ("write_bundle",),
    "export.errors": ("ExportError",),
    "export.image_model": ("with_preprocessing",),
    "export.lowering": ("lower",),
    "export.manifest": ("read_manifest",),
    "export.onnx_export": ("export_model",),
    "export.preprocessing": ("Preprocessing",),
    "export.quantize": ("quantize_int8",),
    "export.verify": ("Check", "accuracy", "parity", "verify_bundle"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
