"""The graph that ONNX Runtime runs on a CPU, as far as the memory of activations depends on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.graph.blocked_layout import Values, blocked_steps
from latency_models.graph.fused_sums import fuse_sums
from latency_models.graph.fusion import fused_steps
from latency_models.graph.steps import Step, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.graph.shapes import Shapes

BLOCK = 16
"""Channels of a block where the processor has AVX-512; 8 with AVX2 or NEON; 1 stands for the plain layout."""


@dataclass(frozen=True)
class RuntimeGraph:
    """The kernels in running order, and the shape and bytes of each value in memory."""

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    n_bytes: dict[str, int]


def runtime_graph(shapes: Shapes, block: int = BLOCK) -> RuntimeGraph:
    """The graph as ONNX Runtime's CPU provider runs it, with a layout in blocks of `block` channels.

    Raises:
        UnknownShapeError: the shape of an activation can't be inferred.
    """
    steps = fused_steps(shapes)
    values = _values(shapes, steps)
    if block > 1:
        steps = blocked_steps(shapes, in_order(steps), values, block)
        steps = fuse_sums(shapes, steps, values)
    return RuntimeGraph(
        steps=tuple(in_order(steps)),
        inputs=shapes.inputs,
        outputs=shapes.outputs,
        shapes=values.dims,
        n_bytes={name: values.item_bytes[name] * math.prod(dims) for name, dims in values.dims.items()},
    )


def _values(shapes: Shapes, steps: Sequence[Step]) -> Values:
    """Shapes and element sizes; a value that isn't in the file has those of its node's result."""
    source = {name: name for name in shapes.inputs}
    for step in steps:
        for name in step.outputs:
            source[name] = name if name in shapes.elem_types or name in shapes.dims else step.node.output[0]
    return Values(
        dims={name: shapes.of(like) for name, like in source.items()},
        item_bytes={name: shapes.n_bytes(like) // max(1, shapes.elements(like)) for name, like in source.items()},
    )
