"""Peak memory of the activations, by the plan that ONNX Runtime makes for a graph on a CPU.

`runtime_graph` gives the kernels, their order and their layout. This file assigns a buffer to each value, like ONNX
Runtime's `allocation_planner.cc`: a view shares its input's; some kernels write over an input that nobody needs
any more; else the buffer that died last among those of exactly the same shape is taken again, and held from then on;
else a new one. Memory that a kernel takes only while it runs isn't counted, nor are weights.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from latency_models.graph.runtime_graph import BLOCK, RuntimeGraph, runtime_graph

if TYPE_CHECKING:
    from latency_models.graph.shapes import Shapes
    from latency_models.graph.steps import Step

# The result is the input's own memory under another shape or name.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
# Kernels of ONNX Runtime's CPU provider that may write over their input. Arithmetic isn't among them.
_IN_PLACE = frozenset(
    {
        "Celu", "Clip", "Elu", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Softmax",
        "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip


def peak_bytes(shapes: Shapes, block: int = BLOCK) -> int:
    """The most bytes that activations take at one time, as ONNX Runtime's CPU provider plans them.

    An input counts until its last use, an output to the end, weights not at all. `block` is the number of channels
    in a block of the runtime's own layout: 16 with AVX-512, 8 with AVX2 or NEON, 1 for runtimes without one. By
    default it is the same on every machine, so that the figure doesn't depend on the machine that counts.

    Raises:
        UnknownShapeError: the shape of an activation can't be inferred.
    """
    return max(_Plan(runtime_graph(shapes, block)).held_bytes(), default=0)


class _Plan:
    """Assigns values to buffers. A buffer has the name of its first value."""

    def __init__(self, graph: RuntimeGraph) -> None:
        self._graph = graph
        self._uses = Counter(name for step in graph.steps for name in step.inputs)
        self._uses.update(graph.outputs)  # never used up, so held to the end
        self._buffer = {name: name for name in graph.inputs}
        self._uses_left = Counter({name: self._uses[name] for name in graph.inputs})
        self._dead: list[str] = []  # the latest last
        self._last_use: dict[str, int] = {}
        self._last_value: dict[str, str] = {}

    def held_bytes(self) -> list[int]:
        """Bytes held while each step runs, one number a step."""
        for at, step in enumerate(self._graph.steps):
            for output in step.outputs:
                self._place(step, output)
            for name in (*step.inputs, *step.outputs):
                self._last_use[self._buffer[name]] = at
            self._release(step)
        return self._replayed()

    def _place(self, step: Step, output: str) -> None:
        if output in self._graph.outputs or not self._uses[output]:
            taken = output
        elif step.op_type in _VIEWS and step.inputs:
            taken = self._buffer[step.inputs[0]]
        else:
            taken = self._of_input(step, output) or self._of_the_dead(output) or output
        self._buffer[output] = taken
        self._last_value[taken] = output
        self._uses_left[taken] += self._uses[output]

    def _of_input(self, step: Step, output: str) -> str | None:
        """The buffer of an input that the result may overwrite: the one it is added to, or the only operand."""
        operand = -1 if step.added else 0
        if not step.inputs or not (step.added or step.op_type in _IN_PLACE):
            return None
        name = step.inputs[operand]
        buffer = self._buffer[name]
        usable = buffer not in self._graph.inputs and self._uses_left[buffer] == 1
        return buffer if usable and self._alike(name, output) else None

    def _of_the_dead(self, output: str) -> str | None:
        for buffer in reversed(self._dead):
            if self._graph.shapes[output] and self._alike(buffer, output):
                self._dead.remove(buffer)
                return buffer
        return None

    def _alike(self, one: str, other: str) -> bool:
        graph = self._graph
        return graph.shapes[one] == graph.shapes[other] and graph.n_bytes[one] == graph.n_bytes[other]

    def _release(self, step: Step) -> None:
        for name in step.inputs:
            buffer = self._buffer[name]
            self._uses_left[buffer] -= 1
            if self._uses_left[buffer] == 0 and buffer not in self._graph.inputs:
                self._dead.append(buffer)
        self._dead += [self._buffer[name] for name in step.outputs if self._uses_left[self._buffer[name]] == 0]

    def _replayed(self) -> list[int]:
        """Bytes held at each step: a buffer exists from its first value to the last use of its last value."""
        n_bytes = self._graph.n_bytes
        kept = {self._buffer[name] for name in self._graph.outputs}
        # What nobody reads is released by no reader: its buffer is free for others, but is held to the end.
        kept |= {buffer for buffer, name in self._last_value.items() if not self._uses[name]}
        held = sum(n_bytes[name] for name in self._graph.inputs if self._uses[name])
        there = set(self._graph.inputs)
        series = [held]
        for at, step in enumerate(self._graph.steps):
            made = {self._buffer[name] for name in step.outputs} - there
            there |= made
            held += sum(n_bytes[buffer] for buffer in made)
            series.append(held)
            used = {self._buffer[name] for name in (*step.inputs, *step.outputs)} - kept
            held -= sum(n_bytes[buffer] for buffer in used if self._last_use[buffer] == at)
        return series
