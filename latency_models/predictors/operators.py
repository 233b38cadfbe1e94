"""What a network does, as a cost model sees it: a multiset of operators with their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

BLOCK = 16
"""Channels come in sixteens in the blocked layout of ONNX Runtime's widest kernels; others are padded to that."""


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        kind: operators of one kind have the same cost function; of other kinds, another one.
        sizes: what tells operators of a kind apart (channels, positions, …), all above 0. Two with about the same
            sizes cost about the same.
        work: amounts that the time may be proportional to (multiply-accumulates, elements, weights), as many for
            each operator of a kind.
    """

    kind: str
    sizes: tuple[float, ...]
    work: tuple[float, ...]


def convolution(
    before: int, after: int, kernel: int, side: float, *, stride: int = 1, groups: int = 1, kind: str = ""
) -> Operator:
    """A convolution with a k×k kernel whose result is `side`² positions large."""
    name = kind or f"{'depthwise' if groups > 1 else 'conv'}{kernel}{'/' + str(stride) if stride > 1 else ''}"
    out, positions = _padded(after), side * side
    if groups > 1:
        return Operator(name, (after, side), (out * positions * kernel * kernel,))
    weights = _padded(before) * out * kernel * kernel
    return Operator(name, (before, after, side), (weights * positions, weights, out * positions))


def elementwise(kind: str, channels: int, side: float) -> Operator:
    """Something that is done to each element of a map of `side`² positions."""
    return Operator(kind, (channels, side), (channels * side * side,))


def constant(kind: str) -> Operator:
    """Something that takes the same time wherever it is."""
    return Operator(kind, (), ())


def _padded(channels: int) -> int:
    return BLOCK * math.ceil(channels / BLOCK)
