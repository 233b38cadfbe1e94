"""The score `naswot`: how differently an untrained network's activations treat the images of a minibatch."""

from __future__ import annotations

import copy
import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from export.activations.modules import sites_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_REACH, _STEPS = 8, 16  # the curve is looked at from −8 to 8
_SHARE = 0.5
_STRAIGHT = 1e-6


def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The score log |det K|, where K[i, j] is the number of activation codes that images i and j share.

    A code is one bit for each input of an activation and each place where that activation bends (see `bends`): on
    which side of it the input lies. With relu that is the paper's: which units are on. K is the number of bits less
    the Hamming distance; the less alike the images' codes are, the larger its determinant.

    *Mellor, Turner, Storkey & Crowley, Neural architecture search without training, ICML 2021.*

    Args:
        network: is changed; its batch norms use the batch's own statistics.
        images: (N, C, H, W), N ≥ 2.
        labels: unused.

    Returns:
        −∞ where the kernel is singular, as where two images have the same codes; NaN where no activation bends.
    """
    network.train()
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    bits = 0

    def enter(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal bits
        x = arguments[0].detach()
        if len(x) == len(images):
            for threshold in bends(module, x.shape[1] if x.dim() > 1 else 1):
                kernel.add_(_agreements((x > threshold).flatten(1)).cpu())
                bits += x[0].numel()

    hooks = [module.register_forward_pre_hook(enter) for module in sites_of(network).values()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not bits:
        return math.nan
    if int(torch.linalg.matrix_rank(kernel, hermitian=True)) < len(kernel):  # a determinant's rounding may hide it
        return -math.inf
    sign, log_determinant = torch.linalg.slogdet(kernel)
    return float(log_determinant) if float(sign) > 0 else -math.inf


def _agreements(codes: Tensor) -> Tensor:
    """Numbers of bits (N, N) in which two rows of codes (N, bits) agree; exact below 2^24 bits."""
    signs = codes.float() * 2 - 1
    return ((signs @ signs.T).double() + codes.shape[1]) / 2


def bends(module: nn.Module, channels: int) -> Sequence[float]:
    """The places where an elementwise activation bends, for inputs as batch norms give them.

    The change of its slope, weighted by the normal distribution's density, is added up over each part of the axis in
    which the slope rises, or falls, throughout. Parts that bend at least half as much as the one that bends most count;
    the place is their centre of gravity, but no farther from 0 than 1, where hardly any input would be beyond it. That
    is 0 for relu, relu6, leaky relu, prelu, gelu, silu, hardswish, softplus; left of it for elu (−0.5) and mish; on
    both sides for what saturates, −1 and 1 for hardtanh, hardsigmoid and sigmoid, ±0.7 for tanh; right of it for a
    squared relu (0.8); nowhere for the identity.

    Args:
        module: the activation; where its channels differ, their mean counts.
        channels: of its input, on axis 1.
    """
    x = torch.arange(-_REACH * _STEPS - 1, _REACH * _STEPS + 2, dtype=torch.float64) / _STEPS
    probe = copy.deepcopy(module).double().eval()
    channels = channels if any(True for _ in probe.parameters()) else 1  # else all are alike
    with torch.no_grad():
        y = probe(x.to(_device(module)).view(-1, 1, 1, 1).repeat(1, channels, 1, 1)).flatten(1).mean(1).cpu()
    turning = (y[2:] - 2 * y[1:-1] + y[:-2]) * _STEPS
    if not float(turning.abs().max()) > _STRAIGHT:
        return ()
    parts = _parts(x[1:-1].tolist(), (turning * torch.exp(-(x[1:-1] ** 2) / 2)).tolist())
    most = max(weight for weight, _ in parts)
    places = [moment / weight for weight, moment in parts if weight >= _SHARE * most * (1 - 1e-9)]
    return tuple(dict.fromkeys(round(min(max(place, -1.0), 1.0), 6) for place in places))


def _device(module: nn.Module) -> torch.device:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _parts(places: Sequence[float], turning: Sequence[float]) -> list[tuple[float, float]]:
    """Weight and first moment of each part of the axis in which the slope turns one way."""
    least = 1e-9 * max(map(abs, turning))
    parts: list[tuple[float, float]] = []
    sign = 0.0
    for place, here in zip(places, turning, strict=True):
        if abs(here) > least:
            weight, moment = parts.pop() if here * sign > 0 else (0.0, 0.0)
            parts.append((weight + abs(here), moment + abs(here) * place))
            sign = here
    return parts
