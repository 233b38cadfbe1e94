"""The work of recurrent layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.kernels.element_types import type_word
from latency_models.kernels.footprint import MATRIX, VECTOR, beyond_near_mb
from latency_models.kernels.kernel_values import given, positive
from latency_models.predictors.operators import Operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.kernel_values import Rule
    from latency_models.kernels.optimised_graph import Kernel


def _recurrent(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """A product of all inputs with their weights at once, then one of the state with its weights at each step."""
    inputs, weights, recurrent = (given(kernel, at) for at in range(3))
    directions, rows, hidden = recurrent.dims
    steps, batch = inputs.dims[0], inputs.dims[1]
    if kernel.attributes.get("layout"):
        steps, batch = batch, steps
    turns = directions * steps * batch
    again_mb = directions * steps * beyond_near_mb(recurrent.n_bytes / max(1, directions))
    amounts = (
        turns * rows * weights.dims[2] / 1e6,
        turns * rows * hidden / 1e6,
        directions * steps / 1e3,
        turns * rows / 1e6,
        again_mb,
    )
    sizes = tuple(map(positive, (steps, weights.dims[2], hidden, batch)))
    yield Operator(type_word(kernel) + kernel.op_type, sizes, amounts)
    yield from footprint.waited(MATRIX, weights.n_bytes, steps * batch)
    yield from footprint.waited(VECTOR, recurrent.n_bytes)


RULES: dict[str, Rule] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
"""Operator type → its rule."""
