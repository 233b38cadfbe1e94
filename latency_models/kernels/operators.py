"""ONNX Runtime's kernels as operators of a cost model: a kind, sizes, and amounts of work each.

The amounts follow the kernels of MLAS, the library of matrix products and convolutions inside ONNX Runtime:
blocks of 16 channels, up to four of which are computed at once from one read of the input; a call for each row of an
output; a copy where the layout changes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from latency_models.errors import CostError
from latency_models.kernels.shapes import BLOCKED, window_settings
from latency_models.predictors.operators import BLOCK, Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from latency_models.kernels.optimised_graph import Kernel, OptimisedGraph, Value


class NotPredictableError(CostError):
    """The cost of an operator can't be predicted, only timed."""


CALL = "call"
WEIGHTS = "weights"
_BLOCKS_AT_ONCE = 4
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape"})
_COPIES = frozenset({"Concat", "Split", "Slice", "Pad", "Gather", "Tile", "Expand", "DepthToSpace", "SpaceToDepth"})
_NEAR_BYTES, _FAR_BYTES = 500_000, 8_000_000  # caches near one core, and a share of the last cache


def operators_of(graph: OptimisedGraph) -> list[Operator]:
    """The operators of one inference, with the call itself and the reading of weights."""
    found = [operator for kernel in graph.kernels for operator in _of(kernel)]
    return [*found, Operator(CALL, (), ()), *_weights(graph.stored_bytes)]


def _weights(stored: int) -> Iterable[Operator]:
    """An operator for the reading of weights that don't fit into the caches near the core."""
    if stored > 0:
        yield Operator(WEIGHTS, (float(stored),), (_beyond(stored, _NEAR_BYTES), _beyond(stored, _FAR_BYTES)))


def _beyond(n_bytes: float, room: float) -> float:
    """MB of `n_bytes` that don't fit into `room`, as a smooth function: near 0 if it is small, near all if large."""
    return n_bytes**2 / (n_bytes + room) / 1e6


def _of(kernel: Kernel) -> Iterable[Operator]:
    rule = _RULES.get(kernel.op_type)
    if rule is not None:
        yield from rule(kernel)
    elif kernel.op_type in _VIEWS:
        yield Operator("view", (), ())
    elif kernel.op_type in _COPIES:
        yield _copy(kernel)
    else:
        yield _elementwise(kernel)


def _moved(kernel: Kernel) -> float:
    """MB of activations, inputs and outputs, that don't fit into the caches near the core."""
    moved = sum(value.n_bytes for value in (*kernel.inputs, *kernel.outputs) if value is not None and not value.stored)
    return _beyond(moved, _NEAR_BYTES)


def _largest(kernel: Kernel) -> Value:
    return max(
        (value for value in (*kernel.inputs, *kernel.outputs) if value is not None), key=lambda value: value.elements
    )


def _convolution(weight_at: int) -> Callable[[Kernel], Iterable[Operator]]:
    def rule(kernel: Kernel) -> Iterable[Operator]:
        weight, (out,) = kernel.inputs[weight_at], kernel.outputs[:1]
        assert weight is not None
        assert kernel.inputs[0] is not None
        last = bool(kernel.attributes.get("channels_last"))
        spatial = out.dims[1:-1] if last else out.dims[2:]
        source = kernel.inputs[0].dims[1:-1] if last else kernel.inputs[0].dims[2:]
        prefix = "int8 " if weight_at == 3 else "" if kernel.domain == BLOCKED else "plain "
        # The products of plain and of integer convolutions go over unfolded maps, zeros outside of them included.
        inside = _taps(source, spatial, weight.dims[2:], kernel.attributes)
        taps = float(math.prod(weight.dims[2:])) if prefix else inside
        yield _window_product(kernel, prefix, weight.dims, taps, (out.dims[0], *spatial))
        activation = kernel.attributes.get("activation")
        if activation is not None:
            yield Operator(f"then {activation.decode()}", (float(out.elements),), (out.elements / 1e6,))
        if (kernel.domain == BLOCKED or kernel.op_type == "FusedConv") and len(kernel.inputs) > 3:
            yield Operator("then Add", (float(out.elements),), (out.elements / 1e6, _moved(kernel)))

    return rule


def _taps(
    source: tuple[int, ...], result: tuple[int, ...], kernel: tuple[int, ...], attributes: Mapping[str, Any]
) -> float:
    """Average number of window positions inside the map; the kernels skip those in the padding."""
    strides, dilations, pads = window_settings(len(kernel), attributes)
    taps = 1.0
    for at in range(len(kernel)):
        starts = [place * strides[at] - pads[at] for place in range(result[at])]
        inside = sum(0 <= start + tap * dilations[at] < source[at] for start in starts for tap in range(kernel[at]))
        taps *= max(inside, 1) / max(1, result[at])
    return taps


def _window_product(
    kernel: Kernel, prefix: str, weight: tuple[int, ...], window: float, outside: tuple[int, ...]
) -> Operator:
    """A convolution of any kind: `outside` are the batch and the spatial sizes of its result, `window` its `_taps`."""
    after, before = weight[0], weight[1]
    group = int(kernel.attributes.get("group", 1))
    single = math.prod(weight[2:]) == 1
    positions = math.prod(outside)
    rows = math.prod(outside[:-1])
    stride = math.sqrt(math.prod(kernel.attributes.get("strides") or [1]))
    side = math.sqrt(positions)
    columns = float(outside[-1])
    moved = _moved(kernel)
    outputs = positions * after
    if group > 1 and before == 1 and after == group:
        kind = prefix + ("scale" if single else "depthwise")
        amounts = (outputs * window / 1e6, outputs / 1e6, rows * after / BLOCK / 1e3, moved)
        return Operator(kind, (float(after), side, math.sqrt(window), stride), amounts)
    blocks = math.ceil(after / group / BLOCK)
    turns = group * math.ceil(blocks / _BLOCKS_AT_ONCE)
    macs, reads = outputs * before * window / 1e6, turns * positions * before * window / 1e6
    if prefix == "plain ":
        unfolded = positions * before * group * window / 1e6
        parts = (macs, unfolded, outputs / 1e6, group * 1e-3, moved)
        kind = "plain grouped" if group > 1 else "plain 1x1" if single and stride == 1 else "plain conv"
        return Operator(kind, (float(before), after / group, side, math.sqrt(window), float(group)), parts)
    calls = rows * turns * math.ceil(before / BLOCK) * window / 1e3
    work = (macs, reads, outputs / 1e6, calls, math.prod(weight) / 1e6, moved)
    name = "first" if before < BLOCK and group == 1 else "grouped" if group > 1 else "1x1" if single else "conv"
    sizes = (float(before), after / group, columns, float(rows), math.sqrt(window), stride, float(group))
    return Operator(prefix + name, sizes, work)


def _transposed_convolution(kernel: Kernel) -> Iterable[Operator]:
    source, weight, out = kernel.inputs[0], kernel.inputs[1], kernel.outputs[0]
    assert source is not None
    assert weight is not None
    macs = source.elements * math.prod(weight.dims[1:]) / 1e6
    side = math.sqrt(source.elements / source.dims[1])
    sizes = (float(source.dims[1]), float(out.dims[1]), side, math.sqrt(math.prod(weight.dims[2:])))
    yield Operator(kernel.op_type, sizes, (macs, source.elements / 1e6, out.elements / 1e6))


def _resizing(kernel: Kernel) -> Iterable[Operator]:
    mode = kernel.attributes.get("mode", b"nearest").decode()
    elements = kernel.outputs[0].elements
    yield Operator(f"{kernel.op_type} {mode}", (float(elements),), (elements / 1e6, _moved(kernel)))


def _product(weight_at: int) -> Callable[[Kernel], Iterable[Operator]]:
    """A rule for matrix products: with a stored matrix, packed beforehand, or of two computed ones."""

    def rule(kernel: Kernel) -> Iterable[Operator]:
        some, others, (out,) = kernel.inputs[0], kernel.inputs[weight_at], kernel.outputs[:1]
        assert some is not None
        assert others is not None
        columns = out.dims[-1]
        depth = others.elements // max(1, math.prod(others.dims[:-2])) // max(1, columns)
        rows = max(1, out.elements // max(1, columns))
        batch = 1 if others.stored else max(1, math.prod(out.dims[:-2]))
        kind = "vector" if rows == 1 else "matrix" if others.stored else "matrices"
        prefix = "int8 " if others.elem_type != some.elem_type or kernel.op_type in {"QGemm", "QLinearMatMul"} else ""
        macs = rows * columns * max(1, depth) / 1e6
        work = (macs, others.elements / 1e6, out.elements / 1e6, some.elements / 1e6, batch * 1e-3)
        yield Operator(prefix + kind, (float(rows), float(columns), float(max(1, depth)), float(batch)), work)
        activation = kernel.attributes.get("activation")
        if activation is not None:
            yield Operator(f"then {activation.decode()}", (float(out.elements),), (out.elements / 1e6,))

    return rule


def _pool(kernel: Kernel) -> Iterable[Operator]:
    out = kernel.outputs[0]
    window = math.prod(kernel.attributes["kernel_shape"])
    kind = ("" if kernel.domain == BLOCKED else "plain ") + kernel.op_type
    side = math.sqrt(max(1, math.prod(out.dims[2:])))
    work = (out.elements * window / 1e6, out.elements / 1e6, _moved(kernel))
    yield Operator(kind, (out.elements / side**2, side, math.sqrt(window)), work)


def _global_pool(kernel: Kernel) -> Iterable[Operator]:
    value = _largest(kernel)
    kind = ("" if kernel.domain == BLOCKED else "plain ") + kernel.op_type
    yield Operator(kind, (float(value.elements),), (value.elements / 1e6, value.dims[1] / 1e3, _moved(kernel)))


def _reduction(kernel: Kernel) -> Iterable[Operator]:
    value = _largest(kernel)
    inner = kernel.outputs[0].elements > 1 and kernel.outputs[0].dims[-1:] == value.dims[-1:]
    kind = f"{kernel.op_type}{' across' if inner else ''}"
    yield Operator(kind, (float(value.elements),), (value.elements / 1e6, kernel.outputs[0].elements / 1e6))


def _rows(kernel: Kernel) -> Iterable[Operator]:
    """Softmax and norms: a cost for each element and for each row."""
    value = kernel.outputs[0]
    axis = int(kernel.attributes.get("axis", -1)) % max(1, len(value.dims))
    columns = max(1, math.prod(value.dims[axis:]) if kernel.op_type == "LayerNormalization" else value.dims[axis])
    rows = max(1, value.elements // columns)
    yield Operator(kernel.op_type, (float(rows), float(columns)), (value.elements / 1e6, rows / 1e6))


def _reorder(kernel: Kernel) -> Iterable[Operator]:
    value = _largest(kernel)
    channels = value.dims[1]
    side = math.sqrt(max(1, value.elements // channels))
    yield Operator(kernel.op_type, (float(channels), side), (value.elements / 1e6, _moved(kernel)))


def _transposition(kernel: Kernel) -> Iterable[Operator]:
    """A transposition of whole runs of neighbours if the last dimensions stay, else of single elements."""
    value = kernel.outputs[0]
    order = list(kernel.attributes.get("perm") or reversed(range(len(value.dims))))
    kept = 1
    for at in reversed(range(len(order))):
        if order[at] != at:
            break
        kept *= value.dims[at]
    moving = [axis for axis in order if value.dims[order.index(axis)] != 1]
    if moving == sorted(moving):
        yield Operator("view", (), ())
    elif kept > 1:
        yield Operator("runs", (float(value.elements), float(kept)), _in_runs(value, kept, kernel))
    else:
        yield Operator("Transpose", (float(value.elements),), (value.elements / 1e6, _moved(kernel)))


def _in_runs(value: Value, run: int, kernel: Kernel) -> tuple[float, ...]:
    return value.n_bytes / 1e6, value.elements / run / 1e6, _moved(kernel)


def _copy(kernel: Kernel) -> Operator:
    """A copy in runs of neighbours (Concat, Split and the like): the dimensions from its axis on."""
    value = kernel.outputs[0] if kernel.op_type in {"Gather", "Slice"} else _largest(kernel)
    axis = int(kernel.attributes.get("axis", 1 if len(value.dims) > 1 else 0)) % max(1, len(value.dims))
    parts = max(len([each for each in kernel.inputs if each is not None and not each.stored]), len(kernel.outputs))
    run = max(1, math.prod(value.dims[axis:]) // max(1, parts))
    runs = value.elements / run
    work = (value.n_bytes / 1e6, runs / 1e6, parts / 1e3, _moved(kernel))
    return Operator(kernel.op_type, (float(max(1, value.elements)),), work)


def _elementwise(kernel: Kernel) -> Operator:
    """An elementwise operator; a second operand of another shape is a number, or one value for each channel.

    Raises:
        NotPredictableError: it has weights, and their use isn't known.
    """
    if kernel.op_type in _NOT_ELEMENTWISE or _has_weights(kernel):
        raise NotPredictableError(f"the cost of operator {kernel.op_type} can't be predicted; `hwnas profile` times it")
    value = _largest(kernel)
    kind = kernel.op_type
    others = [each for each in kernel.inputs if each is not None]
    if kernel.op_type in _BINARY and len(others) > 1:
        least = min(each.elements for each in others)
        if least == 1:
            kind += " number"
        elif least < value.elements:
            kind += " channels"
    return Operator(kind, (float(max(1, value.elements)),), (value.elements / 1e6, _moved(kernel)))


def _has_weights(kernel: Kernel) -> bool:
    """Whether a kernel stores a matrix that isn't an elementwise operand."""
    if kernel.op_type in _BINARY or kernel.op_type in {"DequantizeLinear", "QuantizeLinear", "Where"}:
        return False
    matrices = (value for value in kernel.inputs if value is not None and value.stored and len(value.dims) > 1)
    return any(value.elements > _LARGEST_SETTING and max(value.dims) < value.elements for value in matrices)


_LARGEST_SETTING = 256
_NOT_ELEMENTWISE = frozenset(
    {"LSTM", "GRU", "RNN", "Einsum", "NonMaxSuppression", "DFT", "STFT", "Attention", "MultiHeadAttention"}
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Pow", "PRelu"})

_RULES: dict[str, Callable[[Kernel], Iterable[Operator]]] = {
    name: rule
    for names, rule in (
        ("Conv FusedConv NhwcFusedConv ConvInteger", _convolution(1)),
        ("QLinearConv", _convolution(3)),
        ("ConvTranspose", _transposed_convolution),
        ("Resize Upsample", _resizing),
        ("Gemm FusedGemm MatMul FusedMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul", _product(1)),
        ("QGemm QLinearMatMul", _product(3)),
        ("MaxPool NhwcMaxPool AveragePool QLinearAveragePool", _pool),
        ("GlobalAveragePool GlobalMaxPool QLinearGlobalAveragePool", _global_pool),
        ("ReorderInput ReorderOutput", _reorder),
        ("Transpose", _transposition),
        ("Softmax LogSoftmax LayerNormalization SkipLayerNormalization QLinearSoftmax", _rows),
        ("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ArgMax ArgMin", _reduction),
    )
    for name in names.split()
}
