"""Micro-benchmarks of everything beside convolutions: elementwise operators, layouts, products, pools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import UNARY, channels, choice, log_int, map_size

_BINARY = ("Add", "Mul", "Sub", "Div", "Max", "Min")
_FUNCTIONS = ("Reciprocal", "Log", "Floor", "Sin", "Cos", "Ceil", "Round", "Sign", "Sqrt")
_RARE_REDUCTIONS = ("ReduceL2", "ReduceL1", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
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


def powers(rng: np.random.Generator) -> bytes:
    """Pools of a norm, which is a sum of powers."""
    width, side = map_size(rng, 4, 64, 1e4)
    g = GraphBuilder(rng)
    x = g.image(1, width, max(side, 6), max(side, 6))
    pooled = g.pool(x, "LpPool", int(rng.choice([2, 3, 3, 5])), int(rng.choice([1, 2, 2])))
    return g.model(g.activation(pooled, "Relu"))


def others(rng: np.random.Generator) -> bytes:
    """Rarer operators, such as local normalisation, reductions, padding, slices."""
    width, side = map_size(rng, 8, 256, 2e5)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    kind = choice(rng, ("LRN", "reduction", "Pad", "Slice", "InstanceNormalization"))
    for _ in range(2):
        x = g.activation(x, "Tanh")
        if kind == "LRN":
            x = g.add("LRN", [x], x.dims, size=5)
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


def resized(rng: np.random.Generator) -> bytes:
    """Maps made larger or smaller: each value repeated, or between its neighbours."""
    kind = choice(rng, ("doubled", "nearest", "nearest", "linear", "linear", "cubic", "antialiased"))
    width, side = map_size(rng, 3, 128, 4e3 if kind == "cubic" else 1e5)
    growth = 2.0 if kind == "doubled" else float(rng.choice([0.5, 1.5, 2.0, 2.0, 3.0, 4.0]))
    mode = kind
    how: dict[str, Any] = {}
    if kind == "doubled":
        mode, how = "nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif kind == "antialiased":
        mode, how = choice(rng, ("linear", "cubic")), {"antialias": 1}
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(1 if growth > 2 else 2):
        size = max(1, int(x.dims[2] * growth))
        sizes = g.constant(np.array([1, width, size, size], np.int64))
        dims = (1, width, size, size)
        x = g.add("Resize", [x, "", "", sizes], dims, mode=mode, **how)
        x = g.activation(x, "Relu")
    return g.model(x)


def transposed(rng: np.random.Generator) -> bytes:
    """Transposed convolutions that double a map, or keep its size."""
    kernel, stride = int(rng.choice([2, 2, 3, 4, 4, 5])), int(rng.choice([1, 2, 2]))
    width = channels(rng, 8, 192)
    side = log_int(rng, 3, 48)
    while (width * side * kernel) ** 2 > 3e7:
        width, side = channels(rng, 8, 96), log_int(rng, 3, 24)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(2):
        size = (x.dims[2] - 1) * stride + kernel
        if size * size * width > 4e5:
            break
        weight = g.weights(width, width, kernel, kernel, scale=0.5 / math.sqrt(width * kernel))
        x = g.add(
            "ConvTranspose", [x, weight], (1, width, size, size),
            kernel_shape=[kernel, kernel], strides=[stride, stride],
        )  # fmt: skip
        x = g.activation(x, "Relu")
    return g.model(x)


def rarer(rng: np.random.Generator) -> bytes:
    """Rarer operators once more: copies in other shapes, reductions, functions of one number, look-ups."""
    width, side = map_size(rng, 4, 256, 2e5)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    kind = choice(rng, ("function", "function", "reduction", "expand", "tile", "space", "trilu", "look-up", "across"))
    for _ in range(2):
        x = g.activation(x, "Tanh")
        if kind == "function":
            x = g.activation(g.activation(x, "Abs"), choice(rng, _FUNCTIONS))
        elif kind == "reduction":
            y = g.reduce(choice(rng, _RARE_REDUCTIONS), x, [-1] if rng.random() < 0.7 else [1])
            x = g.binary("Div", x, g.activation(y, "Exp"))
        elif kind in ("expand", "tile"):
            one = g.slice(x, 2, 0, 1)
            sizes = (1, 1, x.dims[2], 1)
            repeated = g.constant(np.array(sizes if kind == "tile" else x.dims, np.int64))
            x = g.binary("Mul", x, g.add(kind.capitalize(), [one, repeated], x.dims))
        elif kind == "space" and x.dims[1] % 4 == 0:
            x = g.add("DepthToSpace", [x], (1, x.dims[1] // 4, 2 * x.dims[2], 2 * x.dims[3]), blocksize=2)
            before = (1, 4 * x.dims[1], x.dims[2] // 2, x.dims[3] // 2)
            x = g.add("SpaceToDepth", [g.activation(x, "Relu")], before, blocksize=2)
        elif kind == "trilu":
            x = g.add("Trilu", [x], x.dims, upper=int(rng.random() < 0.5))
        elif kind == "look-up":
            rows = g.constant(rng.permutation(x.dims[2]).astype(np.int64))
            x = g.add("Gather", [x, rows], x.dims, axis=2)
        elif kind == "across":
            x = g.add("Softmax", [x], x.dims, axis=1)
    return g.model(g.activation(x, "Relu"))


def tiny(rng: np.random.Generator) -> bytes:
    """Networks of a few microseconds: for the least time of a call and of each kernel."""
    width, side = int(rng.choice([3, 4, 8, 16, 32])), int(rng.choice([1, 2, 3, 5, 8]))
    kind = choice(rng, ("activations", "layers", "layers", "convolutions", "convolutions", "mixed"))
    g = GraphBuilder(rng)
    if kind == "layers":
        x = g.image(1, width)
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            x = g.activation(g.gemm(x, log_int(rng, 2, 128)), choice(rng, ("Relu", "Relu", "Tanh", "")))
        return g.model(g.add("Softmax", [x], x.dims, axis=-1) if rng.random() < 0.4 else x)
    x = g.image(1, width, side, side)
    for _ in range(int(rng.choice([1, 1, 2, 4, 8] if kind == "activations" else [1, 1, 2, 3]))):
        if kind != "activations":
            x = g.conv(x, int(rng.choice([4, 8, 16, 32])), int(rng.choice([1, 3])))
        x = g.activation(x, choice(rng, ("Relu", "Relu", "Tanh", "Sigmoid") if kind != "convolutions" else ("Relu",)))
        if kind == "mixed":
            x = g.pool(x, "MaxPool", 2, 2) if x.dims[2] > 1 else g.binary("Add", x, x)
    if kind == "activations":
        return g.model(g.reshape(x, 1, width * side * side))
    if rng.random() < 0.5:
        return g.model(g.classifier(x, 10))
    flat = g.reshape(x, 1, x.dims[1] * x.dims[2] * x.dims[3])
    return g.model(g.gemm(flat, 10) if rng.random() < 0.7 else flat)
