"""Folding scales and shifts of each channel into the weights of the layers before and behind.

A learned scale inside an activation needs no operator of its own where a convolution comes before it. A scale outside
needs none where all readers of the result are linear: f(βx)/β is f with β in the weights before, 1/β in those behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from export.onnx_file import DEFAULT_DOMAINS, attributes_of, names_read_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx

    Array = npt.NDArray[Any]

_CONV_BIAS = 2
_MAP_RANK = 4
# Where a value has its channels: on axis 1 of a map; there, the map being 1×1; on the last axis.
_Layout = Literal["map", "pooled", "flat"]


@dataclass(frozen=True)
class _Edit:
    """New values for a node's weight or bias."""

    node: onnx.NodeProto
    place: int
    values: Array


class ScaleFolding:
    """Folds scales into the weights of a graph, whose nodes stay where they are.

    Args:
        graph: to be changed.
        names: all names in it; new ones are added.
        channels: name → number of channels, of maps that have them on axis 1 of 4.
        fixed: values whose nodes must not be changed.
    """

    def __init__(
        self, graph: onnx.GraphProto, names: set[str], channels: Mapping[str, int], fixed: frozenset[str]
    ) -> None:
        self._graph, self._names, self._channels, self._fixed = graph, names, channels, fixed
        # Inputs, outputs and values that nested graphs read must keep their numbers.
        self._outside = names_read_within(graph.node) | {info.name for info in (*graph.input, *graph.output)}
        self._stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self._outside}
        self._maker = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def before(self, value: str, scale: Array, readers: int) -> bool:
        """Scale the convolution that makes a value; False, and nothing changed, where that can't be.

        Args:
            value: read only by nodes that want it scaled.
            scale: (channels,), channels being on axis 1 of 4, or (1,); none of them 0.
            readers: number of these nodes.
        """
        node = self._maker.get(value)
        if node is None or node.op_type != "Conv" or node.domain not in DEFAULT_DOMAINS or not self._own(node):
            return False
        if value in self._outside or len({id(each) for each in self._readers[value]}) != readers:
            return False
        weight = self._numbers(node, 1)
        if len(scale) not in (1, len(weight)):
            return False
        edits = [_Edit(node, 1, weight * scale.reshape(-1, *([1] * (weight.ndim - 1))))]
        if len(node.input) > _CONV_BIAS and node.input[_CONV_BIAS]:
            edits.append(_Edit(node, _CONV_BIAS, self._numbers(node, _CONV_BIAS) * scale))
        self._apply(edits)
        return True

    def behind(self, value: str, scale: Array, shift: Array | None = None) -> bool:
        """Change all readers of a value as if they read scale·value + shift; False, and nothing changed, if impossible.

        Args:
            value: made by the activation whose scale is folded.
            scale: as in `before`.
            shift: of scale's shape.
        """
        edits = self._seen(value, scale, shift, "map")
        if edits is None:
            return False
        self._apply(edits)
        return True

    def _seen(self, value: str, scale: Array, shift: Array | None, layout: _Layout) -> list[_Edit] | None:
        if value in self._outside or value not in self._readers:
            return None
        edits: list[_Edit] = []
        for node in self._readers[value]:
            more = self._reader(node, value, scale, shift, layout)
            if more is None:
                return None
            edits += more
        # Two of one tensor would each start from its old numbers.
        return edits if len({(id(edit.node), edit.place) for edit in edits}) == len(edits) else None

    def _reader(
        self, node: onnx.NodeProto, value: str, scale: Array, shift: Array | None, layout: _Layout
    ) -> list[_Edit] | None:
        if node.domain not in DEFAULT_DOMAINS or list(node.input).count(value) != 1:
            return None
        single = len(scale) == 1
        if node.op_type in ("Flatten", "Reshape") and node.input[0] == value and (single or layout != "map"):
            return self._seen(node.output[0], scale, shift, "flat")
        if node.op_type in ("Gemm", "MatMul") and node.input[0] == value and self._own(node):
            return self._product(node, scale, shift) if single or layout == "flat" else None
        if layout == "flat" and not single:
            return None
        if node.op_type == "GlobalAveragePool":
            return self._seen(node.output[0], scale, shift, "pooled")
        if node.op_type == "Conv" and node.input[0] == value and self._own(node):
            return self._convolution(node, scale, shift)
        return self._seen(node.output[0], scale, None, "map") if shift is None and self._hands_on(node, scale) else None

    def _hands_on(self, node: onnx.NodeProto, scale: Array) -> bool:
        """Whether the node's result is scaled as its input is."""
        if node.op_type == "MaxPool":
            return bool(np.all(scale > 0)) and len(node.output) == 1
        if node.op_type == "Mul":  # by what may have other axes
            return len(scale) == 1 or self._channels.get(node.output[0]) == len(scale)
        return node.op_type == "AveragePool"

    def _convolution(self, node: onnx.NodeProto, scale: Array, shift: Array | None) -> list[_Edit] | None:
        weight, attributes = self._numbers(node, 1), attributes_of(node)
        groups, outs, ins = attributes.get("group", 1), weight.shape[0], weight.shape[1]
        if len(scale) != 1 and (len(scale) != groups * ins or weight.ndim != _MAP_RANK):
            return None

        def of_inputs(values: Array) -> Array:
            """Spread values of the input channels over the weights' shape (outs, ins, 1, …)."""
            of_group = np.broadcast_to(values, (groups * ins,)).reshape(groups, ins)
            spread = np.repeat(of_group, outs // groups, axis=0)
            return spread.reshape(outs, ins, *([1] * (weight.ndim - 2)))

        edits = [_Edit(node, 1, weight * of_inputs(scale))]
        if shift is not None:
            if _pads(attributes):  # the zeros at the border aren't shifted
                return None
            risen = (weight * of_inputs(shift)).reshape(outs, -1).sum(axis=1)
            edits += self._raised(node, risen)
        return edits

    def _product(self, node: onnx.NodeProto, scale: Array, shift: Array | None) -> list[_Edit] | None:
        attributes = attributes_of(node)
        weight = self._numbers(node, 1)
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if weight.ndim != 2 or attributes.get("transA", 0) or not plain:
            return None
        transposed = attributes.get("transB", 0)
        ins = weight.shape[1 if transposed else 0]
        if len(scale) not in (1, ins):
            return None
        spread = np.broadcast_to(scale, (ins,))
        edits = [_Edit(node, 1, weight * (spread[None, :] if transposed else spread[:, None]))]
        if shift is not None:
            if node.op_type != "Gemm":
                return None
            raised = np.broadcast_to(shift, (ins,))
            edits += self._raised(node, weight @ raised if transposed else raised @ weight)
        return edits

    def _raised(self, node: onnx.NodeProto, by: Array) -> list[_Edit]:
        has_bias = len(node.input) > _CONV_BIAS and node.input[_CONV_BIAS]
        return [_Edit(node, _CONV_BIAS, (self._numbers(node, _CONV_BIAS) if has_bias else 0) + by)]

    def _own(self, node: onnx.NodeProto) -> bool:
        """Whether the node's weight and bias are stored float32 numbers that nothing else reads."""
        return node.output[0] not in self._fixed and all(
            (tensor := self._stored.get(name)) is not None
            and tensor.data_type == TensorProto.FLOAT
            and tensor.data_location != TensorProto.EXTERNAL
            and len(self._readers[name]) == 1
            for name in node.input[1:]
            if name
        )

    def _numbers(self, node: onnx.NodeProto, place: int) -> Array:
        return numpy_helper.to_array(self._stored[node.input[place]]).astype(np.float64)

    def _apply(self, edits: list[_Edit]) -> None:
        for edit in edits:
            values = edit.values.astype(np.float32)
            if len(edit.node.input) <= edit.place or not edit.node.input[edit.place]:
                self._give(edit.node, edit.place, values)
            else:
                name = edit.node.input[edit.place]
                self._stored[name].CopyFrom(numpy_helper.from_array(values, name))

    def _give(self, node: onnx.NodeProto, place: int, values: Array) -> None:
        name = f"{node.input[1]}.shifted"
        while name in self._names:
            name += "_"
        self._names.add(name)
        self._graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, values.shape, values))
        self._stored[name] = self._graph.initializer[-1]
        self._readers[name] = [node]
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = name


def _pads(attributes: dict[str, Any]) -> bool:
    return any(attributes.get("pads", ())) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
