"""Micro-benchmarks of convolutions, in the blocks and chains of networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import UNARY, chain_length, channels, choice, log_int, log_uniform, map_size

if TYPE_CHECKING:
    import numpy as np

_FUSED = ("Relu", "relu6", "HardSwish", "HardSigmoid", "Sigmoid", "")


def convolutions(rng: np.random.Generator) -> bytes:
    """Dense convolutions of 3×3 and more."""
    kernel = int(rng.choice([3, 3, 3, 3, 5, 5, 7]))
    while True:
        before, side = map_size(rng, 8, 512)
        after = channels(rng, 8, 512)
        macs = before * after * kernel**2 * side**2
        if macs < 2.5e8:
            break
    g = GraphBuilder(rng)
    x = g.image(1, before, side, side)
    flat = kernel > 3 and rng.random() < 0.4
    for at in range(2 * (chain_length(macs) // 2)):
        shape = kernel if not flat else ((1, kernel), (kernel, 1))[at % 2]
        stride = 2 if rng.random() < 0.15 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, before if at % 2 else after, shape, stride), choice(rng, _FUSED))
    return g.model(x)


def pointwise(rng: np.random.Generator) -> bytes:
    """1×1 convolutions, narrow to wide and back."""
    while True:
        before, side = map_size(rng, 8, 1024)
        after = channels(rng, 8, 2048)
        macs = before * after * side**2
        if macs < 2e8 and after * side**2 < 2e6:
            break
    g = GraphBuilder(rng)
    x = g.image(1, before, side, side)
    for at in range(2 * (chain_length(macs) // 2)):
        stride = 2 if rng.random() < 0.08 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, before if at % 2 else after, 1, stride), choice(rng, _FUSED))
    return g.model(x)


def separable(rng: np.random.Generator) -> bytes:
    """Depthwise convolutions, each with a 1×1 before it, some with one after it."""
    width, side = map_size(rng, 8, 1024)
    narrow = max(8, 8 * round(width / float(rng.choice([1, 1, 3, 4, 6])) / 8))
    kernel, act = int(rng.choice([3, 3, 3, 5, 5, 7])), choice(rng, (*_FUSED, "silu"))
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, narrow, side, side), width)
    for at in range(max(2, chain_length(width * side**2 * (narrow + kernel**2), most=6))):
        x = g.activation(x, act) if at else x
        stride = 2 if rng.random() < 0.2 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, width, kernel, stride, groups=width), act)
        if rng.random() < 0.6:
            x = g.conv(g.conv(x, narrow), width)
    return g.model(x)


def first(rng: np.random.Generator) -> bytes:
    """The first convolution of a network, from one or three channels (or a few), and a second one."""
    kernel, stride = int(rng.choice([3, 3, 5, 7])), int(rng.choice([1, 2, 2, 4]))
    side = log_int(rng, 24, 300)
    g = GraphBuilder(rng)
    x = g.image(1, int(rng.choice([1, 3, 3, 3, 4])), side, side)
    x = g.activation(g.conv(x, channels(rng, 8, 96), kernel, stride), choice(rng, _FUSED))
    return g.model(g.conv(x, 16))


def few_channels(rng: np.random.Generator) -> bytes:
    """Maps with fewer channels than a block: every second convolution reads the plain layout."""
    few, many = int(rng.choice([4, 8, 8, 12])), channels(rng, 16, 256)
    side = log_int(rng, 1, 80)
    g = GraphBuilder(rng)
    x = g.image(1, few, side, side)
    for _ in range(3):
        kernel = int(rng.choice([1, 1, 3, 5]))
        x = g.activation(g.conv(x, many, kernel), choice(rng, _FUSED))
        x = g.activation(g.conv(x, few), "Relu")
    return g.model(x)


def excitation(rng: np.random.Generator) -> bytes:
    """Squeeze and excitation between 1×1 convolutions."""
    width, side = map_size(rng, 16, 1152, 8e5)
    g = GraphBuilder(rng)
    x = g.image(1, max(8, width // 4 // 8 * 8), side, side)
    for _ in range(3):
        x = g.activation(g.conv(x, width), choice(rng, ("Relu", "silu", "HardSwish")))
        inner = max(4, 4 * round(width / float(rng.choice([4, 4, 16, 24])) / 4))
        x = g.conv(g.excitation(x, inner, choice(rng, ("HardSigmoid", "Sigmoid"))), max(8, width // 4 // 8 * 8))
    return g.model(x)


def activations(rng: np.random.Generator) -> bytes:
    """One activation after 1×1 convolutions, in the blocked layout where it can be."""
    width, side = map_size(rng, 16, 512)
    act = choice(rng, UNARY)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(max(2, min(5, int(4e6 / (width * side * side) / max(1, width / 64))))):
        x = g.activation(g.conv(x, width), act)
    return g.model(g.conv(x, width))


def residual(rng: np.random.Generator) -> bytes:
    """Residual blocks, with the result of each chain of convolutions added to its input."""
    width, side = map_size(rng, 16, 512, 4e5)
    inner = max(8, 8 * round(width / float(rng.choice([1, 1, 4, 0.25])) / 8))
    kernel = 3 if inner <= width and inner * inner * side * side < 8e6 else 1
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, width, side, side), width)
    for _ in range(3):
        branch = g.activation(g.conv(g.activation(g.conv(x, inner), "Relu"), inner, kernel), "Relu")
        x = g.activation(g.binary("Add", g.conv(branch, width), x), choice(rng, ("Relu", "")))
    return g.model(x)


def branches(rng: np.random.Generator) -> bytes:
    """A squeeze and concatenated branches; widths that fill whole blocks of the layout, or don't."""
    width, side = map_size(rng, 16, 256, 4e5)
    multiple = int(rng.choice([8, 16, 16]))
    squeeze = channels(rng, 16, max(17, width // 2), multiple)
    half = channels(rng, 16, width, multiple)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(2):
        x = g.activation(g.conv(x, squeeze), "Relu")
        parts = [g.activation(g.conv(x, half, kernel), "Relu") for kernel in (1, 3)]
        x = g.concat([*parts, g.pool(x, choice(rng, ("MaxPool", "AveragePool")), 3, 1)] if multiple == 16 else parts)
        if rng.random() < 0.4 and x.dims[2] > 6:
            x = g.pool(x, "MaxPool", 3, 2)
    return g.model(x)


def dense(rng: np.random.Generator) -> bytes:
    """Dense blocks, with each result concatenated with its input, and normalised before each convolution."""
    growth, side = channels(rng, 16, 48), log_int(rng, 4, 60)
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, 16, side, side), channels(rng, 32, 512 if side < 20 else 128, 16))
    for _ in range(4):
        inner = g.activation(g.batch_norm(x), "Relu")
        inner = g.activation(g.conv(inner, 4 * growth), "Relu")
        x = g.concat([x, g.conv(inner, growth, 3)])
    return g.model(g.batch_norm(x))


def affine(rng: np.random.Generator) -> bytes:
    """Scales and shifts of channels as separate nodes, as in converted files."""
    width, side = channels(rng, 16, 512, 16), log_int(rng, 4, 60)
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, 16, side, side), width)
    for _ in range(3):
        x = g.binary("Mul", g.batch_norm(x), g.weights(width, 1, 1))
        x = g.activation(g.binary("Add", x, g.weights(width, 1, 1, scale=0.1)), "Relu")
        x = g.activation(g.conv(g.conv(x, 64), width), "Relu")
    return g.model(x)


def shuffled(rng: np.random.Generator) -> bytes:
    """Shuffle blocks, with one half of the channels convolved, and both concatenated and shuffled."""
    width, side = channels(rng, 24, 512, 4) // 4 * 4, log_int(rng, 3, 60)
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, 16, side, side), 2 * width)
    for _ in range(3):
        kept, other = g.split(x)
        other = g.activation(g.conv(other, width), "Relu")
        other = g.activation(g.conv(g.conv(other, width, 3, groups=width), width), "Relu")
        x = g.shuffle(g.concat([kept, other]), 2)
    return g.model(x)


def grouped(rng: np.random.Generator) -> bytes:
    """Convolutions in groups of any width, shuffled or not."""
    groups = int(rng.choice([2, 3, 4, 8, 16, 32]))
    inside = int(rng.choice([4, 6, 8, 14, 16, 16, 32, 34, 48, 64]))
    width = groups * inside
    side = log_int(rng, 4, min(60.0, math.sqrt(6e5 / width)))
    kernel = int(rng.choice([1, 1, 3]))
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(3):
        y = g.activation(g.conv(x, width, kernel, groups=groups), "Relu")
        y = g.shuffle(y, groups) if rng.random() < 0.5 else y
        y = g.conv(y, width, 3, groups=width) if rng.random() < 0.5 else y
        x = g.activation(g.add("Sum", [g.conv(y, width, kernel, groups=groups), x], x.dims), "Relu")
    return g.model(x)


def open_convolutions(rng: np.random.Generator) -> bytes:
    """Convolutions with weights that are inputs too, which keep the plain layout."""
    width, side = map_size(rng, 8, 256, 4e5)
    kind = choice(rng, ("pointwise", "depthwise", "conv", "mixed", "mixed"))
    g = GraphBuilder(rng, open_weights=True)
    start = int(rng.choice([1, 3, width, width]))
    x = g.activation(g.conv(g.image(1, start, side, side), width, 1 if start == width else 3), "Relu")
    for _ in range(4):
        if kind in ("depthwise", "mixed"):
            stride = 2 if rng.random() < 0.2 and x.dims[2] > 6 else 1
            x = g.activation(g.conv(x, width, int(rng.choice([3, 3, 5])), stride, groups=width), "Relu")
        if kind in ("pointwise", "mixed"):
            x = g.activation(g.conv(x, width), "Relu")
        if kind == "conv":
            kernel = int(rng.choice([3, 3, 5]))
            if width * width * x.dims[2] ** 2 * kernel**2 < 1e8:
                x = g.activation(g.conv(x, width, kernel), "Relu")
    return g.model(x)


def eight_bits(rng: np.random.Generator) -> bytes:
    """Convolutions of 8-bit integers: dense, depthwise and 1×1, with residuals and float activations."""
    width, side = map_size(rng, 8, 512, 4e5)
    kind = choice(rng, ("conv", "pointwise", "separable", "separable", "gated", "grouped"))
    g = GraphBuilder(rng)
    x = g.quantised(g.quantised_conv(g.quantised(g.image(1, 3, side, side)), width, 3))
    for _ in range(3):
        before = x
        if kind == "conv" and width * width * side * side < 2e7:
            x = _eight_bit_relu(g, g.quantised_conv(x, width, 3))
        elif kind == "grouped":
            x = _eight_bit_relu(g, g.quantised_conv(x, width, 3, groups=width // int(rng.choice([2, 4, 8]))))
        elif kind == "gated":
            x = g.quantised(g.quantised_conv(x, width))
            gate = g.quantised(g.activation(x, "HardSigmoid"), signed=False)
            x = g.quantised(g.binary("Mul", x, gate))
        else:
            x = _eight_bit_relu(g, g.quantised_conv(x, width))
        if kind == "separable":
            x = _eight_bit_relu(g, g.quantised_conv(x, width, 3, groups=width))
        if rng.random() < 0.4:
            x = g.quantised(g.binary("Add", g.quantised(g.quantised_conv(x, width)), before))
    return g.model(g.quantised(g.global_pool(x)))


def _eight_bit_relu(g: GraphBuilder, x: Tensor) -> Tensor:
    return g.quantised(g.activation(x, "Relu"), signed=False)


def heavy(rng: np.random.Generator) -> bytes:
    """Chains whose weights exceed the caches, so that every inference reads them from memory."""
    wanted = log_uniform(rng, 1e6, 8e7) / 4
    kernel, width, side = int(rng.choice([1, 3])), channels(rng, 128, 1024, 16), int(rng.choice([2, 4, 7]))
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(max(2, min(40, int(wanted / (width * width * kernel**2))))):
        x = g.activation(g.conv(x, width, kernel), "Relu")
    return g.model(g.classifier(x, log_int(rng, 10, 1000)))
