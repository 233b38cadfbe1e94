"""Types and shapes of a graph's values before it runs, and which of them are maps of channels."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from export.lowering.elementwise import OPERATORS
from export.onnx_file import CHECKER_ERRORS, DEFAULT_DOMAINS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.lowering.regions import Region

_MAP_RANK = 4
# A map's channels are on its axis 1 of 4 behind these, too.
_KEEP_CHANNELS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Dropout"})
_TypeAndShape = tuple[int, "tuple[int | None, ...] | None"]  # type, shape; None where either isn't known


class ValueTypes:
    """Types and shapes of the main graph's values; shapes are inferred only when the file doesn't say enough.

    Attributes:
        channels: name → number of channels, of float32 maps that certainly have them on axis 1 of 4.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._declared = _declared(model.graph)
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.channels: Mapping[str, int] = self._maps()

    def takes(self, region: Region) -> bool:
        """Whether a region's root is float32 and its output has the root's shape: no constant broadcasts it."""
        elem_type, shape = self._type_and_shape(region.root)
        if elem_type != TensorProto.FLOAT:
            return False
        widest = max((array.ndim for array in region.constants.values()), default=0)
        axis = region.channel_axis
        if shape is None:
            return axis is None and widest <= 1
        if widest > len(shape) or (axis is not None and axis >= len(shape)):
            return False
        sizes = {array.size for array in region.constants.values()} - {1}
        return axis is None or not sizes or sizes == {shape[-1 - axis]}

    def type_of(self, name: str) -> int:
        """A value's type as a number of `onnx.TensorProto`; 0 (undefined) where it isn't known."""
        return self._type_and_shape(name)[0]

    def _type_and_shape(self, name: str) -> _TypeAndShape:
        if name in self.channels:
            return TensorProto.FLOAT, (None, self.channels[name], None, None)
        elem_type, shape = self._declared.get(name, (TensorProto.UNDEFINED, None))
        if elem_type == TensorProto.UNDEFINED or shape is None:
            return self._inferred.get(name, (elem_type, shape))
        return elem_type, shape

    @cached_property
    def _inferred(self) -> dict[str, _TypeAndShape]:
        try:
            return _declared(onnx.shape_inference.infer_shapes(self._model).graph)
        except CHECKER_ERRORS:  # over 2 GB, or contradicts itself
            return {}

    def _maps(self) -> dict[str, int]:
        found: dict[str, int] = {}
        self.channels = found  # what is known so far helps to know the rest
        for node in self._model.graph.node:
            if node.domain not in DEFAULT_DOMAINS or not node.output:
                continue
            if node.op_type in ("Conv", "Gemm"):
                weight = self._stored.get(node.input[1])
                if weight is None or weight.data_type != TensorProto.FLOAT:
                    continue
                if node.op_type == "Gemm":
                    self._declared.setdefault(node.output[0], (TensorProto.FLOAT, (None, None)))
                elif len(weight.dims) == _MAP_RANK:
                    found[node.output[0]] = int(weight.dims[0])
            elif node.op_type in _KEEP_CHANNELS and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
            elif node.op_type in OPERATORS and (channels := self._joined(node, found)) is not None:
                found[node.output[0]] = channels
        return found

    def _joined(self, node: onnx.NodeProto, found: Mapping[str, int]) -> int | None:
        """Number of channels of an elementwise node's result; None where an input could widen them or add axes."""
        known = {found[name] for name in node.input if name in found}
        if len(known) != 1:
            return None
        channels = known.pop()
        others = (name for name in node.input if name and name not in found)
        return channels if all(self._meets(name, channels) for name in others) else None

    def _meets(self, name: str, channels: int) -> bool:
        """Whether a map keeps its rank and its channels when this value is broadcast with it."""
        shape: tuple[int | None, ...] | None
        shape = tuple(self._stored[name].dims) if name in self._stored else self._type_and_shape(name)[1]
        if shape is None or len(shape) > _MAP_RANK:
            return False
        return channels > 1 or len(shape) < _MAP_RANK - 1 or shape[1 - _MAP_RANK] == 1


def _declared(graph: onnx.GraphProto) -> dict[str, _TypeAndShape]:
    found: dict[str, _TypeAndShape] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        tensor = info.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
        found[info.name] = (tensor.elem_type, shape if tensor.HasField("shape") else None)
    return found
