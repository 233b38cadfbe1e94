"""Micro-benchmarks of everything beside convolutions: elementwise operators, layouts, products, pools."""

from __future__ import annotations

import math

import numpy as np

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import UNARY, channels, choice, log_int, map_size

_BINARY = ("Add", "Mul", "Sub", "Div", "Max")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


def elementwise(rng: np.random.Generator) -> bytes:
    """A few elementwise operators in the plain layout, with operands of each shape."""
    width, side = map_size(rng, 8, 512, 4e5)
    act, op_type = choice(rng, UNARY), choice(rng, _BINARY)
    g = GraphBuilder(rng)
    x = y = g.image(1, width, side, side)
    for _ in range(3):
        operands: dict[int, Tensor | str] = {0: y, 1: g.weights(1, scale=0.1), 2: g.weights(width, 1, 1, scale=0.1)}
        other = operands[int(rng.integers(3))]
        y = g.activation(g.binary(op_type, y if op_type != "Div" else g.activation(y, "Exp"), other), act)
        y = g.activation(y, "Tanh")  # the next operator gets numbers of a usual size
    return g.model(g.binary("Add", y, x))


def heads(rng: np.random.Generator) -> bytes:
    """Detection heads, with maps transposed and concatenated into lists of boxes."""
    width, side = channels(rng, 8, 128, 4), log_int(rng, 4, 80)
    g = GraphBuilder(rng, open_weights=bool(rng.random() < 0.5))
    x = g.image(1, width, side, side)
    parts = []
    for _ in range(3):
        last = g.transpose(x, 0, 2, 3, 1)
        parts.append(g.activation(last, "Relu"))
    found = g.concat(parts, 1 if rng.random() < 0.5 else 3)
    return g.model(g.add("Softmax", [found], found.dims, axis=len(found.dims) - 1))


def layouts(rng: np.random.Generator) -> bytes:
    """Transpositions between channels last and channels first, as in files from other frameworks."""
    width, side = map_size(rng, 3, 256, 4e5)
    g = GraphBuilder(rng)
    x = g.image(1, side, side, width)
    y = g.activation(g.transpose(x, 0, 3, 1, 2), "Tanh")
    y = g.activation(g.transpose(y, 0, 2, 3, 1), "Relu")
    return g.model(g.activation(g.transpose(y, 0, 3, 1, 2), "Tanh"))


def vectors(rng: np.random.Generator) -> bytes:
    """Fully connected layers of one image."""
    before, after = log_int(rng, 16, 4096), log_int(rng, 10, 4096)
    while before * after > 6e6:
        before = log_int(rng, 16, 4096)
    g = GraphBuilder(rng)
    x = g.image(1, before)
    for at in range(2 if before * after > 2e6 else 4):
        x = g.activation(g.gemm(x, before if at % 2 else after), "Relu")
    return g.model(x)


def matrices(rng: np.random.Generator) -> bytes:
    """Attention blocks, with products of sequences with weights and with each other, softmax, normalisation."""
    tokens, width = log_int(rng, 8, 400), channels(rng, 16, 512)
    parts = int(rng.choice([1, 2, 4, 8]))
    g = GraphBuilder(rng)
    x = g.image(1, tokens, width)
    ones, zeros = g.weights(width, scale=0.1), g.weights(width, scale=0.1)
    x = g.add("LayerNormalization", [x, ones, zeros], x.dims, axis=-1)
    several = g.reshape(g.matmul(x, width), 1, tokens, parts, width // parts)
    q, k = g.transpose(several, 0, 2, 1, 3), g.transpose(several, 0, 2, 3, 1)
    scores = g.matmul(q, k)
    scores = g.add("Softmax", [scores], scores.dims, axis=-1)
    mixed = g.reshape(g.transpose(g.matmul(scores, q), 0, 2, 1, 3), 1, tokens, width)
    inner = g.activation(g.matmul(mixed, 2 * width), choice(rng, ("Gelu", "Relu")))
    return g.model(g.binary("Add", g.matmul(inner, width), mixed))


def pools(rng: np.random.Generator) -> bytes:
    """Pools of each kind and size, in either layout."""
    plain = rng.random() < 0.5
    width, side = map_size(rng, 8, 256)
    side = max(side, 6)
    width = width + 3 if plain else max(16, width // 16 * 16)
    kind = choice(rng, ("MaxPool", "AveragePool"))
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    x = x if plain else g.conv(x, width)
    x = g.pool(x, kind, int(rng.choice([2, 3, 3, 5])), int(rng.choice([1, 2, 2])))
    x = g.pool(g.pool(x, kind, 3, 1), kind, 3, 1)
    pooled = choice(rng, ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"))
    if pooled == "ReduceMean":
        return g.model(g.add(pooled, [x, g.constant(np.array([2, 3], np.int64))], (1, width, 1, 1)))
    return g.model(g.global_pool(x, pooled))


def others(rng: np.random.Generator) -> bytes:
    """Rarer operators, such as local normalisation, resizing, transposed convolutions, reductions, padding, slices."""
    width, side = map_size(rng, 8, 256, 2e5)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    kind = choice(rng, ("LRN", "Resize", "ConvTranspose", "reduction", "Pad", "Slice", "InstanceNormalization"))
    for _ in range(2):
        x = g.activation(x, "Tanh")
        if kind == "LRN":
            x = g.add("LRN", [x], x.dims, size=5)
        elif kind == "Resize":
            dims = (1, width, 2 * x.dims[2], 2 * x.dims[3])
            mode = choice(rng, ("nearest", "linear"))
            x = g.add("Resize", [x, "", g.constant(np.array([1, 1, 2, 2], np.float32))], dims, mode=mode)
        elif kind == "ConvTranspose" and width * width * x.dims[2] ** 2 < 3e7:
            dims = (1, width, 2 * x.dims[2], 2 * x.dims[3])
            weight = g.weights(width, width, 2, 2, scale=0.5 / math.sqrt(width))
            x = g.add("ConvTranspose", [x, weight], dims, kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "reduction":
            axes = g.constant(np.array([1] if rng.random() < 0.5 else [2, 3], np.int64))
            one = g.add(choice(rng, _REDUCTIONS), [x, axes], x.dims, keepdims=1)
            x = g.binary("Sub", x, one)
        elif kind == "Pad":
            dims = (1, width, x.dims[2] + 2, x.dims[3] + 2)
            x = g.add("Pad", [x, g.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))], dims)
        elif kind == "Slice" and x.dims[2] > 3:
            bounds = [g.constant(np.array([value], np.int64)) for value in (1, x.dims[2], 2)]
            x = g.add("Slice", [x, *bounds], (1, width, x.dims[2] - 1, x.dims[3]))
        elif kind == "InstanceNormalization":
            x = g.add("InstanceNormalization", [x, g.weights(width), g.weights(width)], x.dims)
    return g.model(g.activation(x, "Relu"))


def tiny(rng: np.random.Generator) -> bytes:
    """Tiny networks, for the least time of a call and of each kernel."""
    width, side = int(rng.choice([4, 8, 16])), int(rng.choice([1, 2, 3]))
    g = GraphBuilder(rng)
    x: Tensor = g.image(1, width, side, side)
    for _ in range(int(rng.choice([1, 2, 4, 8]))):
        x = g.activation(x, choice(rng, ("Relu", "Tanh")))
    return g.model(g.reshape(x, 1, width * side * side))
