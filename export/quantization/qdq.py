"""Writing a quantised graph: QuantizeLinear/DequantizeLinear pairs, which ONNX Runtime fuses into integer operators.

The form is u8s8: activations unsigned with a zero point, weights signed and symmetric with one scale a channel,
biases int32 (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018). No torch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export import barriers
from export.onnx_file import all_graphs, copied, value_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from export.quantization.qdq_plan import Plan, Range

_BITS = 255
_WEIGHT_MAX = 127
_LEAST_RATIO = 64  # of a result's step to its accumulator's: one odd number lower costs 3 % of precision at most
_INT32_MAX = 2**31 - 1
_APART = 1.0013
_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool"})
_LEAST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class _Pair:
    """Parameters of one tensor's pair: names of initializers, the scale that it is written with, and its readers'."""

    scale: str
    read_scale: str
    zero_point: str
    written: float
    value: float


def write(plan: Plan, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Write the quantised model into the plan's own copy, which can't be used again.

    Args:
        plan: of the float model.
        ranges: of `plan.unknown()`.
    """
    return _Writer(plan, ranges).run()


class _Writer:
    """Replaces the constants, then puts the pairs between the nodes, in order of execution."""

    def __init__(self, plan: Plan, ranges: Mapping[str, Range]) -> None:
        self.plan = plan
        self.graph = plan.model.graph
        self.tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        self.taken = value_names(self.graph)
        self.numbers = itertools.count()
        self.zeros: dict[tuple[str, tuple[int, ...]], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.reads: dict[str, str] = {}
        known = _averages_apart(plan, ranges)
        self.pairs = {name: self._parameters(name, known) for name in plan.activations}

    def run(self) -> onnx.ModelProto:
        for name in self.plan.constants:
            self._operand(name)
        scales = {name: self._weights(name) for name in self.plan.weights}
        for name, (source, weights) in self.plan.biases.items():
            self._bias(name, self.pairs[self.plan.moved.get(source, source)].value * scales[weights])
        for value in self.graph.input:
            self._thread(value.name, value.name)
        outputs = {value.name for value in self.graph.output}
        for node in self.graph.node:
            self._node(node, outputs)
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        read = {name for graph in all_graphs(self.graph) for node in graph.node for name in node.input}
        read |= outputs
        self.graph.initializer.extend(tensor for name, tensor in self.tensors.items() if name in read)
        return self.plan.model

    def _node(self, source: onnx.NodeProto, outputs: set[str]) -> None:
        node = copied(source)
        for index, name in enumerate(node.input):
            node.input[index] = self.reads.get(name, name)
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            paired, isolated = self._pair_of(name) is not None, name in self.plan.isolated
            last = name in outputs
            if (paired and last) or (isolated and not paired):  # the name is of what comes out at the end
                node.output[index] = self._fresh("f")
            made = node.output[index]
            if isolated:
                made = self._fresh("f") if paired else name
                self.nodes.append(barriers.barrier(node.output[index], made))
                if last and not paired:
                    # A runtime moves the readers' QuantizeLinear before nodes that only move values: past an output.
                    self.reads[name] = self._fresh("f")
                    self.nodes.append(barriers.barrier(name, self.reads[name]))
            if paired:
                self._thread(name, made, output=last)

    def _pair_of(self, name: str) -> _Pair | None:
        return self.pairs.get(self.plan.moved.get(name, name))

    def _thread(self, name: str, made: str, *, output: bool = False) -> None:
        """Append a pair after the tensor `made`; readers of `name`, or the graph's output, then have its result."""
        if (pair := self._pair_of(name)) is None:
            return
        read, quantized = name if output else self._fresh("d"), self._fresh("q")
        self.plan.pairs[quantized] = name
        self.nodes += [
            helper.make_node("QuantizeLinear", [made, pair.scale, pair.zero_point], [quantized]),
            helper.make_node("DequantizeLinear", [quantized, pair.read_scale, pair.zero_point], [read]),
        ]
        self.reads[name] = read

    def _parameters(self, name: str, ranges: Mapping[str, Range]) -> _Pair:
        factor = self.plan.factors.get(name)
        low, high = self.plan.bounds[name] if name in self.plan.bounds else ranges[name]
        scale, zero_point = unsigned((low, high) if factor is None else (low / factor, high / factor))
        written = self._store("s", np.array(scale, np.float32))
        read = written if factor is None else self._store("s", np.array(scale * factor, np.float32))
        point = self._store("z", np.array(zero_point, np.uint8))
        return _Pair(written, read, point, scale, scale * (1.0 if factor is None else factor))

    def _operand(self, name: str) -> None:
        """Store an elementwise operator's operand as unsigned integers with one scale."""
        values = numpy_helper.to_array(self.tensors[name])
        scale, zero_point = unsigned((float(values.min(initial=0)), float(values.max(initial=0))))
        integers = np.clip(np.rint(values / scale) + zero_point, 0, _BITS).astype(np.uint8)
        self._constant(name, integers, np.array(scale, np.float32), np.array(zero_point, np.uint8))

    def _weights(self, name: str) -> npt.NDArray[np.float32]:
        """Store weights as signed integers with one scale a channel; returns the scales."""
        axis = self.plan.weights[name]
        values = numpy_helper.to_array(self.tensors[name])
        channels = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        largest = np.abs(channels).max(axis=1, initial=0) / _WEIGHT_MAX
        scales: npt.NDArray[np.float32] = np.where(largest > 0, largest, 1).astype(np.float32)
        exact = channels.shape[1] == 1  # a factor of each channel is stored as it is, unless its scale is widened
        if not exact and (ratio := self._ratio(name)) is not None:
            scales = between_ties(scales, ratio)
        for bias, (source, weights) in self.plan.biases.items():
            if weights == name:  # where a channel is as good as dead, its bias would leave int32 in such small steps
                step = self.pairs[self.plan.moved.get(source, source)].value
                biases = np.abs(numpy_helper.to_array(self.tensors[bias]))
                scales = np.maximum(scales, 2 * biases / (step * _INT32_MAX)).astype(np.float32)
        shape = [-1 if index == axis else 1 for index in range(values.ndim)]
        integers = np.clip(np.rint(values / scales.reshape(shape)), -_WEIGHT_MAX, _WEIGHT_MAX).astype(np.int8)
        self._constant(name, integers, scales, np.zeros(scales.shape, np.int8), axis=axis)
        return scales

    def _ratio(self, name: str) -> float | None:
        """The result's scale over the input's, for the first product with these weights; None for a float result."""
        for node in self.graph.node:
            if len(node.input) > 1 and node.input[1] == name:
                given, made = self._pair_of(node.input[0]), self._pair_of(node.output[0])
                return None if given is None or made is None else made.written / given.value
        return None

    def _bias(self, name: str, scales: npt.NDArray[np.float32]) -> None:
        values = numpy_helper.to_array(self.tensors[name]).astype(np.float64)
        integers = np.rint(values / scales).astype(np.int32)
        self._constant(name, integers, scales.astype(np.float32), np.zeros(scales.shape, np.int32), axis=0)

    def _constant(
        self,
        name: str,
        integers: npt.NDArray[Any],
        scale: npt.NDArray[np.float32],
        zero_point: npt.NDArray[Any],
        axis: int | None = None,
    ) -> None:
        """Store a constant as integers; readers of its floats then read the dequantised ones."""
        del self.tensors[name]
        inputs = [
            self._store("w", integers),
            self._store("s", scale),
            self._store("z", zero_point) if zero_point.any() else self._zeros(zero_point),
        ]
        self.reads[name] = self._fresh("d")
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [self.reads[name]], axis=axis))

    def _zeros(self, zero_point: npt.NDArray[Any]) -> str:
        """The name of an all-zero zero point, shared by constants of one type and shape."""
        key = (zero_point.dtype.str, zero_point.shape)
        if key not in self.zeros:
            self.zeros[key] = self._store("z", zero_point)
        return self.zeros[key]

    def _store(self, prefix: str, array: npt.NDArray[Any]) -> str:
        name = self._fresh(prefix)
        self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def _fresh(self, prefix: str) -> str:
        """A name that is new in the graph, and short, since names make up much of a small network's file."""
        name = next(name for number in self.numbers if (name := f"{prefix}{number}") not in self.taken)
        self.taken.add(name)
        return name


def _averages_apart(plan: Plan, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, with those of averages a little wider where they have the scale of what is averaged.

    At equal scales every second mean of two integers lies just between two others.
    """
    found = dict(ranges)
    for node in plan.model.graph.node:
        if node.op_type not in _AVERAGES:
            continue
        given, made = plan.moved.get(node.input[0], node.input[0]), node.output[0]
        if given in found and made in found and unsigned(found[given])[0] == unsigned(found[made])[0]:
            found[made] = (found[made][0] * _APART, found[made][1] * _APART)
    return found


def between_ties(scales: npt.NDArray[np.float32], ratio: float) -> npt.NDArray[np.float32]:
    """Widen a product's weight scales a little, so that none of its results lies just between two integers.

    A result in steps is an integer, the accumulator, over K = ratio / scale. Of an odd K no multiple is a half, and the
    nearest are 1 / 2K away from one: farther than float32 errs. So whoever adds up in floats rounds as the integer
    kernel does.

    Args:
        scales: one a channel.
        ratio: the result's scale over the input's.

    Returns:
        Scales at most 2 / K larger; unchanged where K is so small that this would cost precision.
    """
    with np.errstate(over="ignore", divide="ignore"):
        wanted = ratio / scales.astype(np.float64)
    odd = np.floor((wanted - 1) / 2) * 2 + 1
    sure = np.isfinite(wanted) & (wanted >= _LEAST_RATIO)
    return np.where(sure, ratio / np.where(sure, odd, 1), scales).astype(np.float32)


def unsigned(bounds: Range) -> tuple[float, int]:
    """Scale and zero point of an unsigned range; it is widened to hold 0, which must be exact."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = float(np.float32((high - low) / _BITS))
    if not scale >= _LEAST_SCALE:  # the tensor was 0 throughout
        return 1.0, 0
    return scale, round(-low / scale)
