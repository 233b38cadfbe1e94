"""The number of a model's weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from latency_models.graph.attributes import all_graphs
from latency_models.graph.shapes import constants_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import TensorProto

# All other types hold weights, the integers of quantised ones included. 64-bit integers are shapes, axes and indices.
_NO_WEIGHTS = frozenset(
    {
        onnx.TensorProto.UNDEFINED,
        onnx.TensorProto.INT64,
        onnx.TensorProto.UINT64,
        onnx.TensorProto.BOOL,
        onnx.TensorProto.STRING,
    }
)
_CONSTANTS = frozenset({"Constant", "ConstantOfShape"})
_ML_DOMAIN = "ai.onnx.ml"
_STATISTICS = frozenset({"nodes_hitrates", "nodes_hitrates_as_tensor"})


def params(model: onnx.ModelProto, filled: dict[str, tuple[int, ...]] | None = None) -> int:
    """Elements of the weights, of every stored type: initializers, constants, lists of classic models.

    A Constant or ConstantOfShape of a single number is a setting and no weight, and so is what ConstantOfShape fills
    at a size that inputs decide. Running statistics and quantisation
    scales are among the weights, and so are those of branches that aren't taken.

    Args:
        model: its external data isn't read.
        filled: shapes of values, for those that ConstantOfShape fills.
    """
    graphs = [each for graph in _bodies(model) for each in all_graphs(graph)]
    stored = sum(_elements(tensor) for graph in graphs for tensor in _stored(graph))
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    fixed = constants_of(model)
    shapes = {name: dims for name, dims in (filled or {}).items() if name in fixed}
    return stored + sum(_in_node(node, shapes) for node in nodes)


def _bodies(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield attribute.g


def _stored(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from (tensor.values for tensor in graph.sparse_initializer)


def _elements(tensor: TensorProto) -> int:
    return 0 if tensor.data_type in _NO_WEIGHTS else math.prod(tensor.dims)


def _in_node(node: onnx.NodeProto, filled: dict[str, tuple[int, ...]]) -> int:
    """Number of weights that a node stores or fills in."""
    if node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx"):
        kind = next((each.t.data_type for each in node.attribute if each.name == "value"), onnx.TensorProto.FLOAT)
        count = math.prod(filled[node.output[0]]) if node.output[0] in filled else 0
        return count if count > 1 and kind not in _NO_WEIGHTS else 0
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        count = sum(_in_attribute(each) for each in node.attribute)
        return count if count > 1 else 0
    if node.domain == _ML_DOMAIN:
        return sum(_in_attribute(each) for each in node.attribute if each.name not in _STATISTICS)
    return 0


def _in_attribute(attribute: onnx.AttributeProto) -> int:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _elements(attribute.t)
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return _elements(attribute.sparse_tensor.values)
    return len(attribute.floats)
