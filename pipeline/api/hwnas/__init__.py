"""hwnas as a library: the best network for a device, and honest costs of any ONNX file.

    import hwnas

    costs = hwnas.profile("model.onnx")
    result = hwnas.search("config.yaml")

Functions take `str | Path`, have the command line's defaults and return frozen records, whose `as_dict()` is what
`--json` prints. They print nothing; pass a `Reporter` to hear of progress. What a user can mend raises one of `ERRORS`,
with one sentence. Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.errors import ExportError as ExportError
    from latency_models.errors import CostError as CostError
    from pipeline.commands.files import compare as compare
    from pipeline.commands.files import optimize as optimize
    from pipeline.commands.files import predict as predict
    from pipeline.commands.files import profile as profile
    from pipeline.commands.files import verify as verify
    from pipeline.commands.results import CheckResult as CheckResult
    from pipeline.commands.results import ComparisonRow as ComparisonRow
    from pipeline.commands.results import LatencyPrediction as LatencyPrediction
    from pipeline.commands.results import ModelProfile as ModelProfile
    from pipeline.commands.results import Optimization as Optimization
    from pipeline.commands.results import Run as Run
    from pipeline.commands.results import SearchResult as SearchResult
    from pipeline.commands.results import SupernetCheck as SupernetCheck
    from pipeline.commands.results import Trial as Trial
    from pipeline.commands.results import Verification as Verification
    from pipeline.commands.runs import calibrate as calibrate
    from pipeline.commands.runs import export as export
    from pipeline.commands.runs import load_run as load_run
    from pipeline.commands.runs import resume as resume
    from pipeline.commands.runs import search as search
    from pipeline.commands.supernet import supernet_check as supernet_check
    from pipeline.errors import HwnasError as HwnasError
    from pipeline.trials.reporter import Reporter as Reporter

    ERRORS: tuple[type[HwnasError], type[CostError], type[ExportError]]
    __version__: str

_HOMES = {
    "export.errors": ("ExportError",),
    "latency_models.errors": ("CostError",),
    "pipeline.commands.files": ("compare", "optimize", "predict", "profile", "verify"),
    "pipeline.commands.results": (
        "CheckResult",
        "ComparisonRow",
        "LatencyPrediction",
        "ModelProfile",
        "Optimization",
        "Run",
        "SearchResult",
        "SupernetCheck",
        "Trial",
        "Verification",
    ),
    "pipeline.commands.runs": ("calibrate", "export", "load_run", "resume", "search"),
    "pipeline.commands.supernet": ("supernet_check",),
    "pipeline.errors": ("HwnasError",),
    "pipeline.trials.reporter": ("Reporter",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_MODULES, "ERRORS"])


def __getattr__(name: str) -> Any:
    if name == "ERRORS":
        return tuple(__getattr__(each) for each in ("HwnasError", "CostError", "ExportError"))
    if name == "__version__":
        from importlib.metadata import version

        return version("hwnas")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _check_packages() -> None:
    """Refuse to go on where another `pipeline`, `export` or `latency_models` would be imported in place of ours.

    Raises:
        ImportError: naming the file that is in the way.
    """
    here = Path(__file__).resolve().parent
    roots = (here.parent, here.parents[2])  # site-packages; a checkout, where this folder is pipeline/api/hwnas
    root = next(root for root in roots if (root / "latency_models" / "timer.py").is_file())
    for name in ("pipeline", "export", "latency_models"):
        spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
        origin = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
        if origin is None or Path(origin).resolve() != root / name / "__init__.py":
            raise ImportError(
                f"hwnas needs its own package {name!r}, but {origin or 'nothing'} is imported under that name; "
                "rename that file or folder, or run python with -P, which leaves the script's folder off the path"
            )


_check_packages()
