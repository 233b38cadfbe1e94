"""Parts of a graph that are a function of one number: connected elementwise nodes between two values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from export.lowering.elementwise import COMPARISONS, OPERATORS, evaluate
from export.lowering.initializers import initializers_of
from export.onnx_file import DEFAULT_DOMAINS, array_of, attributes_of, names_read_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    import onnx

    Array = npt.NDArray[Any]

_LONGEST = 40  # nodes; more are no activation
_MOST_ROOTS = 16  # values in a row that an activation may begin at; each costs an attempt
_LARGEST = 1 << 14  # numbers; an activation has one for each channel at most
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL)


@dataclass(frozen=True, eq=False)
class Region:
    """Elementwise nodes that turn one value into another; nothing else reads what is between the two.

    Attributes:
        nodes: in topological order.
        positions: of the nodes in the graph.
        root: name of the value that goes in.
        output: name of the value that comes out.
        constants: name → array, of everything else that its nodes read.
        channel_axis: axis, counted from the right, along which constants have one number a channel; None where each
            constant is a single number.
    """

    nodes: tuple[onnx.NodeProto, ...]
    positions: tuple[int, ...]
    root: str
    output: str
    constants: dict[str, Array]
    channel_axis: int | None

    def __call__(self, x: Array) -> Array:
        """Evaluate the function at (n,) numbers; returns (channels, n), or (1, n) where all channels share it."""
        axis = _IMAGE_CHANNELS if self.channel_axis is None else self.channel_axis
        shaped = x.reshape(-1, *([1] * (axis + 1)))
        values = evaluate(list(self.nodes), self.constants, self.root, self.output, shaped)
        return np.moveaxis(values.reshape(len(x), -1), 0, 1)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for regions with the same operators and numbers."""
        names = {self.root: 0} | {node.output[0]: at for at, node in enumerate(self.nodes, start=1)}

        def identity(name: str) -> object:
            if name in names:
                return names[name]
            constant = self.constants.get(name)
            return None if constant is None else (constant.shape, constant.tobytes())

        return tuple(
            (node.op_type, *map(identity, node.input), *sorted(item.SerializeToString() for item in node.attribute))
            for node in self.nodes
        )


def regions(graph: onnx.GraphProto, accepts: Callable[[Region], bool]) -> list[Region]:
    """Find disjoint regions that a caller accepts; a region is offered before the smaller ones within it.

    Args:
        graph: in topological order, its constants gathered (`export.lowering.initializers`); its nested graphs are not
            looked into.
        accepts: whether the caller wants a region.
    """
    return list(_Finder(graph).found(accepts))


class _Finder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._constants = constants_of(graph)
        self._readers: dict[str, list[int]] = {}
        for at, node in enumerate(self._nodes):
            for name in set(node.input):
                self._readers.setdefault(name, []).append(at)
        self._outputs = {info.name for info in graph.output}
        self._nested = names_read_within(self._nodes)
        self._maker = {name: at for at, node in enumerate(self._nodes) for name in node.output}
        self._roots = self._all_roots()

    def found(self, accepts: Callable[[Region], bool]) -> Iterator[Region]:
        taken: set[int] = set()
        for at in range(len(self._nodes) - 1, -1, -1):
            if at in taken or self._nodes[at].op_type in COMPARISONS:
                continue
            for root in reversed(self._roots.get(at, ())):
                region = self._between(root, at)
                if region is not None and taken.isdisjoint(region.positions) and accepts(region):
                    taken.update(region.positions)
                    yield region
                    break

    def _all_roots(self) -> dict[int, tuple[str, ...]]:
        """For each elementwise node the values that it is a function of, the nearest first."""
        roots: dict[int, tuple[str, ...]] = {}
        for at, node in enumerate(self._nodes):
            if not self._is_elementwise(node):
                continue
            chains = []
            for name in dict.fromkeys(name for name in node.input if name and name not in self._constants):
                maker = self._maker.get(name)
                chains.append((name, *(roots.get(maker, ()) if maker is not None else ())))
            if chains:
                common = set(chains[0]).intersection(*chains[1:])
                roots[at] = tuple(name for name in chains[0] if name in common)[:_MOST_ROOTS]
        return roots

    def _is_elementwise(self, node: onnx.NodeProto) -> bool:
        if node.domain not in DEFAULT_DOMAINS or node.op_type not in OPERATORS or len(node.output) != 1:
            return False
        return node.op_type != "Conv" or self._scales_channels(node)

    def _scales_channels(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution only scales and shifts each channel: 1×1, depthwise, without stride or padding."""
        weight = self._constants.get(node.input[1])
        if weight is None or weight.shape[1:] != (1, 1, 1) or node.input[0] in self._constants:
            return False
        attributes = attributes_of(node)
        plain = all(value == 1 for name in ("strides", "dilations") for value in attributes.get(name, ()))
        unpadded = not any(attributes.get("pads", ())) and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        known = all(name in self._constants for name in node.input[1:])
        return plain and unpadded and known and attributes.get("group", 1) == len(weight)

    def _between(self, root: str, last: int) -> Region | None:
        """The region from a value to a node's output; None where a node outside reads a value within it."""
        positions, open_ = {last}, [last]
        while open_:
            for name in self._nodes[open_.pop()].input:
                maker = self._maker.get(name)
                if not name or name == root or name in self._constants or maker is None or maker in positions:
                    continue
                positions.add(maker)
                open_.append(maker)
                if len(positions) > _LONGEST:
                    return None
        output = self._nodes[last].output[0]
        inside = {self._nodes[at].output[0] for at in positions} - {output}
        if inside & (self._outputs | self._nested) or any(set(self._readers[name]) - positions for name in inside):
            return None
        nodes = tuple(self._nodes[at] for at in sorted(positions))
        constants = {name: self._constants[name] for node in nodes for name in node.input if name in self._constants}
        axis = _channel_axis(nodes, constants)
        if axis is _NONE_FITS:
            return None
        return Region(nodes, tuple(sorted(positions)), root, output, constants, axis)


_NONE_FITS = -1
_IMAGE_CHANNELS = 2


def _channel_axis(nodes: tuple[onnx.NodeProto, ...], constants: dict[str, Array]) -> int | None:
    """The constants' channel axis, counted from the right; None where all are single numbers, −1 where they clash."""
    axes, lengths = set(), set()
    for node in nodes:
        for name in node.input:
            if name not in constants:
                continue
            array = constants[name]
            if array.size == 1 and node.op_type != "Conv":
                # As many axes as this would give the result more than the root has.
                if array.ndim > 4:
                    return _NONE_FITS
                continue
            wide = [array.ndim - 1 - at for at, size in enumerate(array.shape) if size > 1]
            if node.op_type == "Conv":
                wide = [_IMAGE_CHANNELS]
            axes.add(wide[0] if len(wide) == 1 and array.ndim <= 4 else _NONE_FITS)
            lengths.add(array.size)
    if not axes:
        return None
    return axes.pop() if len(axes) == len(lengths) == 1 else _NONE_FITS


def constants_of(graph: onnx.GraphProto) -> dict[str, Array]:
    """The graph's small stored floating-point arrays, by name."""
    return {
        name: array
        for name, tensor in initializers_of(graph).items()
        if tensor.data_type in _FLOATS
        and tensor.data_location != TensorProto.EXTERNAL
        and math.prod(tensor.dims) <= _LARGEST
        and (array := array_of(tensor)) is not None
    }
