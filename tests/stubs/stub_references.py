"""Reference networks that misbehave, and a tiny one that doesn't; named by dotted path in configs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


def tiny(input_shape: Sequence[int], classes: int) -> nn.Module:
    channels, _, _ = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


def raising(input_shape: Sequence[int], classes: int) -> nn.Module:
    raise ValueError(f"no network for {tuple(input_shape)}\nand that at length")


def too_large(input_shape: Sequence[int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2**48), nn.Linear(2**48, classes))


class _Diverging(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(images.flatten(1)) * float("inf")
        return out


def diverging(input_shape: Sequence[int], classes: int) -> nn.Module:
    return _Diverging(classes)


class _Unlike(nn.Module):
    """Remembers how often it was called, which no file can."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(images.flatten(1))
        return out + (0.0 if torch.compiler.is_exporting() else 1.0)


def unlike_its_file(input_shape: Sequence[int], classes: int) -> nn.Module:
    return _Unlike(classes)


def interrupted_once(input_shape: Sequence[int], classes: int) -> nn.Module:
    mark = Path("interrupted")
    if not mark.exists():
        mark.touch()
        raise KeyboardInterrupt
    return tiny(input_shape, classes)
