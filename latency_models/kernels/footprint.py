"""Where a kernel's data come from: from the caches near the core, from the last one, or from memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.predictors.operators import Operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.optimised_graph import Kernel, OptimisedGraph, Value

MATRIX, VECTOR = "matrix", "vector"
_NEAR_BYTES = 500_000  # caches near one core
_LAST_BYTES = (1.2e7, 3.6e7)  # what a last cache keeps from one inference to the next: a small, and a large one
_STEEPNESS = 3
_USES_THAT_HIDE = 24.0  # so many products with a weight take about as long as its way from memory
_LEAST_MB = 0.01
_LOOKED_UP = frozenset({"Gather", "GatherElements", "GatherND"})


@dataclass(frozen=True)
class Footprint:
    """The bytes that one inference touches: all weights that are read, and the most that is alive between kernels.

    An inference reads its weights in turn. If all that it touches fits into the last cache, they are still there when
    the next inference begins; else the one before has displaced them.
    """

    n_bytes: float

    @classmethod
    def of(cls, graph: OptimisedGraph) -> Footprint:
        """The footprint of a graph's inference."""
        return cls(_weights_read(graph) + _most_alive(graph))

    def waited(self, reader: str, n_bytes: float, uses: float = 1.0) -> Iterable[Operator]:
        """The wait for weights that come from memory, as an operator of its own; none where there are next to none.

        Args:
            reader: the kernels that read weights in the same order; some orders are foreseen by the processor.
            n_bytes: of the weights.
            uses: how often each of them is multiplied; the more often, the longer are the products that the next ones
                arrive behind.
        """
        small, large = (
            self.n_bytes**_STEEPNESS / (self.n_bytes**_STEEPNESS + size**_STEEPNESS) for size in _LAST_BYTES
        )
        exposed = 1.0 / (1.0 + uses / _USES_THAT_HIDE)
        amounts = tuple(n_bytes / 1e6 * share for share in (exposed * small, exposed * large, large))
        if n_bytes / 1e6 * small > _LEAST_MB:
            yield Operator(f"{reader} from memory", (n_bytes, max(uses, 1.0)), amounts)


def beyond_near_mb(n_bytes: float) -> float:
    """MB of `n_bytes` that don't fit into the caches near the core: near 0 if it is small, near all if large."""
    return n_bytes**2 / (n_bytes + _NEAR_BYTES) / 1e6


def moved_mb(kernel: Kernel) -> float:
    """MB of a kernel's activations, inputs and outputs, that don't fit into the caches near the core."""
    moved = sum(value.n_bytes for value in (*kernel.inputs, *kernel.outputs) if value is not None and not value.stored)
    return beyond_near_mb(moved)


def _weights_read(graph: OptimisedGraph) -> float:
    """Bytes of the weights; of a table only the rows that are looked up."""
    read: dict[str, float] = {}
    for kernel in graph.kernels:
        for at, value in enumerate(kernel.inputs):
            if value is None or not value.stored:
                continue
            rows = kernel.op_type in _LOOKED_UP and at == 0
            n_bytes = min(value.n_bytes, kernel.outputs[0].n_bytes) if rows else value.n_bytes
            read[value.name] = max(read.get(value.name, 0.0), n_bytes)
    return sum(read.values())


def _most_alive(graph: OptimisedGraph) -> float:
    """The most bytes of values that are alive at once, each from its kernel to its last reader."""
    last_read = {
        value.name: at for at, kernel in enumerate(graph.kernels) for value in kernel.inputs if value is not None
    }
    alive: dict[str, Value] = {}
    most = 0.0
    for at, kernel in enumerate(graph.kernels):
        touched = [value for value in (*kernel.inputs, *kernel.outputs) if value is not None and not value.stored]
        alive.update((value.name, value) for value in touched)
        most = max(most, float(sum(value.n_bytes for value in alive.values())))
        for value in touched:
            if last_read.get(value.name, at) <= at:
                alive.pop(value.name, None)
    return most
