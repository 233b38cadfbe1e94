"""Micro-benchmarks of sequences: recurrent layers, texts, signals."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.microbench.sizes import channels, choice, log_int

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(rng: np.random.Generator) -> bytes:
    """One or two recurrent layers, in one direction or both."""
    kind, ways = choice(rng, ("LSTM", "LSTM", "GRU", "GRU", "RNN")), int(rng.choice([1, 1, 2]))
    steps, width, hidden = log_int(rng, 4, 200), log_int(rng, 8, 512), log_int(rng, 8, 512)
    while ways * steps * hidden * (hidden + width) * _GATES[kind] > 1e8:
        steps, hidden = log_int(rng, 4, 100), log_int(rng, 8, 512)
    g = GraphBuilder(rng)
    x = g.image(steps, 1, width)
    for _ in range(int(rng.choice([1, 2]))):
        x = _recurrent(g, kind, x, hidden, ways)
    return g.model(x)


def _recurrent(g: GraphBuilder, kind: str, x: Tensor, hidden: int, ways: int) -> Tensor:
    steps, batch, width = x.dims
    rows, scale = _GATES[kind] * hidden, 0.5 / hidden**0.5
    weights = [g.weights(ways, rows, width, scale=0.5 / width**0.5), g.weights(ways, rows, hidden, scale=scale)]
    settings: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if ways == 2 else "forward"}
    if kind == "GRU":
        settings["linear_before_reset"] = int(g.rng.choice([0, 1, 1]))
    y = g.add(kind, [x, *weights, g.weights(ways, 2 * rows, scale=0.1)], (steps, ways, batch, hidden), **settings)
    return g.reshape(g.transpose(y, 0, 2, 1, 3), steps, batch, ways * hidden)


def unrolled(rng: np.random.Generator) -> bytes:
    """A recurrent cell written out step by step: hundreds of small kernels, whose sums are apart or in the products."""
    steps, width, hidden = log_int(rng, 4, 40), log_int(rng, 8, 128), log_int(rng, 8, 160)
    act, rank = choice(rng, ("Tanh", "Sigmoid")), int(rng.choice([2, 3]))
    g = GraphBuilder(rng, apart=rank == 3)
    weight = g.weights(hidden, hidden, scale=0.5 / hidden**0.5)
    start = g.image(steps, width) if rank == 2 else g.image(1, steps, width)
    one = (1, hidden) if rank == 2 else (1, 1, hidden)
    mixed = g.linear(start, hidden)
    parts = g.add_several("Split", [mixed], [one] * steps, axis=rank - 2, num_outputs=steps)
    state = parts[0]
    for each in parts[1:]:
        again = g.add("MatMul", [state, weight], one)
        if rank == 3:
            again = g.binary("Add", again, g.weights(1, 1, hidden, scale=0.1))
        state = g.activation(g.binary("Add", each, again), act)
    return g.model(state)


def texts(rng: np.random.Generator) -> bytes:
    """Rows of a table looked up by numbers, with positions added, normalised and pooled."""
    tokens, width, words = log_int(rng, 4, 512), channels(rng, 16, 512), log_int(rng, 100, 20000)
    g = GraphBuilder(rng)
    numbers = g.input(TensorProto.INT64, 1, tokens)
    table = g.weights(words, width)
    x = g.add("Gather", [table, numbers], (1, tokens, width), elem_type=TensorProto.FLOAT, axis=0)
    x = g.norm(g.binary("Add", x, g.weights(1, tokens, width, scale=0.1)))
    if rng.random() < 0.5:  # no token where the number is 0
        empty = g.add("Equal", [numbers, g.constant(np.array(3, np.int64))], numbers.dims, elem_type=TensorProto.BOOL)
        empty = g.reshape(empty, 1, tokens, 1)
        x = g.add("Where", [empty, g.number(0.0), x], x.dims, elem_type=TensorProto.FLOAT)
    x = g.activation(g.linear(x, width), choice(rng, ("gelu-tanh", "Gelu", "Relu")))
    kind = choice(rng, ("mean", "last", "first", "signal"))
    if kind == "mean":
        return g.model(g.gemm(g.reduce("ReduceMean", x, [1], keep=False), 10))
    if kind == "signal":
        y = g.activation(g.conv1d(g.transpose(x, 0, 2, 1), width, int(rng.choice([3, 4, 5]))), "Relu")
        return g.model(g.gemm(g.reduce("ReduceMax", y, [2], keep=False), 10))
    at = g.constant(np.array(0 if kind == "first" else tokens - 1, np.int64))
    return g.model(g.gemm(g.add("Gather", [x, at], (1, width), axis=1), 10))


def signals(rng: np.random.Generator) -> bytes:
    """Convolutions along one axis: dense, depthwise, and 1 wide."""
    width, length = log_int(rng, 4, 256), log_int(rng, 8, 4000)
    while width * width * length > 4e7:
        length = log_int(rng, 8, 1000)
    kernel = int(rng.choice([1, 3, 3, 5, 9, 25]))
    groups = width if rng.random() < 0.3 else 1
    g = GraphBuilder(rng)
    x = g.image(1, int(rng.choice([1, 2, width])), length)
    x = g.conv1d(x, width, int(rng.choice([3, 9, 25])), int(rng.choice([1, 2, 4])))
    for _ in range(3):
        stride = 2 if rng.random() < 0.3 and x.dims[2] > 2 * kernel else 1
        x = g.activation(g.conv1d(x, width, kernel, stride, groups), choice(rng, ("Relu", "Relu", "Tanh", "")))
        x = g.conv1d(x, width, 1) if groups > 1 else x
    return g.model(g.add("GlobalAveragePool", [x], (1, width, 1)))
