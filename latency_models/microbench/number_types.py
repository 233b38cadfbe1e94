"""Micro-benchmarks with other numbers than float32: wider, narrower and whole ones."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import channels, choice, log_int, map_size
from latency_models.microbench.transformers import attended

_INTEGERS = (TensorProto.INT64, TensorProto.INT64, TensorProto.INT32)


def doubles(rng: np.random.Generator) -> bytes:
    """Layers of float64 numbers: of one vector or many rows, activations, attention."""
    kind = choice(rng, ("vector", "vector", "rows", "rows", "attention", "elementwise"))
    g = GraphBuilder(rng, numbers=np.float64)
    if kind == "elementwise":
        width, side = map_size(rng, 4, 256, 2e5)
        x = y = g.image(1, width, side, side)
        op_type = choice(rng, ("Add", "Mul", "Sub", "Div"))
        for _ in range(2):
            y = g.activation(g.binary(op_type, y, g.weights(width, 1, 1)), choice(rng, ("Tanh", "Relu", "Sigmoid")))
            y = g.binary(choice(rng, ("Add", "Mul")), g.activation(y, choice(rng, ("Exp", "Sqrt", "Abs"))), x)
        return g.model(g.transpose(y, 0, 2, 3, 1) if rng.random() < 0.5 else g.reduce("ReduceMean", y, [2, 3]))
    before, after = log_int(rng, 8, 1500), log_int(rng, 8, 1500)
    count = 1 if kind == "vector" else log_int(rng, 2, 300)
    while count * before * after > 5e7:
        before, count = log_int(rng, 8, 1000), 1 if kind == "vector" else log_int(rng, 2, 100)
    if kind == "attention":
        parts = int(rng.choice([1, 2, 4]))
        width = parts * int(rng.choice([16, 32]))
        x = g.image(1, min(count, 100), width)
        x = g.binary("Add", x, g.linear(attended(g, g.norm(x), parts, "three"), width))
        return g.model(g.linear(g.activation(g.linear(x, 2 * width), "Relu"), width))
    x = g.image(count, before)
    for at in range(2 if count * before * after > 2e6 else 4):
        x = g.activation(g.gemm(x, before if at % 2 else after), choice(rng, ("Relu", "Tanh", "Sigmoid")))
    return g.model(g.add("Softmax", [x], x.dims, axis=-1))


def halves(rng: np.random.Generator) -> bytes:
    """Layers of float16 numbers, which a processor without such kernels converts to and fro."""
    g = GraphBuilder(rng, numbers=np.float16)
    kind = choice(rng, ("convolutions", "convolutions", "rows", "attention"))
    if kind == "convolutions":
        width, side = map_size(rng, 8, 256, 2e5)
        x = g.image(1, 8, side, side)
        for _ in range(3):
            x = g.activation(g.conv(x, width, 3 if width**2 * side**2 < 5e6 else 1), choice(rng, ("Relu", "Tanh")))
            x = g.binary("Add", g.conv(x, width), x)
        return g.model(g.global_pool(x))
    width, count = channels(rng, 16, 256, 16), log_int(rng, 1, 200)
    if kind == "rows":
        x = g.image(count, width)
        for _ in range(3):
            x = g.activation(g.gemm(x, width), choice(rng, ("Relu", "Sigmoid")))
        return g.model(g.add("Softmax", [x], x.dims, axis=-1))
    x = g.image(1, max(2, count), width)
    x = g.binary("Add", x, g.linear(attended(g, g.norm(x), 4, "three"), width))
    return g.model(g.linear(g.activation(g.linear(x, 2 * width), "Gelu"), width))


def whole_numbers(rng: np.random.Generator) -> bytes:
    """Arithmetic of integers and comparisons, conversions, choices between values."""
    elem_type = int(rng.choice(_INTEGERS))
    dtype = np.int64 if elem_type == TensorProto.INT64 else np.int32
    rows, columns = log_int(rng, 1, 300), log_int(rng, 8, 1000)
    g = GraphBuilder(rng)
    x = g.input(elem_type, rows, columns)
    row = g.constant(rng.integers(1, 9, (1, columns)).astype(dtype))
    full = g.constant(rng.integers(1, 9, (rows, columns)).astype(dtype))
    y = g.binary(choice(rng, ("Add", "Sub", "Mul")), x, g.constant(np.array(3, dtype)))
    y = g.binary(choice(rng, ("Add", "Sub", "Mul")), y, row)
    y = g.binary(choice(rng, ("Add", "Sub", "Mul")), y, full)
    other = choice(rng, ("number", "row", "full"))
    operand = {"number": g.constant(np.array(2, dtype)), "row": row, "full": full}[other]
    met = g.add(choice(rng, ("Greater", "Less", "Equal")), [y, operand], y.dims, elem_type=TensorProto.BOOL)
    met = g.add("Not", [met], met.dims)
    if rng.random() < 0.5:
        again = g.add("Less", [x, full], x.dims, elem_type=TensorProto.BOOL)
        met = g.add(choice(rng, ("And", "Or")), [met, again], met.dims)
    floats = g.cast(y, TensorProto.FLOAT)
    values: dict[int, Tensor | str] = {0: g.number(0.0), 1: g.weights(1, columns), 2: floats}
    chosen = g.add("Where", [met, floats, values[int(rng.integers(3))]], x.dims, elem_type=TensorProto.FLOAT)
    if rng.random() < 0.5:
        marked = g.add("Where", [met, y, row], x.dims, elem_type=elem_type)
        return g.model(chosen, g.add("Concat", [marked, x], (2 * rows, columns), axis=0))
    return g.model(chosen, g.cast(met, int(rng.choice([TensorProto.FLOAT, TensorProto.INT64]))))


def eight_bit_products(rng: np.random.Generator) -> bytes:
    """Layers of 8-bit integers: quantised beforehand, or at each inference."""
    count = log_int(rng, 1, 300) if rng.random() < 0.6 else 1
    before, after = log_int(rng, 16, 1024), log_int(rng, 16, 1024)
    while count * before * after > 6e7:
        count = log_int(rng, 1, 100)
    g = GraphBuilder(rng)
    kind = choice(rng, ("beforehand", "beforehand", "at each", "gemm", "attention"))
    if kind == "attention":
        return _quantised_attention(g, count)
    x = g.image(count, before)
    if kind != "at each":
        x = g.quantised(x)
    for at in range(4 if count * before * after < 4e6 else 2):
        wide = before if at % 2 else after
        x = _at_each(g, x, wide) if kind == "at each" else _beforehand(g, x, wide, gemm=kind == "gemm")
    return g.model(x)


def _beforehand(g: GraphBuilder, x: Tensor, after: int, *, gemm: bool) -> Tensor:
    weights = g.quantised_weights(x.dims[-1], after)
    dims = (*x.dims[:-1], after)
    if not gemm:
        return g.quantised(g.add("MatMul", [x, weights], dims))
    factor = g.constant(np.array(0.05 * math.sqrt(1.0 / x.dims[-1]) / 73.0, np.float32))
    integers = g.constant(g.rng.integers(-99, 99, after).astype(np.int32))
    zero = g.constant(np.array(0, np.int32))
    bias = g.add("DequantizeLinear", [integers, factor, zero], (after,), elem_type=TensorProto.FLOAT)
    y = g.add("Gemm", [x, weights, bias], dims)
    return g.quantised(g.activation(y, "Relu"), signed=False)


def _at_each(g: GraphBuilder, x: Tensor, after: int) -> Tensor:
    """A layer whose input is quantised with the range that it happens to have."""
    integers, scale, zero = g.add_several("DynamicQuantizeLinear", [x], [x.dims, (), ()], elem_type=TensorProto.UINT8)
    weights = g.constant(g.rng.integers(-127, 128, (x.dims[-1], after)).astype(np.int8))
    wzero = g.constant(np.array(0, np.int8))
    dims = (*x.dims[:-1], after)
    y = g.add("MatMulInteger", [integers, weights, zero, wzero], dims, elem_type=TensorProto.INT32)
    both = g.add("Mul", [scale, g.number(0.01 / math.sqrt(x.dims[-1]))], (), elem_type=TensorProto.FLOAT)
    y = g.binary("Mul", g.cast(y, TensorProto.FLOAT), both)
    return g.activation(g.binary("Add", y, g.weights(after, scale=0.1)), "Relu")


def _quantised_attention(g: GraphBuilder, count: int) -> bytes:
    parts = int(g.rng.choice([1, 2, 4]))
    size = int(g.rng.choice([16, 32, 64]))
    tokens, width = max(2, min(count, 128)), parts * size
    x = g.quantised(g.image(1, tokens, width))
    q, k, v = (
        g.transpose(g.reshape(_beforehand(g, x, width, gemm=False), 1, tokens, parts, size), 0, 2, 1, 3)
        for _ in range(3)
    )
    scores = g.quantised(g.transposed_matmul(q, k))
    scores = g.quantised(g.add("Softmax", [scores], scores.dims, axis=-1), signed=False)
    mixed = g.reshape(g.transpose(g.quantised(g.matmul(scores, v)), 0, 2, 1, 3), 1, tokens, width)
    return g.model(g.quantised(g.binary("Add", _beforehand(g, mixed, width, gemm=False), x)))


def bookkeeping(rng: np.random.Generator) -> bytes:
    """Small integers that say which shape a value is to have, computed at each inference."""
    width, side = int(rng.choice([4, 8, 16])), int(rng.choice([1, 2, 4]))
    g = GraphBuilder(rng)
    x, given = g.image(1, width, side, side), g.input(TensorProto.INT64, 1)
    one = g.constant(np.array([1], np.int64))
    for _ in range(int(rng.choice([2, 4, 8]))):
        first = g.add("Add", [given, one], (1,))
        first = g.add("Mul", [g.add("Gather", [first, g.constant(np.array([0], np.int64))], (1,)), one], (1,))
        sizes = g.add("Concat", [first, g.constant(np.array([width, -1], np.int64))], (3,), axis=0)
        flat = g.add("Reshape", [x, sizes], (1, width, side * side))
        back = g.add("Concat", [first, g.constant(np.array([width, side, -1], np.int64))], (4,), axis=0)
        x = g.activation(g.add("Reshape", [flat, back], x.dims), "Relu" if rng.random() < 0.5 else "Tanh")
    return g.model(x)
