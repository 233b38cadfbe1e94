"""Micro-benchmarks of matrix products, and of the blocks of transformers that consist of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import channels, choice, log_int, log_uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

_GATES = ("Gelu", "Gelu", "Relu", "gelu-tanh", "silu")


def vectors(rng: np.random.Generator) -> bytes:
    """Fully connected layers of one vector; some don't fit into any cache."""
    many = rng.random() < 0.3
    before, after = log_int(rng, 16, 8192 if many else 2048), log_int(rng, 10, 8192 if many else 2048)
    while before * after > (3e7 if many else 3e6):
        before = log_int(rng, 16, 4096)
    wanted = log_uniform(rng, 2e6, 3e7) if many else 0.0
    links = 2 * int(min(10, max(1 if before * after > 2e6 else 2, wanted / (2 * before * after))))
    g = GraphBuilder(rng)
    x = g.image(1, before)
    for at in range(1 if before * after > 1.5e7 else links):
        x = g.activation(g.gemm(x, before if at % 2 else after), choice(rng, ("Relu", "Relu", "")))
    return g.model(x)


def rows(rng: np.random.Generator) -> bytes:
    """Products of a few to many rows with stored matrices; some don't fit into any cache."""
    count = log_int(rng, 2, 1200)
    before, after = log_int(rng, 16, 3072), log_int(rng, 16, 3072)
    while count * before * after > 4e8 or before * after > 1.2e7:
        count, before = log_int(rng, 2, 800), log_int(rng, 16, 3072)
    heavy = rng.random() < 0.3
    wanted = log_uniform(rng, 2e6, 2e7) if heavy else 0.0
    links = 2 * int(min(8, max(1, wanted / (2 * before * after), 1e7 / (2 * count * before * after))))
    g = GraphBuilder(rng)
    kind, act = choice(rng, ("gemm", "matmul", "linear")), choice(rng, ("Relu", "", "Gelu"))
    x = g.image(count, before) if kind == "gemm" else g.image(1, count, before)
    for at in range(links):
        wide = before if at % 2 else after
        x = g.gemm(x, wide) if kind == "gemm" else g.linear(x, wide) if kind == "linear" else g.matmul(x, wide)
        x = g.activation(x, act)
    return g.model(x)


def batched(rng: np.random.Generator) -> bytes:
    """Products of two computed values, in batches of any size, as products or as Einstein sums."""
    batch, some, depth, others = log_int(rng, 1, 256), log_int(rng, 2, 400), log_int(rng, 4, 128), log_int(rng, 2, 400)
    while batch * some * depth * others > 1e8 or batch * some * others > 1e6:
        batch, some = log_int(rng, 1, 256), log_int(rng, 2, 400)
    g = GraphBuilder(rng)
    x, y = g.image(1, batch, some, depth), g.image(1, batch, others, depth)
    summed = rng.random() < 0.3
    for _ in range(2):
        if summed:
            scores = g.add("Einsum", [x, y], (1, batch, some, others), equation="bhik,bhjk->bhij")
            x = g.add("Einsum", [scores, y], (1, batch, some, depth), equation="bhij,bhjk->bhik")
        else:
            x = g.matmul(g.transposed_matmul(x, y), y)
        x = g.activation(x, "Tanh")
    return g.model(x)


def attention(rng: np.random.Generator) -> bytes:
    """Blocks of a transformer: normalisation, attention of several heads, two layers for each token."""
    parts = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
    width = parts * int(rng.choice([16, 24, 32, 32, 48, 64, 64]))
    tokens = log_int(rng, 6, 500)
    while tokens * width * width * 10 + 2 * tokens**2 * width > 4e8:
        tokens = log_int(rng, 6, 300)
    g = GraphBuilder(rng, apart=bool(rng.random() < 0.5))
    x = g.image(1, tokens, width)
    act, form = choice(rng, _GATES), choice(rng, ("one", "three", "split"))
    causal = rng.random() < 0.25
    for _ in range(1 if tokens * width * width > 1e7 else 2):
        x = _block(g, x, parts, act, form, causal=causal)
    return g.model(g.reduce("ReduceMean", x, [1], keep=False))


def _block(g: GraphBuilder, x: Tensor, parts: int, act: str, form: str, *, causal: bool = False) -> Tensor:
    mixed = attended(g, g.norm(x), parts, form, causal=causal)
    x = g.binary("Add", x, g.linear(mixed, x.dims[-1]))
    factor = int(g.rng.choice([2, 4, 4]))
    inner = g.gated_linear(g.norm(x), factor * x.dims[-1], act)
    return g.binary("Add", x, g.linear(inner, x.dims[-1]))


def attended(
    g: GraphBuilder, x: Tensor, parts: int, form: str, bias: Sequence[str] = (), *, causal: bool = False
) -> Tensor:
    """Attention among the rows of each matrix of `x` (batch, tokens, width), with `parts` heads.

    Queries, keys and values come of `one` product and are sliced, of `three` products, or are `split` off one.
    """
    batch, tokens, width = x.dims
    size = width // parts
    if form == "three":
        apart = [g.reshape(g.linear(x, width), batch, tokens, parts, size) for _ in range(3)]
        q, k, v = (g.transpose(each, 0, 2, 1, 3) for each in apart)
    elif form == "split":
        whole = g.linear(x, 3 * width)
        split = g.add_several("Split", [whole], [x.dims] * 3, axis=2, num_outputs=3)
        q, k, v = (g.transpose(g.reshape(each, batch, tokens, parts, size), 0, 2, 1, 3) for each in split)
    else:
        whole = g.reshape(g.linear(x, 3 * width), batch, tokens, 3, parts, size)
        moved = g.transpose(whole, 2, 0, 3, 1, 4)
        shape = (1, batch, parts, tokens, size)
        split = g.add_several("Split", [moved], [shape] * 3, axis=0, num_outputs=3)
        q, k, v = (g.reshape(each, *shape[1:]) for each in split)
    scores = g.binary("Mul", g.transposed_matmul(q, k), g.number(1.0 / math.sqrt(size)))
    for each in bias:
        scores = g.binary("Add", scores, each)
    if causal:
        allowed = g.constant(np.tril(np.ones((1, 1, tokens, tokens), bool)))
        scores = g.add("Where", [allowed, scores, g.number(-1e4)], scores.dims, elem_type=scores.elem_type)
    scores = g.add("Softmax", [scores], scores.dims, axis=-1)
    return g.reshape(g.transpose(g.matmul(scores, v), 0, 2, 1, 3), batch, tokens, width)


def windows(rng: np.random.Generator) -> bytes:
    """Attention within the windows of a map, shifted or not, as of hierarchical transformers."""
    parts, side = int(rng.choice([1, 2, 3, 4, 6, 8])), int(rng.choice([4, 5, 6, 7, 7, 8]))
    width = parts * int(rng.choice([16, 32, 32]))
    count = int(rng.choice([1, 2, 3, 4, 6, 8]))
    while count > 1 and (count * side) ** 2 * width > 6e5:
        count //= 2
    g = GraphBuilder(rng, apart=bool(rng.random() < 0.5))
    return g.model(_windowed(g, g.image(1, count * side, count * side, width), parts, side, int(rng.integers(0, side))))


def _windowed(g: GraphBuilder, x: Tensor, parts: int, side: int, shift: int) -> Tensor:
    rows, width = x.dims[1], x.dims[3]
    count = rows // side
    y = g.norm(x)
    for axis in (1, 2) if shift else ():
        y = g.concat([g.slice(y, axis, shift, rows), g.slice(y, axis, 0, shift)], axis)
    y = g.transpose(g.reshape(y, 1, count, side, count, side, width), 0, 1, 3, 2, 4, 5)
    y = g.reshape(y, count * count, side * side, width)
    bias = [g.weights(1, parts, side**2, side**2, scale=0.1)]
    y = g.linear(attended(g, y, parts, "one", bias), width)
    y = g.transpose(g.reshape(y, 1, count, count, side, side, width), 0, 1, 3, 2, 4, 5)
    y = g.reshape(y, 1, rows, rows, width)
    for axis in (1, 2) if shift else ():
        y = g.concat([g.slice(y, axis, rows - shift, rows), g.slice(y, axis, 0, rows - shift)], axis)
    x = g.binary("Add", x, y)
    return g.binary("Add", x, g.linear(g.gated_linear(g.norm(x), 4 * width, "Gelu"), width))


def normalised(rng: np.random.Generator) -> bytes:
    """Wide depthwise convolutions, and two layers for each position with the channels last."""
    width = channels(rng, 16, 768)
    side = log_int(rng, 3, min(60.0, math.sqrt(4e5 / width)))
    while 8 * width * width * side * side > 2.5e8:
        width = channels(rng, 16, 384)
    g = GraphBuilder(rng, apart=bool(rng.random() < 0.5))
    x = g.conv(g.image(1, 16, side, side), width)
    for _ in range(2):
        x = mixed_last(g, x, int(rng.choice([5, 7, 7])))
    return g.model(x)


def mixed_last(g: GraphBuilder, x: Tensor, kernel: int) -> Tensor:
    """A depthwise convolution, then normalised and two layers for each position with the channels last."""
    width = x.dims[1]
    y = g.norm(g.transpose(g.conv(x, width, kernel, groups=width), 0, 2, 3, 1))
    y = g.linear(g.gated_linear(y, 4 * width, "Gelu"), width)
    y = g.binary("Mul", g.transpose(y, 0, 3, 1, 2), g.weights(width, 1, 1, scale=0.5))
    return g.binary("Add", y, x)
