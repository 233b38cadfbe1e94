"""Torch modules of activations that torch lacks, most of them with parameters that are learnt with the network.

All keep the input's shape, never work in place, and take (N, C) as well as (N, C, H, W). Modules with parameters for
each channel may see fewer channels than they have parameters: in a supernet they are made for the widest choice, and
use the first ones. None divides by a learnt number, which a training might bring to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

_LEAKY_NUMERATOR = (0.0500360, 0.505, 1.1337363, 0.9666939, 0.3200030, 0.0378433)
_LEAKY_DENOMINATOR = (0.0, 1.9142452, 0.0, 0.0749371)


class SquaredReLU(nn.Module):
    """The function relu(x)² (So et al., "Primer: Searching for Efficient Transformers", 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        positive = torch.relu(x)
        return positive * positive


class ChannelPReLU(nn.PReLU):
    """The function x where x > 0, else a x, with one a a channel (He et al., "Delving Deep into Rectifiers", 2015).

    Args:
        channels: the most that it will see on axis 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight[: x.shape[1]])


class SwishBeta(nn.Module):
    """The function x σ(β x), β starting at 1 (Ramachandran et al., "Searching for Activation Functions", 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class ScaledSigmoid(nn.Module):
    """The function a σ(x) + b with learnt a and b; starts as 4 σ(x) − 2, which has slope 1 at 0 and keeps zero at zero.

    There the scaled tanh 1.7159 tanh(2x/3) of LeCun et al. ("Efficient BackProp", 1998) serves the same end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 4.0))
        self.shift = nn.Parameter(torch.full((1,), -2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.sigmoid(x) + self.shift


class AconC(nn.Module):
    """The function (p₁ − p₂) x σ(β (p₁ − p₂) x) + p₂ x, a smooth max(p₁ x, p₂ x).

    Ma et al., "Activate or Not", 2021: p₁, p₂ and β are learnt for each channel. They start at 1, 0 and 1, which
    makes it SiLU.

    Args:
        channels: the most that it will see on axis 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.ones(channels))
        self.p2 = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        p2 = per_channel(self.p2, x)
        difference = per_channel(self.p1 - self.p2, x) * x
        return difference * torch.sigmoid(per_channel(self.beta, x) * difference) + p2 * x


class PiecewiseLinear(nn.Module):
    """The function s₀ x + Σᵢ (sᵢ − sᵢ₋₁) max(x − tᵢ, 0) with four slopes s and three knots t, all learnt.

    It is continuous and has one set of parameters. It starts with the knots −1, 0, 1 and the slopes 0.01, 0.25, 0.75,
    1: a leaky ReLU with a rounded corner, so that each knot has a bend and a gradient. The sum of hinges, as in
    Agostinelli et al., "Learning Activation Functions to Improve Deep Neural Networks", 2014, stays defined when knots
    pass each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.knots = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]))
        self.slopes = nn.Parameter(torch.tensor([0.01, 0.25, 0.75, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        bends = self.slopes[1:] - self.slopes[:-1]
        y = self.slopes[0] * x
        for i in range(3):
            y = y + bends[i] * torch.relu(x - self.knots[i])
        return y


class Pade(nn.Module):
    """A safe rational function, Σ aᵢ xⁱ (i ≤ 5) over 1 + |Σ bⱼ xʲ| (1 ≤ j ≤ 4), with one learnt set of a and b.

    Molina et al., "Padé Activation Units: End-to-end Learning of Flexible Activation Functions in Deep Networks",
    2020. It starts as the least-squares approximation of leaky ReLU (slope 0.01) on [−4, 4], 0.05 off at most. The
    denominator is never below 1. Beyond |x| ≈ 10⁷ the fifth power is no float32 any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numerator = nn.Parameter(torch.tensor(_LEAKY_NUMERATOR))
        self.denominator = nn.Parameter(torch.tensor(_LEAKY_DENOMINATOR))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.numerator, self.denominator
        above = ((((a[5] * x + a[4]) * x + a[3]) * x + a[2]) * x + a[1]) * x + a[0]
        below = (((b[3] * x + b[2]) * x + b[1]) * x + b[0]) * x
        return above / (torch.abs(below) + 1.0)


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """The first values of a parameter (C,), shaped to broadcast along axis 1 of x."""
    return parameter[: x.shape[1]].reshape(-1, *[1] * (x.dim() - 2))


# Of a symbolic trace the rank is not known.
fx.wrap("per_channel")
