"""The recipe's augmentation `light`."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted_and_mirrored(images: Tensor, *, mirrored: bool) -> Tensor:
    """Images (N, C, H, W) shifted by up to an eighth both ways, filled with black; with `mirrored` half of the batches
    are flipped.
    """
    _, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    down, right = torch.randint(-reach, reach + 1, (2,)).tolist()
    shifted = torch.zeros_like(images)
    (to_rows, from_rows), (to_columns, from_columns) = _slices(down, height), _slices(right, width)
    shifted[:, :, to_rows, to_columns] = images[:, :, from_rows, from_columns]
    return shifted.flip(3) if mirrored and float(torch.rand(())) < 0.5 else shifted


def _slices(shift: int, size: int) -> tuple[slice, slice]:
    """Where a row lands, and where it comes from."""
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size + min(-shift, 0))
