"""The work of kernels that only move numbers: copies, transpositions, look-ups, changes of the layout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from latency_models.kernels.element_types import type_name, type_word
from latency_models.kernels.footprint import moved_mb
from latency_models.kernels.kernel_values import given, largest, positive
from latency_models.predictors.operators import Operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.kernel_values import Rule
    from latency_models.kernels.optimised_graph import Kernel


def _reorder(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    value = largest(kernel)
    channels = value.dims[1]
    side = positive(math.sqrt(max(1, value.elements // max(1, channels))))
    kind = type_word(kernel) + kernel.op_type
    yield Operator(kind, (positive(channels), side), (value.elements / 1e6, moved_mb(kernel)))


def _transposition(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """An operator for a transposition: of runs of neighbours, of one dimension, or of single elements."""
    value = kernel.outputs[0]
    order = list(kernel.attributes.get("perm") or reversed(range(len(value.dims))))
    sizes = {axis: value.dims[at] for at, axis in enumerate(order)}
    order = [axis for axis in order if sizes[axis] != 1]
    ranks = sorted(order)
    order = [ranks.index(axis) for axis in order]
    dims = [sizes[axis] for axis in ranks]
    kept = 1
    while order and order[-1] == len(order) - 1:
        kept *= dims[order.pop()]
    word, run = type_word(kernel), positive(kept)
    work = (value.n_bytes / 1e6, value.elements / run / 1e6, moved_mb(kernel))
    if not order:
        yield Operator("view", (), ())
    elif kept > 1:
        yield Operator("runs", (positive(value.elements), run), work)
    else:
        kind = "Transpose one" if _moves_one(order) else "Transpose"
        extent = (positive(value.elements), positive(dims[order[-1]]), positive(dims[-1]))
        yield Operator(word + kind, extent, (value.elements / 1e6, moved_mb(kernel)))


def _moves_one(order: list[int]) -> bool:
    """Whether an order of dimensions comes of moving a single one."""
    for axis in order:
        rest = [each for each in order if each != axis]
        if rest == sorted(rest):
            return True
    return False


def _copy(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """A copy in runs of neighbours (Concat, Split and the like): the dimensions from its axis on."""
    value = kernel.outputs[0] if kernel.op_type == "Slice" else largest(kernel)
    axis = int(kernel.attributes.get("axis", 0)) % max(1, len(value.dims))
    if kernel.op_type not in {"Concat", "Split"}:
        axis = _first_changed(kernel)
    parts = max(len([each for each in kernel.inputs if each is not None and not each.stored]), len(kernel.outputs))
    run = max(1, math.prod(value.dims[axis:]) // max(1, parts))
    runs = value.elements / run
    work = (value.n_bytes / 1e6, runs / 1e6, parts / 1e3, moved_mb(kernel))
    yield Operator(kernel.op_type, (positive(value.elements), positive(run)), work)


def _first_changed(kernel: Kernel) -> int:
    """The last dimension whose size a kernel changes: behind it neighbours stay neighbours."""
    before, after = given(kernel, 0).dims, kernel.outputs[0].dims
    if len(before) != len(after):
        return max(0, len(after) - 1)
    changed = [at for at, (some, others) in enumerate(zip(before, after, strict=True)) if some != others]
    return max(changed, default=0)


def _lookup(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """Rows of a table, by their numbers."""
    table, out = given(kernel, 0), kernel.outputs[0]
    axis = int(kernel.attributes.get("axis", 0)) % max(1, len(table.dims))
    run = max(1, math.prod(table.dims[axis + 1 :])) if kernel.op_type == "Gather" else 1
    runs = out.elements / run
    work = (out.n_bytes / 1e6, runs / 1e6, moved_mb(kernel) if not table.stored else 0.0)
    yield Operator(kernel.op_type, (positive(out.elements), positive(run)), work)


def _resizing(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    source, out = given(kernel, 0), kernel.outputs[0]
    mode = kernel.attributes.get("mode", b"nearest").decode()
    kind = f"{type_word(kernel)}Resize {mode}"
    if mode == "nearest" and _is_doubling(kernel):
        kind += " doubled"
    elif kernel.attributes.get("antialias"):
        kind += " antialiased"
    growth = positive(out.elements) / positive(source.elements)
    yield Operator(kind, (positive(out.elements), growth), (out.elements / 1e6, moved_mb(kernel)))


def _is_doubling(kernel: Kernel) -> bool:
    """Whether each value of a map is just written four times, for which ONNX Runtime has a quicker kernel."""
    before, after = given(kernel, 0).dims, kernel.outputs[0].dims
    old = kernel.op_type == "Upsample" or len(kernel.inputs) == 2  # up to opset 10 there was no other way
    placed = kernel.attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounded = kernel.attributes.get("nearest_mode", b"round_prefer_floor")
    plain = old or (placed == b"asymmetric" and rounded == b"floor")
    doubled = len(before) == 4 and after == (*before[:2], *(2 * size for size in before[2:]))
    return plain and doubled


def _cast(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    source, out = given(kernel, 0), kernel.outputs[0]
    kind = f"Cast {type_name(source.elem_type)} to {type_name(out.elem_type)}"
    yield Operator(kind, (positive(out.elements),), (out.elements / 1e6, moved_mb(kernel)))


RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("ReorderInput ReorderOutput", _reorder),
        ("Transpose", _transposition),
        ("Concat Split Slice Pad Tile Expand DepthToSpace SpaceToDepth Trilu", _copy),
        ("Gather GatherElements GatherND", _lookup),
        ("Resize Upsample", _resizing),
        ("Cast", _cast),
    )
    for name in names.split()
}
"""Operator type → its rule."""
