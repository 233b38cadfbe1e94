"""Convolutions in the form that trains fastest on a CPU: 1×1 ones on small maps as matrix products, large ones in bf16.

A call of oneDNN's convolution takes some 180 µs of a step, forward and backward, however small it is; a matrix product
takes 65. Where arithmetic is most of the work, products of bf16 numbers, summed as float32, take .55 to .7 of the time
on processors that have instructions for them. The bounds below are from `benchmarks/convolution_forms.py`. Which form a
convolution gets is a matter of its shape and of the processor alone, never of a clock, so that a trial is repeatable.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.run import TrainOptions

_MOST_ROWS = 3200
_MOST_PRODUCT_MACS = 4e6
"""Of a 1×1 convolution as a matrix product: rows (images × map) and multiplications; above, convolutions are faster."""
_LEAST_BF16_MACS = 8e6
_LEAST_BF16_INTENSITY = 20.0
"""Multiplications for each number that goes in or out: below, converting takes what the products gain."""


@contextmanager
def fast_convolutions(model: nn.Module, *, bf16: bool) -> Iterator[None]:
    """Have a network's convolutions computed in their fastest form; afterwards they are as before.

    Modules that aren't plain `nn.Conv2d` (subclasses, parametrised ones, with a `forward` of their own) are left alone.

    Args:
        model: on its device.
        bf16: whether large convolutions may multiply bf16 numbers while the network is in training mode. Weights,
            sums, all other layers and all evaluations stay float32.
    """
    changed = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _is_plain(module)]
    for module in changed:
        vars(module)["forward"] = _FastConvolution(module, bf16)
    try:
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]


def may_use_bf16(recipe: TrainOptions, device: torch.device) -> bool:
    """Whether the recipe lets large convolutions multiply bf16 numbers; `auto` does on a CPU with such instructions."""
    if recipe.precision != "auto":
        return recipe.precision == "bf16"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _is_plain(module: nn.Conv2d) -> bool:
    return (
        type(module) is nn.Conv2d
        and "forward" not in vars(module)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) > 1  # such maps have the strides of either layout
    )


class _FastConvolution:
    """The `forward` of one convolution."""

    def __init__(self, module: nn.Conv2d, bf16: bool) -> None:
        self._module, self._bf16 = module, bf16
        taps, into, out = math.prod(module.kernel_size), module.in_channels, module.out_channels
        self._macs_per_input = taps * out / math.prod(module.stride)
        self._intense = taps * into * out / (into + out) >= _LEAST_BF16_INTENSITY
        self._pointwise = taps == 1 and module.stride == (1, 1) and module.padding in ((0, 0), "valid", "same")

    def __call__(self, maps: Tensor) -> Tensor:
        module = self._module
        if maps.dim() != 4 or maps.dtype != torch.float32:
            return nn.Conv2d.forward(module, maps)
        macs = maps.numel() * self._macs_per_input
        if self._pointwise and macs <= _MOST_PRODUCT_MACS and self._is_small(maps):
            rows = maps.permute(0, 2, 3, 1)
            return F.linear(rows, module.weight.flatten(1), module.bias).permute(0, 3, 1, 2)
        if self._bf16 and self._intense and macs >= _LEAST_BF16_MACS and module.training:
            return _bf16(module, maps)
        return nn.Conv2d.forward(module, maps)

    def _is_small(self, maps: Tensor) -> bool:
        return (
            maps.device.type == "cpu"
            and maps.numel() <= _MOST_ROWS * self._module.in_channels
            and maps.is_contiguous(memory_format=torch.channels_last)
        )


def _bf16(module: nn.Conv2d, maps: Tensor) -> Tensor:
    weight = module.weight.to(torch.bfloat16)
    out = F.conv2d(
        maps.to(torch.bfloat16), weight, None, module.stride, module.padding, module.dilation, module.groups
    ).float()
    return out if module.bias is None else out + module.bias.view(1, -1, 1, 1)
