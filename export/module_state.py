"""Reading a network's state without changing it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch

from export.errors import UnsupportedModuleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network in eval mode, and give each of its modules its own mode back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def array_of(tensor: torch.Tensor, where: str) -> npt.NDArray[np.float32]:
    """A weight as an array; `where` is the path of its module, for messages.

    Raises:
        UnsupportedModuleError: it is not float32.
    """
    if tensor.dtype != torch.float32:
        raise UnsupportedModuleError(where, f"weights of {tensor.dtype}")
    return cast("npt.NDArray[np.float32]", tensor.detach().cpu().numpy())
