"""Random sizes of micro-benchmarks, distributed like those of image networks."""

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
    """A random number with a uniform logarithm."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def channels(rng: np.random.Generator, low: int, high: int, multiple: int = 8) -> int:
    """A random number of channels, log-uniform, a multiple of `multiple`."""
    return max(multiple, multiple * round(log_uniform(rng, low, high) / multiple))


def choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, with equal probability."""
    return options[int(rng.integers(len(options)))]


def log_int(rng: np.random.Generator, low: float, high: float) -> int:
    """A random integer with a uniform logarithm, at least 1."""
    return max(1, round(log_uniform(rng, low, high)))


def chain_length(macs: float, wanted: float = 3e7, most: int = 10) -> int:
    """The number of links, at least 2, for a chain of `wanted` multiply-accumulates."""
    return int(min(most, max(2, wanted / max(macs, 1.0))))


def map_size(rng: np.random.Generator, low: int, high: int, most: float = 1.2e6) -> tuple[int, int]:
    """Random channels and side of a feature map of at most `most` elements."""
    width = channels(rng, low, high)
    return width, log_int(rng, 2, min(180.0, math.sqrt(most / width)))
