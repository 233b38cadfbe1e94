"""Sums that ONNX Runtime folds into convolutions outside the blocked layout (`ConvAddActivationFusion`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from latency_models.graph.steps import LAST, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.graph.blocked_layout import Values
    from latency_models.graph.shapes import Shapes

_ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"})
_RANK = 4
_BIAS = 2


def fuse_sums(shapes: Shapes, steps: Sequence[Step], values: Values) -> list[Step]:
    """Let plain convolutions with a bias add their result onto the other operand of a sum, and activate it."""
    found: list[Step | None] = list(steps)
    uses = Counter(name for step in steps for name in step.inputs)
    uses.update(shapes.outputs)
    maker = {name: at for at, step in enumerate(steps) for name in step.outputs}
    reader = {name: at for at, step in enumerate(steps) for name in step.inputs}
    for at, step in enumerate(steps):
        if not _is_sum(step, values):
            continue
        for source, other in (step.inputs, step.inputs[::-1]):
            conv = found[maker[source]] if source in maker else None
            if conv is None or uses[source] != 1 or not _is_plain(conv, shapes):
                continue
            result, activation = step.outputs, reader.get(step.outputs[0])
            then = None if activation is None or uses[result[0]] != 1 else found[activation]
            if then is not None and then.op_type in _ACTIVATIONS and len(then.inputs) == 1:
                assert activation is not None
                result, found[activation] = then.outputs, None
            fused = replace(conv, inputs=(*conv.inputs, other), outputs=result, age=(LAST, len(steps) + at))
            found[maker[source]], found[at] = None, replace(fused, activated=True, added=True)
            break
    return [step for step in found if step is not None]


def _is_sum(step: Step, values: Values) -> bool:
    if step.op_type != "Add" or len(step.inputs) != 2:
        return False
    one, other = (values.dims[name] for name in step.inputs)
    return one == other and len(one) == _RANK


def _is_plain(step: Step, shapes: Shapes) -> bool:
    """Whether the step is a convolution in the plain layout, with a bias and nothing fused behind it."""
    if step.op_type != "Conv" or step.activated or step.added or step.node.op_type != "Conv":
        return False
    folded = step.outputs[0] != step.node.output[0]  # a batch normalisation became its weights and bias
    return (folded or len(step.node.input) > _BIAS) and step.outputs[0] in shapes.dims
