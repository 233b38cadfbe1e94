"""Families of micro-benchmarks: short chains of operators as they occur in networks, of random sizes.

Each family draws one graph from a random generator. Chains are so long that the call itself is a small part of their
time; each link has weights of its own, so that they come from as far away as they do in a network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from latency_models.micro_graphs import GraphBuilder, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    Family = Callable[[np.random.Generator], bytes]

_FUSED = ("Relu", "relu6", "HardSwish", "HardSigmoid", "Sigmoid", "")
_UNARY = (
    "silu", "Gelu", "LeakyRelu", "Elu", "Mish", "prelu", "Relu", "HardSigmoid", "Tanh", "Sigmoid", "Erf", "Exp", "Sqrt",
    "Softplus", "Selu", "HardSwish", "relu6", "Abs", "Neg", "Softsign",
)  # fmt: skip
_BINARY = ("Add", "Mul", "Sub", "Div", "Max")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def channels(rng: np.random.Generator, low: int, high: int, multiple: int = 8) -> int:
    """A number of channels as networks have them."""
    return max(multiple, multiple * round(log_uniform(rng, low, high) / multiple))


def _one_of(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _whole(rng: np.random.Generator, low: float, high: float) -> int:
    return max(1, round(log_uniform(rng, low, high)))


def _links(macs: float, wanted: float = 3e7, most: int = 10) -> int:
    """How many links of a chain make it long enough, two at least."""
    return int(min(most, max(2, wanted / max(macs, 1.0))))


def _map(rng: np.random.Generator, low: int, high: int, most: float = 1.2e6) -> tuple[int, int]:
    """Channels and side of a map that isn't larger than networks' maps are."""
    width = channels(rng, low, high)
    return width, _whole(rng, 2, min(180.0, math.sqrt(most / width)))


def convolutions(rng: np.random.Generator) -> bytes:
    """Dense convolutions of 3×3 and more."""
    kernel = int(rng.choice([3, 3, 3, 3, 5, 5, 7]))
    while True:
        before, side = _map(rng, 8, 512)
        after = channels(rng, 8, 512)
        macs = before * after * kernel**2 * side**2
        if macs < 2.5e8:
            break
    g = GraphBuilder(rng)
    x = g.image(1, before, side, side)
    flat = kernel > 3 and rng.random() < 0.4
    for at in range(2 * (_links(macs) // 2)):
        shape = kernel if not flat else ((1, kernel), (kernel, 1))[at % 2]
        stride = 2 if rng.random() < 0.15 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, before if at % 2 else after, shape, stride), _one_of(rng, _FUSED))
    return g.model(x)


def pointwise(rng: np.random.Generator) -> bytes:
    """1×1 convolutions, narrow to wide and back."""
    while True:
        before, side = _map(rng, 8, 1024)
        after = channels(rng, 8, 2048)
        macs = before * after * side**2
        if macs < 2e8 and after * side**2 < 2e6:
            break
    g = GraphBuilder(rng)
    x = g.image(1, before, side, side)
    for at in range(2 * (_links(macs) // 2)):
        stride = 2 if rng.random() < 0.08 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, before if at % 2 else after, 1, stride), _one_of(rng, _FUSED))
    return g.model(x)


def separable(rng: np.random.Generator) -> bytes:
    """Depthwise convolutions, each with a 1×1 before it, some with one after it."""
    width, side = _map(rng, 8, 1024)
    narrow = max(8, 8 * round(width / float(rng.choice([1, 1, 3, 4, 6])) / 8))
    kernel, act = int(rng.choice([3, 3, 3, 5, 5, 7])), _one_of(rng, (*_FUSED, "silu"))
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, narrow, side, side), width)
    for at in range(max(2, _links(width * side**2 * (narrow + kernel**2), most=6))):
        x = g.activation(x, act) if at else x
        stride = 2 if rng.random() < 0.2 and x.dims[2] > 6 else 1
        x = g.activation(g.conv(x, width, kernel, stride, groups=width), act)
        if rng.random() < 0.6:
            x = g.conv(g.conv(x, narrow), width)
    return g.model(x)


def first(rng: np.random.Generator) -> bytes:
    """The first convolution of a network, from one or three channels (or a few), and a second one."""
    kernel, stride = int(rng.choice([3, 3, 5, 7])), int(rng.choice([1, 2, 2, 4]))
    side = _whole(rng, 24, 300)
    g = GraphBuilder(rng)
    x = g.image(1, int(rng.choice([1, 3, 3, 3, 4])), side, side)
    x = g.activation(g.conv(x, channels(rng, 8, 96), kernel, stride), _one_of(rng, _FUSED))
    return g.model(g.conv(x, 16))


def few_channels(rng: np.random.Generator) -> bytes:
    """Maps of fewer channels than a block has: every second convolution reads the plain layout."""
    few, many = int(rng.choice([4, 8, 8, 12])), channels(rng, 16, 256)
    side = _whole(rng, 1, 80)
    g = GraphBuilder(rng)
    x = g.image(1, few, side, side)
    for _ in range(3):
        kernel = int(rng.choice([1, 1, 3]))
        x = g.activation(g.conv(x, many, kernel), _one_of(rng, _FUSED))
        x = g.activation(g.conv(x, few), "Relu")
    return g.model(x)


def excitation(rng: np.random.Generator) -> bytes:
    """Squeeze and excitation between 1×1 convolutions."""
    width, side = _map(rng, 16, 1152, 8e5)
    g = GraphBuilder(rng)
    x = g.image(1, max(8, width // 4 // 8 * 8), side, side)
    for _ in range(3):
        x = g.activation(g.conv(x, width), _one_of(rng, ("Relu", "silu", "HardSwish")))
        inner = max(4, 4 * round(width / float(rng.choice([4, 4, 16, 24])) / 4))
        x = g.conv(g.excitation(x, inner, _one_of(rng, ("HardSigmoid", "Sigmoid"))), max(8, width // 4 // 8 * 8))
    return g.model(x)


def activations(rng: np.random.Generator) -> bytes:
    """One activation after 1×1 convolutions, in the blocked layout where it can be."""
    width, side = _map(rng, 16, 512)
    act = _one_of(rng, _UNARY)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(max(2, min(5, int(4e6 / (width * side * side) / max(1, width / 64))))):
        x = g.activation(g.conv(x, width), act)
    return g.model(g.conv(x, width))


def elementwise(rng: np.random.Generator) -> bytes:
    """A few elementwise operators in the plain layout, with operands of each shape."""
    width, side = _map(rng, 8, 512, 4e5)
    act, op_type = _one_of(rng, _UNARY), _one_of(rng, _BINARY)
    g = GraphBuilder(rng)
    x = y = g.image(1, width, side, side)
    for _ in range(3):
        other = {0: y, 1: g.weights(1, scale=0.1), 2: g.weights(width, 1, 1, scale=0.1)}[int(rng.integers(3))]
        y = g.activation(g.binary(op_type, y if op_type != "Div" else g.activation(y, "Exp"), other), act)
        y = g.activation(y, "Tanh")  # whatever came before, what follows gets numbers of a usual size
    return g.model(g.binary("Add", y, x))


def residual(rng: np.random.Generator) -> bytes:
    """Convolutions that are added to what was before them."""
    width, side = _map(rng, 16, 512, 4e5)
    inner = max(8, 8 * round(width / float(rng.choice([1, 1, 4, 0.25])) / 8))
    kernel = 3 if inner <= width and inner * inner * side * side < 8e6 else 1
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, width, side, side), width)
    for _ in range(3):
        branch = g.activation(g.conv(g.activation(g.conv(x, inner), "Relu"), inner, kernel), "Relu")
        x = g.activation(g.binary("Add", g.conv(branch, width), x), _one_of(rng, ("Relu", "")))
    return g.model(x)


def branches(rng: np.random.Generator) -> bytes:
    """A squeeze and branches that are put together; widths that fit into blocks, or don't."""
    width, side = _map(rng, 16, 256, 4e5)
    multiple = int(rng.choice([8, 16, 16]))
    squeeze = channels(rng, 16, max(17, width // 2), multiple)
    half = channels(rng, 16, width, multiple)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(2):
        x = g.activation(g.conv(x, squeeze), "Relu")
        parts = [g.activation(g.conv(x, half, kernel), "Relu") for kernel in (1, 3)]
        x = g.concat([*parts, g.pool(x, _one_of(rng, ("MaxPool", "AveragePool")), 3, 1)] if multiple == 16 else parts)
        if rng.random() < 0.4 and x.dims[2] > 6:
            x = g.pool(x, "MaxPool", 3, 2)
    return g.model(x)


def dense(rng: np.random.Generator) -> bytes:
    """Maps that grow by what is put beside them, normalised before each convolution."""
    growth, side = channels(rng, 16, 48), _whole(rng, 4, 60)
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, 16, side, side), channels(rng, 32, 512 if side < 20 else 128, 16))
    for _ in range(4):
        inner = g.activation(g.batch_norm(x), "Relu")
        inner = g.activation(g.conv(inner, 4 * growth), "Relu")
        x = g.concat([x, g.conv(inner, growth, 3)])
    return g.model(g.batch_norm(x))


def affine(rng: np.random.Generator) -> bytes:
    """Channels multiplied and shifted in steps of their own, as converted files have it."""
    width, side = channels(rng, 16, 512, 16), _whole(rng, 4, 60)
    g = GraphBuilder(rng)
    x = g.conv(g.image(1, 16, side, side), width)
    for _ in range(3):
        x = g.binary("Mul", g.batch_norm(x), g.weights(width, 1, 1))
        x = g.activation(g.binary("Add", x, g.weights(width, 1, 1, scale=0.1)), "Relu")
        x = g.activation(g.conv(g.conv(x, 64), width), "Relu")
    return g.model(x)


def shuffled(rng: np.random.Generator) -> bytes:
    """Halves, one convolved, put together and shuffled."""
    width, side = channels(rng, 24, 512, 4) // 4 * 4, _whole(rng, 3, 60)
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
    side = _whole(rng, 4, min(60.0, math.sqrt(6e5 / width)))
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
    """Convolutions with weights that a caller may replace: they stay in the plain layout."""
    width, side = _map(rng, 8, 256, 4e5)
    kind = _one_of(rng, ("pointwise", "depthwise", "conv", "mixed", "mixed"))
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


def heads(rng: np.random.Generator) -> bytes:
    """Maps turned into lists of boxes: transposed, reshaped, put together."""
    width, side = channels(rng, 8, 128, 4), _whole(rng, 4, 80)
    g = GraphBuilder(rng, open_weights=bool(rng.random() < 0.5))
    x = g.image(1, width, side, side)
    parts = []
    for _ in range(3):
        last = g.transpose(x, 0, 2, 3, 1)
        parts.append(g.activation(last, "Relu"))
    found = g.concat(parts, 1 if rng.random() < 0.5 else 3)
    return g.model(g.add("Softmax", [found], found.dims, axis=len(found.dims) - 1))


def layouts(rng: np.random.Generator) -> bytes:
    """Channels last and back, as files from other frameworks have it."""
    width, side = _map(rng, 3, 256, 4e5)
    g = GraphBuilder(rng)
    x = g.image(1, side, side, width)
    y = g.activation(g.transpose(x, 0, 3, 1, 2), "Tanh")
    y = g.activation(g.transpose(y, 0, 2, 3, 1), "Relu")
    return g.model(g.activation(g.transpose(y, 0, 3, 1, 2), "Tanh"))


def vectors(rng: np.random.Generator) -> bytes:
    """Fully connected layers of one image."""
    before, after = _whole(rng, 16, 4096), _whole(rng, 10, 4096)
    while before * after > 6e6:
        before = _whole(rng, 16, 4096)
    g = GraphBuilder(rng)
    x = g.image(1, before)
    for at in range(2 if before * after > 2e6 else 4):
        x = g.activation(g.gemm(x, before if at % 2 else after), "Relu")
    return g.model(x)


def matrices(rng: np.random.Generator) -> bytes:
    """Attention: products of sequences with weights and with each other, softmax, normalisation."""
    tokens, width = _whole(rng, 8, 400), channels(rng, 16, 512)
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
    inner = g.activation(g.matmul(mixed, 2 * width), _one_of(rng, ("Gelu", "Relu")))
    return g.model(g.binary("Add", g.matmul(inner, width), mixed))


def pools(rng: np.random.Generator) -> bytes:
    """Pools of each kind and size, in either layout."""
    plain = rng.random() < 0.5
    width, side = _map(rng, 8, 256)
    side = max(side, 6)
    width = width + 3 if plain else max(16, width // 16 * 16)
    kind = _one_of(rng, ("MaxPool", "AveragePool"))
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    x = x if plain else g.conv(x, width)
    x = g.pool(x, kind, int(rng.choice([2, 3, 3, 5])), int(rng.choice([1, 2, 2])))
    x = g.pool(g.pool(x, kind, 3, 1), kind, 3, 1)
    whole = _one_of(rng, ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"))
    return g.model(g.add(whole, [x, g.constant(_axes())], (1, width, 1, 1)) if whole == "ReduceMean" else g.global_pool(x, whole))


def _axes() -> np.ndarray:
    import numpy as np

    return np.array([2, 3], np.int64)


def others(rng: np.random.Generator) -> bytes:
    """What is rarer: normalisation over neighbours, resizing, transposed convolutions, reductions, padding, slices."""
    import numpy as np

    width, side = _map(rng, 8, 256, 2e5)
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    kind = _one_of(rng, ("LRN", "Resize", "ConvTranspose", "reduction", "Pad", "Slice", "InstanceNormalization"))
    for _ in range(2):
        x = g.activation(x, "Tanh")
        if kind == "LRN":
            x = g.add("LRN", [x], x.dims, size=5)
        elif kind == "Resize":
            dims = (1, width, 2 * x.dims[2], 2 * x.dims[3])
            mode = _one_of(rng, ("nearest", "linear"))
            x = g.add("Resize", [x, "", g.constant(np.array([1, 1, 2, 2], np.float32))], dims, mode=mode)
        elif kind == "ConvTranspose" and width * width * x.dims[2] ** 2 < 3e7:
            dims = (1, width, 2 * x.dims[2], 2 * x.dims[3])
            weight = g.weights(width, width, 2, 2, scale=0.5 / math.sqrt(width))
            x = g.add("ConvTranspose", [x, weight], dims, kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "reduction":
            axes = g.constant(np.array([1] if rng.random() < 0.5 else [2, 3], np.int64))
            one = g.add(_one_of(rng, _REDUCTIONS), [x, axes], x.dims, keepdims=1)
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


def eight_bits(rng: np.random.Generator) -> bytes:
    """Convolutions of 8-bit integers: dense, depthwise and 1×1, with residuals and activations that stay float."""
    width, side = _map(rng, 8, 512, 4e5)
    kind = _one_of(rng, ("conv", "pointwise", "separable", "separable", "gated"))
    g = GraphBuilder(rng)
    x = g.quantised(g.quantised_conv(g.quantised(g.image(1, 3, side, side)), width, 3))
    for _ in range(3):
        before = x
        if kind == "conv" and width * width * side * side < 2e7:
            x = _eight_bit_relu(g, g.quantised_conv(x, width, 3))
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
    """Weights that fill caches and more: at every inference they come from memory."""
    wanted = log_uniform(rng, 1e6, 8e7) / 4
    kernel, width, side = int(rng.choice([1, 1, 3])), channels(rng, 192, 1024, 16), int(rng.choice([2, 4, 7]))
    g = GraphBuilder(rng)
    x = g.image(1, width, side, side)
    for _ in range(max(2, min(40, int(wanted / (width * width * kernel**2))))):
        x = g.activation(g.conv(x, width, kernel), "Relu")
    return g.model(g.classifier(x, _whole(rng, 10, 1000)))


def tiny(rng: np.random.Generator) -> bytes:
    """Next to nothing: what the call and each kernel take at least."""
    width, side = int(rng.choice([4, 8, 16])), int(rng.choice([1, 2, 3]))
    g = GraphBuilder(rng)
    x: Tensor = g.image(1, width, side, side)
    for _ in range(int(rng.choice([1, 2, 4, 8]))):
        x = g.activation(x, _one_of(rng, ("Relu", "Tanh")))
    return g.model(g.reshape(x, 1, width * side * side))


FAMILIES: tuple[tuple[Family, int], ...] = (
    (convolutions, 80),
    (pointwise, 80),
    (separable, 70),
    (first, 30),
    (few_channels, 20),
    (excitation, 25),
    (activations, 50),
    (elementwise, 60),
    (residual, 25),
    (branches, 25),
    (dense, 15),
    (affine, 15),
    (shuffled, 20),
    (grouped, 40),
    (open_convolutions, 45),
    (heads, 15),
    (layouts, 15),
    (vectors, 25),
    (matrices, 25),
    (pools, 30),
    (others, 45),
    (eight_bits, 40),
    (heavy, 20),
    (tiny, 10),
)
"""Each family with the number of graphs that are drawn from it."""
