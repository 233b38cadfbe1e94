"""Imports that need help: torchvision beside a torch without CUDA, and NNI without its chatter and its detours.

torchvision's Linux wheels are CUDA builds. Beside a CPU-only torch the import fails because the operator
`torchvision::nms` has no schema, and pytorch-lightning (through torchmetrics) fails with it. Declaring the two schemas
that the import asks for is enough for data sets, transforms and models; the compiled operators stay unavailable and
raise when called.

NNI's search imports Lightning, torchvision, matplotlib and pandas, though only its one-shot strategies and evaluators
use them: half of the seconds that a process takes to start. Here they are imported when somebody asks for them.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_OPERATORS = ("nms", "qnms")
_libraries: list[Any] = []  # torch.library forgets a definition when its object dies
_ONE_SHOT = "nni.nas.oneshot.pytorch.strategy"
_ONE_SHOT_NAMES = ("DARTS", "GumbelDARTS", "Proxyless", "ENAS", "RandomOneShot")


def import_torchvision() -> Any:
    """Import torchvision, whatever torch it stands beside, and return the module."""
    import torch

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or torch.version.cuda is not None:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return importlib.import_module("torchvision")


class _TorchvisionFinder:
    """Import hook that has any first `import torchvision`, Lightning's too, go through `import_torchvision`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "torchvision" else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        sys.meta_path.remove(self)
        module: ModuleType = import_torchvision()
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: `create_module` has imported it."""


def prepare_nni() -> None:
    """Import what NNI's multi-trial search needs, and take its log handlers off the terminal."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _TorchvisionFinder())
    with warnings.catch_warnings(), _uninstalled("pandas", _ONE_SHOT):
        warnings.simplefilter("ignore")  # NNI 3.0 warns about its own imports
        framework = importlib.import_module("nni.common.framework")
        framework.set_default_framework("none")  # else `nni.nas.evaluator` imports Lightning
        importlib.import_module("nni.nas.nn.pytorch")
        strategies = importlib.import_module("nni.nas.strategy")
        framework.set_default_framework("pytorch")
        framework.shortcut_module("nni.nas.nn", ".pytorch", "nni.nas.nn")
    _load_on_demand(strategies, _ONE_SHOT, _ONE_SHOT_NAMES)
    _load_on_demand(importlib.import_module("nni.nas.evaluator"), "nni.nas.evaluator.pytorch")
    for name in ("nni", "pytorch_lightning", "lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


@contextmanager
def _uninstalled(*names: str) -> Iterator[None]:
    """Make imports of these modules fail, as if they were not installed; NNI has a way around each of them."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _load_on_demand(module: Any, source: str, names: tuple[str, ...] = ()) -> None:
    """Have a module's missing attributes looked up in `source`, which is imported for it; `names` are made missing."""
    for name in names:
        delattr(module, name)

    def look_up(name: str) -> Any:
        if not name.startswith("__"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lightning warns about its own imports
                found = importlib.import_module(source)
            if hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = look_up
