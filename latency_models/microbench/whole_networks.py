"""Whole random networks: from an image or tokens to classes, of a few to dozens of blocks.

The times of their parts add up to a little less than theirs, since a part that is timed alone has the caches to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import channels, choice, log_int, log_uniform
from latency_models.microbench.transformers import attended, mixed_last

if TYPE_CHECKING:
    import numpy as np

_BLOCKS = ("basic", "bottleneck", "inverted", "inverted", "grouped", "grouped", "branches", "last", "shuffled")
_MOST_MACS = 6e8
_MOST_WEIGHTS = 2.5e7


def image_networks(rng: np.random.Generator) -> bytes:
    """Stages of blocks of one kind, each stage narrower in space and wider in channels."""
    kind, act = choice(rng, _BLOCKS), choice(rng, ("Relu", "Relu", "HardSwish", "silu", "relu6"))
    while True:
        side, width, growth = log_int(rng, 48, 256), channels(rng, 16, 64), log_uniform(rng, 1.4, 2.0)
        depths = [int(rng.integers(1, 5)) for _ in range(int(rng.integers(3, 5)))]
        g = GraphBuilder(rng, apart=bool(rng.random() < 0.5))
        inside = int(rng.choice([8, 8, 16, 16, 24, 32]))
        if _estimated(kind, side, width, growth, depths) < _MOST_MACS:
            break
    x = g.activation(g.conv(g.image(1, 3, side, side), width, 3 if kind != "last" else 4, 2), act)
    for stage, depth in enumerate(depths):
        after = max(8, 8 * round(width * growth**stage / 8))
        if kind == "grouped":
            after = max(inside, inside * round(after / inside))
        for at in range(depth):
            x = _block(g, kind, x, after, 2 if at == 0 and x.dims[2] > 3 else 1, act, inside)
    return g.model(g.classifier(x, log_int(rng, 10, 1000)))


def _estimated(kind: str, side: int, width: int, growth: float, depths: list[int]) -> float:
    """About how many multiply-accumulates such a network takes."""
    each = {"basic": 18.0, "bottleneck": 4.0, "inverted": 9.0, "grouped": 3.0, "branches": 8.0, "last": 8.5}
    total, place = 0.0, side / 2
    for stage, depth in enumerate(depths):
        place /= 2
        total += depth * each.get(kind, 2.0) * (width * growth**stage) ** 2 * place**2
    return total


def _block(g: GraphBuilder, kind: str, x: Tensor, after: int, stride: int, act: str, inside: int) -> Tensor:
    if kind == "inverted":
        inner = 4 * x.dims[1]
        y = g.activation(g.conv(x, inner), act)
        y = g.activation(g.conv(y, inner, int(g.rng.choice([3, 5])), stride, groups=inner), act)
        y = g.excitation(y, max(8, x.dims[1] // 4)) if g.rng.random() < 0.4 else y
        y = g.conv(y, after)
        return g.binary("Add", y, x) if y.dims == x.dims else y
    if kind == "last":
        x = g.conv(x, after, 2, stride) if stride > 1 or x.dims[1] != after else x
        return mixed_last(g, x, 7)
    if kind == "branches":
        half = max(8, after // 16 * 8)
        parts = [g.activation(g.conv(x, half, 1, stride), act)]
        parts.append(g.activation(g.conv(g.activation(g.conv(x, half), act), after - half, 3, stride), act))
        return g.concat(parts)
    if kind == "shuffled" and stride == 1 and x.dims[1] == after and after % 4 == 0:
        half = after // 2
        kept, other = g.split(x)
        other = g.conv(g.activation(g.conv(other, half), act), half, 3, groups=half)
        return g.shuffle(g.concat([kept, g.activation(g.conv(other, half), act)]), 2)
    y = x
    if kind == "basic":
        y = g.conv(g.activation(g.conv(y, after, 3, stride), act), after, 3)
    elif kind == "grouped":
        y = g.activation(g.conv(g.activation(g.conv(y, after), act), after, 3, stride, groups=after // inside), act)
        y = g.excitation(y, max(8, x.dims[1] // 4), "Sigmoid") if g.rng.random() < 0.4 else y
        y = g.conv(y, after)
    else:
        inner = max(8, after // 32 * 8)
        y = g.activation(g.conv(g.activation(g.conv(y, inner), act), inner, 3, stride), act)
        y = g.conv(y, after)
    shortcut = x if y.dims == x.dims else g.conv(x, after, 1, stride)
    return g.activation(g.binary("Add", y, shortcut), act)


def token_networks(rng: np.random.Generator) -> bytes:
    """Patches of an image, and blocks of a transformer on them."""
    parts = int(rng.choice([2, 3, 4, 6, 8]))
    width, tokens_a_side = parts * int(rng.choice([32, 64])), int(rng.choice([4, 6, 7, 8, 10, 14]))
    patch, depth = int(rng.choice([8, 16])), int(rng.integers(2, 9))
    tokens = tokens_a_side**2
    while depth > 1 and (
        depth * (12 * tokens * width**2 + 2 * tokens**2 * width) > _MOST_MACS or depth * 12 * width**2 > _MOST_WEIGHTS
    ):
        depth -= 1
    g = GraphBuilder(rng, apart=bool(rng.random() < 0.5))
    image = g.image(1, 3, patch * tokens_a_side, patch * tokens_a_side)
    weight = g.weights(width, 3, patch, patch, scale=0.05)
    x = g.add(
        "Conv", [image, weight, g.weights(width)], (1, width, tokens_a_side, tokens_a_side),
        kernel_shape=[patch, patch], strides=[patch, patch],
    )  # fmt: skip
    x = g.transpose(g.reshape(x, 1, width, tokens), 0, 2, 1)
    x = g.binary("Add", x, g.weights(1, tokens, width, scale=0.1))
    act, form = choice(rng, ("Gelu", "gelu-tanh", "Relu")), choice(rng, ("one", "three", "split"))
    for _ in range(depth):
        x = g.binary("Add", x, g.linear(attended(g, g.norm(x), parts, form), width))
        x = g.binary("Add", x, g.linear(g.gated_linear(g.norm(x), 4 * width, act), width))
    return g.model(g.gemm(g.reduce("ReduceMean", g.norm(x), [1], keep=False), log_int(rng, 10, 1000)))
