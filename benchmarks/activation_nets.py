"""Parts that the benchmarks of activations share: small networks with one activation at all sites, shortly trained."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from common import SHARED
from options import Option, file_path, some_of
from torch import nn
from torch.nn import functional as F

from export.activations import table as activations
from export.exporter.onnx_export import quiet, run_exporter
from export.lowering.lower import restore_global_average_pool, tidied_copy
from export.module_state import evaluating
from pipeline.data.idx import read_fashion_mnist

TRAINING_SIDE = 28
_MEAN, _DEVIATION = 0.2860, 0.3530  # of Fashion-MNIST
_SMALL = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2)]
_LARGE = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 96, 2), (96, 128, 1), (128, 128, 1)]
"""Channels before and behind, and the stride, of each block."""


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al., 2018); (N, C, H, W) → the same."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        narrow = channels // 4
        self.squeeze, self.middle = nn.Conv2d(channels, narrow, 1), activations.create(activation, narrow)
        self.excite, self.gate = nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x * self.gate(self.excite(self.middle(self.squeeze(self.pool(x)))))
        return y


class InvertedBlock(nn.Module):
    """1×1 to more channels, 3×3 depthwise, 1×1 back; (N, before, H, W) → (N, after, H/stride, W/stride)."""

    def __init__(
        self, before: int, after: int, stride: int, activation: str, elsewhere: str, expansion: int, gated: bool
    ) -> None:
        super().__init__()
        inner = expansion * before
        self.expand, self.first = convolution(before, inner, 1), activations.create(activation, inner)
        self.depthwise = convolution(inner, inner, 3, stride, groups=inner)
        self.second, self.project = activations.create(elsewhere, inner), convolution(inner, after, 1)
        self.gate: nn.Module = Gate(inner, elsewhere) if gated else nn.Identity()
        self.keeps_shape = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.gate(self.second(self.depthwise(self.first(self.expand(x))))))
        return x + y if self.keeps_shape else y


def convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, with batch norm behind it."""
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


def small_net(activation: str, channels: int) -> nn.Module:
    """Four blocks, one of them with squeeze and excitation: 11 sites; any side from 8 on, 10 classes.

    `squared_relu` stands at one site of each block: squares of squares of squares keep nothing but outliers.
    """
    elsewhere = "relu" if activation == "squared_relu" else activation
    return mobile_net(_SMALL, activation, elsewhere, channels, expansion=3, top=64, gated=1)


def large_net(activation: str, channels: int = 3) -> nn.Module:
    """Eight blocks, 18 sites, about 0.6 M parameters; any side from 16 on, 10 classes."""
    return mobile_net(_LARGE, activation, activation, channels, expansion=6, top=1280)


def mobile_net(
    widths: list[tuple[int, int, int]],
    activation: str,
    elsewhere: str,
    channels: int,
    expansion: int,
    top: int,
    gated: int | None = None,
    stride: int = 2,
) -> nn.Module:
    """A stem of a `stride`, inverted blocks of these `widths`, `top` channels before the classifier of 10 classes."""
    first, last = widths[0][0], widths[-1][1]
    blocks = [
        InvertedBlock(*each, activation, elsewhere, expansion, gated=at == gated) for at, each in enumerate(widths)
    ]
    layers = [convolution(channels, first, 3, stride), activations.create(elsewhere, first), *blocks]
    layers += [convolution(last, top, 1), activations.create(elsewhere, top)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(top, 10))


def learned(network: nn.Module, activation: str) -> Iterator[nn.Parameter]:
    """The parameters of a network's activations."""
    kind = type(activations.create(activation, 1))
    for module in network.modules():
        if type(module) is kind:
            yield from module.parameters()


def trained(network: nn.Module, activation: str, channels: int, root: Path, steps: int) -> nn.Module:
    """Train a network shortly, in place; its activations' parameters start off their usual values, in each channel."""
    with torch.no_grad():
        for parameter in learned(network, activation):
            parameter.mul_(torch.empty_like(parameter).uniform_(0.9, 1.1))
    before = [parameter.detach().clone() for parameter in learned(network, activation)]
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for step in range(steps):
        images, labels = batch(root, True, range(64 * step, 64 * (step + 1)), TRAINING_SIDE, channels)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
    after = [parameter.detach() for parameter in learned(network, activation)]
    if any(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        raise RuntimeError(f"{activation}: a parameter of it did not learn")
    return network.eval()


def settled(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """A copy whose batch norms have the statistics of these images (N, C, H, W), as if trained at their size."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain average of what it sees
    copied.train()
    with torch.no_grad():
        copied(images)
    return copied.eval()


@functools.cache
def _split(root: Path, train: bool) -> tuple[Any, Any]:
    return read_fashion_mnist(root, train=train)


def batch(root: Path, train: bool, which: range, side: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, channels, side, side) of Fashion-MNIST and labels (N,); three channels: grey, blurred, the rest."""
    images, labels = _split(root, train)
    chosen = [at % len(images) for at in which]
    grey = (torch.from_numpy(images[chosen]).float()[:, None] / 255 - _MEAN) / _DEVIATION
    if side != grey.shape[-1]:
        grey = F.interpolate(grey, (side, side), mode="bilinear", antialias=True)
    if channels == 1:
        return grey, torch.from_numpy(labels[chosen]).long()
    blurred = F.avg_pool2d(grey, 3, 1, 1)
    return torch.cat([grey, blurred, grey - blurred], 1), torch.from_numpy(labels[chosen]).long()


def plain_export(network: nn.Module, shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export a network with its activations as torch spells them, and only GlobalAveragePool restored."""
    with evaluating(network), quiet():
        model = run_exporter(network, torch.zeros(2, *shape), 20, ({0: torch.export.Dim("batch", min=1)},))
    restore_global_average_pool(model)
    return tidied_copy(model)


def options() -> tuple[Option, ...]:
    """The options of both scripts."""
    return (
        file_path("--root", SHARED / "data", "where FashionMNIST/ lies"),
        some_of("--activations", activations.names()),
        file_path("--output", text="a JSON file: rows that it holds are kept, new ones added"),
    )


def read_rows(path: Path | None) -> dict[str, dict[str, Any]]:
    """The rows of an earlier call, by their key."""
    return dict(json.loads(path.read_text())) if path and path.exists() else {}


def write_rows(path: Path | None, rows: dict[str, dict[str, Any]]) -> None:
    """Write the rows to a file, where one was named."""
    if path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
