"""Activations of a user's own, good and bad, which tests name by dotted path."""

import torch
from torch import Tensor, nn


class Swoosh(nn.Module):
    """x σ(exp(w) x), one w for each channel"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.zeros(channels))
        self.register_buffer("shift", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        rate = self.rate[: x.shape[1]].exp().reshape(-1, *[1] * (x.dim() - 2))
        return x * torch.sigmoid(rate * x - self.shift)


class Bump(nn.Module):
    """exp(−s x²) + b, one b"""

    def __init__(self, steepness: float = 0.5) -> None:
        super().__init__()
        self.steepness = steepness
        self.base = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-self.steepness * x * x) + self.base


class OtherWhenWide(nn.Module):
    """Another function for other sizes, which no single graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if x.shape[1] % 3 else torch.tanh(x)


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], 1)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Fussy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not today")


class Demanding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


def no_module() -> int:
    return 3


def swoosh(x: Tensor) -> Tensor:
    """An activation's function, which is no module."""
    return x * torch.sigmoid(x - 0.25)


NUMBER = 3
MADE = nn.ReLU()


class Neighbourly(nn.Module):
    """Looks at the other images of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Chancy(nn.Module):
    """Something else each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Wide(nn.Module):
    """In another type."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Numberless(nn.Module):
    """No numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 0 * 0


class Deaf(nn.Module):
    """Lets no gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.detach()
