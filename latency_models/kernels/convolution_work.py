"""The work of convolutions and pools."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latency_models.kernels.element_types import type_word
from latency_models.kernels.footprint import MATRIX, moved_mb
from latency_models.kernels.kernel_values import given, largest, positive
from latency_models.kernels.shapes import BLOCKED, window_settings
from latency_models.predictors.operators import BLOCK, Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.optimised_graph import Kernel

_BLOCKS_AT_ONCE = 4  # of channels
_PLACES_AT_ONCE = 6  # of a row of the result; what is left over is computed by threes
_FEW_AT_ONCE = 3


def _convolution(weight_at: int) -> Callable[[Kernel, Footprint], Iterable[Operator]]:
    def rule(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
        weight, out = given(kernel, weight_at), kernel.outputs[0]
        last = bool(kernel.attributes.get("channels_last"))
        spatial = out.dims[1:-1] if last else out.dims[2:]
        dims = given(kernel, 0).dims
        source = dims[1:-1] if last else dims[2:]
        integers = weight_at == 3 or kernel.op_type == "ConvInteger"
        prefix = "int8 " if integers else "" if kernel.domain == BLOCKED else f"{type_word(kernel)}plain "
        # The products of plain and of integer convolutions go over unfolded maps, zeros outside of them included.
        inside = _taps(source, spatial, weight.dims[2:], kernel.attributes)
        taps = float(math.prod(weight.dims[2:])) if prefix else inside
        form = _Form.of(kernel, weight.dims, taps, (out.dims[0], *spatial))
        yield _window_product(form, prefix, moved_mb(kernel))
        yield from footprint.waited(form.reader(prefix), weight.n_bytes, form.positions)
        activation = kernel.attributes.get("activation")
        if activation is not None:
            yield Operator(f"then {activation.decode()}", (positive(out.elements),), (out.elements / 1e6,))
        if (kernel.domain == BLOCKED or kernel.op_type == "FusedConv") and len(kernel.inputs) > 3:
            yield Operator("then Add", (positive(out.elements),), (out.elements / 1e6, moved_mb(kernel)))

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


@dataclass(frozen=True)
class _Form:
    """The numbers of a convolution.

    `before` are the input channels of a group, `taps` the positions of a window that count, `rows` and `columns` those
    of the result, `steps` the times that the blocked kernel computes neighbours of the result at once.
    """

    before: int
    after: int
    group: int
    taps: float
    single: bool
    batch: int
    rows: int
    columns: int
    stride: float
    steps: float
    weights: int

    @classmethod
    def of(cls, kernel: Kernel, weight: tuple[int, ...], taps: float, outside: tuple[int, ...]) -> _Form:
        """The form of a kernel with a `weight`'s shape; `outside` are the batch and the result's spatial sizes."""
        single = math.prod(weight[2:]) == 1
        return cls(
            before=weight[1],
            after=weight[0],
            group=int(kernel.attributes.get("group", 1)),
            taps=taps,
            single=single,
            batch=outside[0],
            rows=math.prod(outside[:-1]),
            columns=outside[-1],
            stride=math.sqrt(math.prod(kernel.attributes.get("strides") or [1])),
            steps=_steps(kernel, outside, single=single),
            weights=math.prod(weight),
        )

    @property
    def positions(self) -> int:
        return self.rows * self.columns

    @property
    def outputs(self) -> int:
        return self.positions * self.after

    @property
    def side(self) -> float:
        return positive(math.sqrt(self.positions))

    def reader(self, prefix: str) -> str:
        """The kernels that read weights in the same order."""
        return MATRIX if prefix.endswith("plain ") else "1x1" if self.single else "windows"

    @property
    def is_depthwise(self) -> bool:
        return self.group > 1 and self.before == 1 and self.after == self.group


def _window_product(form: _Form, prefix: str, moved: float) -> Operator:
    if form.is_depthwise:
        return _depthwise(form, prefix, moved)
    if prefix.endswith("plain "):
        return _unfolded(form, prefix.removesuffix("plain "), moved)
    return _blocked(form, prefix, moved)


def _depthwise(form: _Form, prefix: str, moved: float) -> Operator:
    products = form.outputs * form.taps / 1e6
    amounts: tuple[float, ...] = (products, form.outputs / 1e6, form.rows * form.after / BLOCK / 1e3, moved)
    if not prefix:
        amounts = (*amounts, form.steps * math.ceil(form.after / BLOCK) * form.taps / 1e3)
    sizes = (float(form.after), form.side, math.sqrt(form.taps), form.stride)
    return Operator(prefix + ("scale" if form.single else "depthwise"), sizes, amounts)


def _unfolded(form: _Form, word: str, moved: float) -> Operator:
    """A product with the unfolded map: a column for each position, a row for each product of a sum."""
    unfolded = form.positions * form.before * form.group * form.taps / 1e6
    macs = form.after * _in_vectors(form.positions) * form.before * form.taps / 1e6
    amounts = (macs, unfolded, form.outputs / 1e6, form.group * form.batch * 1e-3, moved)
    name = "plain grouped" if form.group > 1 else "plain 1x1" if form.single and form.stride == 1 else "plain conv"
    sizes = (float(form.before), form.after / form.group, form.side, math.sqrt(form.taps), float(form.group))
    return Operator(word + name, sizes, amounts)


def _blocked(form: _Form, prefix: str, moved: float) -> Operator:
    sums = form.before * form.taps
    turns = form.group * math.ceil(math.ceil(form.after / form.group / BLOCK) / _BLOCKS_AT_ONCE)
    calls = form.rows * turns * math.ceil(form.before / BLOCK) * form.taps / 1e3
    amounts = (
        form.outputs * sums / 1e6,
        turns * form.positions * sums / 1e6,
        form.outputs / 1e6,
        calls,
        form.steps * turns * sums / 1e6,
        form.weights / 1e6,
        moved,
    )
    name = "grouped" if form.group > 1 else "first" if form.before < BLOCK else "1x1" if form.single else "conv"
    sizes = (
        float(form.before),
        form.after / form.group,
        positive(form.columns),
        positive(form.rows),
        math.sqrt(form.taps),
        form.stride,
        float(form.group),
    )
    return Operator(prefix + name, sizes, amounts)


def _steps(kernel: Kernel, outside: tuple[int, ...], *, single: bool) -> float:
    """The number of times that the blocked kernel computes neighbours of the result at once.

    Each time it sums up one product after the other, however many neighbours there are; those whose window reaches
    over the map's edge are computed alone.
    """
    count = len(outside) - 1
    strides, _, pads = window_settings(count, kernel.attributes)
    columns, rows = outside[-1], math.prod(outside[:-1])
    if single and count > 1 and math.prod(strides) == 1:
        columns, rows = columns * outside[-2], math.prod(outside[:-2])
    at_edges = min(columns, math.ceil(pads[count - 1] / strides[-1]) + math.ceil(pads[-1] / strides[-1]))
    whole, left = divmod(columns - at_edges, _PLACES_AT_ONCE)
    return float(rows * (at_edges + whole + math.ceil(left / _FEW_AT_ONCE)))


def _in_vectors(columns: int) -> int:
    """The columns of a product that are computed: whole vectors of them."""
    return BLOCK * math.ceil(columns / BLOCK)


def _transposed_convolution(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    source, weight, out = given(kernel, 0), given(kernel, 1), kernel.outputs[0]
    macs = source.elements * math.prod(weight.dims[1:]) / 1e6
    positions = source.elements / max(1, source.dims[1])
    taps, side = math.prod(weight.dims[2:]), positive(math.sqrt(positions))
    products = positions * out.dims[1] * taps / 1e6  # which are summed into the output
    sizes = (float(source.dims[1]), float(out.dims[1]), side, math.sqrt(taps))
    amounts = (macs, products, source.elements / 1e6, out.elements / 1e6)
    yield Operator(type_word(kernel) + kernel.op_type, sizes, amounts)
    yield from footprint.waited(MATRIX, weight.n_bytes, side**2)


def _pool(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    out = kernel.outputs[0]
    window = math.prod(kernel.attributes["kernel_shape"])
    kind = ("" if kernel.domain == BLOCKED else f"{type_word(kernel)}plain ") + kernel.op_type
    side = positive(math.sqrt(max(1, math.prod(out.dims[2:]))))
    work = (out.elements * window / 1e6, out.elements / 1e6, moved_mb(kernel))
    yield Operator(kind, (positive(out.elements / side**2), side, math.sqrt(window)), work)


def _global_pool(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    value = largest(kernel)
    kind = ("" if kernel.domain == BLOCKED else f"{type_word(kernel)}plain ") + kernel.op_type
    yield Operator(kind, (positive(value.elements),), (value.elements / 1e6, value.dims[1] / 1e3, moved_mb(kernel)))


RULES = {
    name: rule
    for names, rule in (
        ("Conv FusedConv NhwcFusedConv ConvInteger", _convolution(1)),
        ("QLinearConv", _convolution(3)),
        ("ConvTranspose", _transposed_convolution),
        ("MaxPool NhwcMaxPool AveragePool QLinearAveragePool LpPool", _pool),
        ("GlobalAveragePool GlobalMaxPool QLinearGlobalAveragePool", _global_pool),
    )
    for name in names.split()
}
"""Operator type → its rule."""
