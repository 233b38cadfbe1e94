"""The work of elementwise kernels, of reductions and of norms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from latency_models.kernels.element_types import type_word
from latency_models.kernels.footprint import moved_mb
from latency_models.kernels.kernel_values import largest, positive
from latency_models.predictors.operators import Operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.kernel_values import Rule
    from latency_models.kernels.optimised_graph import Kernel

OF_SEVERAL = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Pow", "Mod", "PRelu", "Where", "And", "Or", "Xor",
        "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "QLinearAdd", "QLinearMul", "BiasAdd", "BiasGelu",
        "FastGelu", "DequantizeLinear", "QuantizeLinear",
    }
)  # fmt: skip
"""Elementwise operators of several operands, one of which may be stored."""
_OF_ROWS = frozenset(
    {"BiasAdd", "BiasGelu", "FastGelu", "QLinearAdd", "QLinearMul", "DequantizeLinear", "QuantizeLinear"}
)
_REPEATING = OF_SEVERAL - _OF_ROWS
_ROW_NORMS = (
    "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
    "RMSNormalization",
)  # fmt: skip


def elementwise(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """An elementwise operator; an operand of another shape is a number, or repeated over some dimensions."""
    value = largest(kernel)
    kind = type_word(kernel) + kernel.op_type
    sizes: tuple[float, ...] = (positive(value.elements),)
    work = (value.elements / 1e6, moved_mb(kernel))
    others = [each for each in kernel.inputs if each is not None]
    if kernel.op_type in _REPEATING and len(others) > 1:
        least = min(each.elements for each in others)
        if least == 1:
            kind += " number"
        elif least < value.elements:
            run = _run([each.dims for each in others], kernel.outputs[0].dims)
            yield Operator(f"{kind} channels", (*sizes, positive(run)), (*work, value.elements / positive(run) / 1e6))
            return
    yield Operator(kind, sizes, work)


def _run(operands: Sequence[Sequence[int]], result: Sequence[int]) -> int:
    """The number of neighbours of the result that are computed in one go: as long as the same operands are repeated."""
    padded = [(1,) * (len(result) - len(dims)) + tuple(dims) for dims in operands]
    run, pattern = 1, None
    for at in reversed(range(len(result))):
        if result[at] == 1:
            continue
        here = tuple(dims[at] == 1 for dims in padded)
        if pattern is not None and here != pattern:
            break
        pattern = here
        run *= result[at]
    return run


def _reduction(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    value, out = largest(kernel), kernel.outputs[0]
    inner = out.elements > 1 and out.dims[-1:] == value.dims[-1:]
    kind = f"{type_word(kernel)}{kernel.op_type}{' across' if inner else ''}"
    yield Operator(kind, (positive(value.elements),), (value.elements / 1e6, out.elements / 1e6))


def _rows(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """Softmax and norms: a cost for each element and for each row."""
    value = kernel.outputs[0]
    rank = max(1, len(value.dims))
    axis = int(kernel.attributes.get("axis", -1)) % rank
    across = axis < rank - 1 and kernel.op_type not in _ROW_NORMS and math.prod(value.dims[axis + 1 :]) > 1
    columns = max(1, math.prod(value.dims[axis:]) if kernel.op_type in _ROW_NORMS else value.dims[axis])
    rows = max(1, value.elements // columns)
    kind = f"{type_word(kernel)}{kernel.op_type}{' across' if across else ''}"
    yield Operator(kind, (positive(rows), positive(columns)), (value.elements / 1e6, rows / 1e6))


RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("Softmax LogSoftmax QLinearSoftmax Hardmax", _rows),
        (" ".join(_ROW_NORMS), _rows),
        ("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare", _reduction),
        ("ReduceLogSumExp ReduceLogSum ArgMax ArgMin CumSum", _reduction),
    )
    for name in names.split()
}
"""Operator type → its rule."""
