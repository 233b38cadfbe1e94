"""The kernels of a runtime's graph, and the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

# Ages of kernels, which decide their order: in the file, written out, fused, blocked, copies out of the layout.
FILE, WRITTEN_OUT, FUSED, BLOCKED, LAST = range(5)


@dataclass(frozen=True)
class Step:
    """One kernel of the runtime's graph.

    Attributes:
        op_type: the kernel's operator.
        inputs: names of the values that it reads; constants are left out.
        outputs: names.
        age: `FILE` to `LAST`, and a number within that.
        node: its origin in the file.
        activated: an activation was fused into it.
        added: it adds its result onto its last input.
    """

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    age: tuple[int, int]
    node: onnx.NodeProto
    activated: bool = False
    added: bool = False


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Sort steps into the order in which ONNX Runtime runs them (`GraphViewer`, default order).

    Depth first from the results to the inputs; of the makers of a step's inputs the youngest comes first.
    """
    found = sorted(steps, key=lambda step: step.age)
    maker = {name: at for at, step in enumerate(found) for name in step.outputs}
    read = {name for step in found for name in step.inputs}
    stack = [(at, False) for at, step in enumerate(found) if not read.intersection(step.outputs)]
    seen: set[int] = set()
    order: list[Step] = []
    while stack:
        at, left = stack.pop()
        if left:
            order.append(found[at])
        elif at not in seen:
            seen.add(at)
            stack.append((at, True))
            makers = sorted({maker[name] for name in found[at].inputs if name in maker})
            stack.extend((each, False) for each in makers if each not in seen)
    return order
