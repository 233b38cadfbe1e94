"""Lets torchvision be imported beside a torch without CUDA, and NNI without its chatter.

torchvision's Linux wheels are CUDA builds. Beside a CPU-only torch the import fails because the operator
`torchvision::nms` has no schema, and pytorch-lightning (through torchmetrics) and NNI fail with it. Declaring the
two schemas that its import asks for is enough for data sets, transforms and models; its compiled operators stay
unavailable and raise when called.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from typing import Any

_OPERATORS = ("nms", "qnms")
_libraries: list[Any] = []  # torch.library forgets a definition when its object dies


def import_torchvision() -> Any:
    """torchvision, whatever torch it stands beside."""
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


def prepare_nni() -> None:
    """Import what NNI's NAS needs, in the order that works, and take its log handlers off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI 3.0 and Lightning warn about their own imports
        import_torchvision()
        importlib.import_module("nni.nas.nn.pytorch")
        importlib.import_module("nni.nas.strategy")
    for name in ("nni", "pytorch_lightning", "lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
