"""The minibatch that all zero-cost scores of a search are computed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data import DataSet

_SEED = 0


def minibatch(data: DataSet, count: int) -> tuple[Tensor, Tensor]:
    """Training images, chosen by a fixed seed, as network inputs, and their labels; on the CPU.

    Args:
        data: of the search.
        count: number of images, or all of a smaller set.

    Returns:
        float32 (count, C, H, W) and int64 (count,).
    """
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(data.train))[:count])
    images = data.preprocessing.apply(data.train.images[rows])
    return torch.from_numpy(images), torch.from_numpy(data.train.labels[rows])
