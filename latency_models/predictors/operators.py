"""Operators with their sizes and amounts of work: a network is a multiset of them to a cost model."""

from __future__ import annotations

import math
from dataclasses import dataclass

BLOCK = 16
"""Channels of a block in ONNX Runtime's blocked layout; other numbers of channels are padded to a multiple."""


@dataclass(frozen=True)
class Operator:
    """One operator of a network.

    Attributes:
        kind: the name of its cost function, which all operators of the kind share.
        sizes: its channels, positions, …, all above 0; operators of similar sizes cost about the same.
        work: amounts that its time may be proportional to (multiply-accumulates, elements, weights); equally many for
            all operators of a kind.
    """

    kind: str
    sizes: tuple[float, ...]
    work: tuple[float, ...]


def convolution(
    before: int, after: int, kernel: int, side: float, *, stride: int = 1, groups: int = 1, kind: str = ""
) -> Operator:
    """A convolution with a k×k kernel and a result of `side`² positions."""
    name = kind or f"{'depthwise' if groups > 1 else 'conv'}{kernel}{'/' + str(stride) if stride > 1 else ''}"
    out, positions = _padded(after), side * side
    if groups > 1:
        return Operator(name, (after, side), (out * positions * kernel * kernel,))
    weights = _padded(before) * out * kernel * kernel
    return Operator(name, (before, after, side), (weights * positions, weights, out * positions))


def elementwise(kind: str, channels: int, side: float) -> Operator:
    """An operator on each element of a map of `side`² positions."""
    return Operator(kind, (channels, side), (channels * side * side,))


def constant(kind: str) -> Operator:
    """An operator that always takes the same time."""
    return Operator(kind, (), ())


def _padded(channels: int) -> int:
    return BLOCK * math.ceil(channels / BLOCK)
