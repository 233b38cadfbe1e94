"""ResNet-8, the image classifier of MLPerf Tiny, written from its description."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.references.fitting import halvings

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTHS = (16, 32, 64)
_HALVINGS = 4
_LEAST_MAP = 8


def resnet8(input_shape: Sequence[int], classes: int) -> ResNet8:
    """ResNet-8 for images of (C, H, W); its stem halves images of more than 32 pixels, once or twice."""
    channels, height, width = input_shape
    return ResNet8(channels, classes, halvings(height, width, _HALVINGS, _LEAST_MAP))


class ResNet8(nn.Module):
    """A 3×3 stem, three residual stacks of 16, 32 and 64 channels with two 3×3 convolutions each, a linear head.

    Banbury et al., MLPerf Tiny Benchmark, NeurIPS Datasets and Benchmarks 2021, after He et al., Deep residual
    learning, 2016. As there, the shortcut of the two stacks that change the width is a 1×1 convolution with a bias and
    without batch norm; the other convolutions have batch norm in place of a bias.

    Args:
        channels: of the images.
        classes: number of logits.
        kept: halvings, 0 to 4; the first that go are those of the stem (pooling, then stride), then the stacks'.

    Shapes: images (N, channels, H, W) → logits (N, classes).
    """

    def __init__(self, channels: int, classes: int, kept: int) -> None:
        super().__init__()
        pool, stem, *stacks = (2 if _HALVINGS - n <= kept else 1 for n in range(_HALVINGS))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, _WIDTHS[0], 3, stride=stem, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTHS[0]),
            nn.ReLU(),
            nn.MaxPool2d(2) if pool == 2 else nn.Identity(),
        )
        first, second, third = _WIDTHS
        self.stacks = nn.Sequential(
            _Stack(first, first, 1), _Stack(first, second, stacks[0]), _Stack(second, third, stacks[1])
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(_WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        return cast("Tensor", self.head(self.flatten(self.pool(self.stacks(self.stem(images))))))


class _Stack(nn.Module):
    """Two 3×3 convolutions beside a shortcut: (N, before, H, W) → (N, after, H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))
