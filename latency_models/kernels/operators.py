"""ONNX Runtime's kernels as operators of a cost model: a kind, sizes, and amounts of work each.

The amounts follow the kernels of MLAS, the library of matrix products and convolutions inside ONNX Runtime:
blocks of 16 channels, up to four of which are computed at once from one read of the input; a call for each row of an
output; a copy where the layout changes. A kind begins with the type of its numbers, unless that is float32.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING

from latency_models.kernels import convolution_work, elementwise_work, movement_work, product_work, recurrent_work
from latency_models.kernels.element_types import is_float
from latency_models.kernels.footprint import Footprint
from latency_models.kernels.kernel_values import NotPredictableError
from latency_models.predictors.operators import Operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.optimised_graph import Kernel, OptimisedGraph


__all__ = ["CALL", "KERNEL", "NotPredictableError", "operators_of"]

CALL, KERNEL = "call", "kernel"
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size"})
_FEW = 64
_UNKNOWN = frozenset(
    {
        "NonMaxSuppression", "DFT", "STFT", "GroupQueryAttention", "PagedAttention", "MoE", "QMoE", "QAttention",
        "DynamicQuantizeLSTM", "AttnLSTM", "DeformConv", "If", "Loop", "Scan",
    }
)  # fmt: skip
_SETTINGS = 256
_RULES = ChainMap(
    convolution_work.RULES, product_work.RULES, recurrent_work.RULES, movement_work.RULES, elementwise_work.RULES
)


def operators_of(graph: OptimisedGraph) -> list[Operator]:
    """The operators of one inference, with the call itself and what each kernel takes whatever it does.

    Raises:
        NotPredictableError: a kernel has weights, and what it does with them isn't known, or handles no tensors.
    """
    footprint = Footprint.of(graph)
    found = [operator for kernel in graph.kernels for operator in (Operator(KERNEL, (), ()), *_of(kernel, footprint))]
    return [*found, Operator(CALL, (), (_ends(graph) / 1e3,))]


def _ends(graph: OptimisedGraph) -> int:
    """The number of inputs and outputs, which each call binds and hands over."""
    made = {value.name for kernel in graph.kernels for value in kernel.outputs}
    read = {value.name: value for kernel in graph.kernels for value in kernel.inputs if value is not None}
    inputs = sum(not value.stored and name not in made for name, value in read.items())
    return inputs + len(made - set(read))


def _of(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    rule = _RULES.get(kernel.op_type)
    if kernel.op_type in _VIEWS:
        return [Operator("view", (), ())]
    if _is_bookkeeping(kernel):
        return [Operator("few integers", (), ())]
    makes_tensors = bool(kernel.outputs)
    if makes_tensors and rule is not None:
        return rule(kernel, footprint)
    if not makes_tensors or kernel.op_type in _UNKNOWN or _has_weights(kernel):
        raise NotPredictableError(f"the cost of operator {kernel.op_type} can't be predicted; `hwnas profile` times it")
    return elementwise_work.elementwise(kernel, footprint)


def _is_bookkeeping(kernel: Kernel) -> bool:
    """Whether a kernel computes a few integers, such as the sizes of other values."""
    values = [value for value in (*kernel.inputs, *kernel.outputs) if value is not None]
    return bool(kernel.outputs) and all(value.elements <= _FEW and not is_float(value) for value in values)


def _has_weights(kernel: Kernel) -> bool:
    """Whether a kernel stores a matrix that isn't an elementwise operand."""
    if kernel.op_type in elementwise_work.OF_SEVERAL:
        return False
    matrices = (value for value in kernel.inputs if value is not None and value.stored and len(value.dims) > 1)
    return any(value.elements > _SETTINGS and max(value.dims) < value.elements for value in matrices)
