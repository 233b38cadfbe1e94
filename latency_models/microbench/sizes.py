"""Random sizes of micro-benchmarks: as spread as those of networks for images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

UNARY = (
    "silu", "Gelu", "LeakyRelu", "Elu", "Mish", "prelu", "Relu", "HardSigmoid", "Tanh", "Sigmoid", "Erf", "Exp", "Sqrt",
    "Softplus", "Selu", "HardSwish", "relu6", "Abs", "Neg", "Softsign",
)  # fmt: skip
"""Activations and other operators of one operand, as `GraphBuilder.activation` names them."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def channels(rng: np.random.Generator, low: int, high: int, multiple: int = 8) -> int:
    """A number of channels as networks have them."""
    return max(multiple, multiple * round(log_uniform(rng, low, high) / multiple))


def one_of(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Any of them."""
    return options[int(rng.integers(len(options)))]


def whole(rng: np.random.Generator, low: float, high: float) -> int:
    """A whole number whose logarithm is uniform, 1 at least."""
    return max(1, round(log_uniform(rng, low, high)))


def links(macs: float, wanted: float = 3e7, most: int = 10) -> int:
    """How many links of a chain make it long enough, two at least."""
    return int(min(most, max(2, wanted / max(macs, 1.0))))


def map_size(rng: np.random.Generator, low: int, high: int, most: float = 1.2e6) -> tuple[int, int]:
    """Channels and side of a map that isn't larger than networks' maps are."""
    width = channels(rng, low, high)
    return width, whole(rng, 2, min(180.0, math.sqrt(most / width)))
