"""Constants as initializers: however a file states them, nodes read them directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from export.onnx_file import DEFAULT_DOMAINS, copied, names_read_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

_IR_OF_PLAIN_INITIALIZERS = 4  # before it, every initializer had to be an input too, which no caller could replace
_AS_ARRAY: Mapping[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def gather_constants(model: onnx.ModelProto) -> None:
    """Turn the main graph's Constant nodes into initializers and skip Identity nodes of constants, in place.

    Graph outputs stay as they are; so do an Identity that a nested graph reads and constants of text or of a sparse
    tensor. Files before IR version 4 are brought to it.
    """
    graph = model.graph
    if model.ir_version < _IR_OF_PLAIN_INITIALIZERS:
        _part_inputs(graph)
        model.ir_version = _IR_OF_PLAIN_INITIALIZERS
    outputs = {info.name for info in graph.output}
    gone: list[int] = []
    for at, node in enumerate(graph.node):
        if node.op_type != "Constant" or node.domain not in DEFAULT_DOMAINS or node.output[0] in outputs:
            continue
        tensor = _tensor_of(node)
        if tensor is not None:
            graph.initializer.append(tensor)
            gone.append(at)
    _remove(graph.node, gone)
    _read_through(graph, outputs)


def initializers_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The graph's initializers by name, without those that are defaults of inputs."""
    inputs = {info.name for info in graph.input}
    return {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}


def _part_inputs(graph: onnx.GraphProto) -> None:
    stored = {tensor.name for tensor in graph.initializer}
    _remove(graph.input, [at for at, info in enumerate(graph.input) if info.name in stored])


def _tensor_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """A Constant node's tensor, named after its output; None where it is no dense tensor."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor: onnx.TensorProto = copied(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name not in _AS_ARRAY:
        return None
    values = np.asarray(helper.get_attribute_value(attribute), _AS_ARRAY[attribute.name])
    return numpy_helper.from_array(values, node.output[0])


def _read_through(graph: onnx.GraphProto, outputs: set[str]) -> None:
    """Make readers of an Identity of a constant read the constant itself."""
    constants = set(initializers_of(graph))
    nested = names_read_within(graph.node)
    meant: dict[str, str] = {}
    gone: list[int] = []
    for at, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name in meant:
                node.input[place] = meant[name]
        plain = node.op_type == "Identity" and node.domain in DEFAULT_DOMAINS and node.input[0] in constants
        if plain and node.output[0] not in outputs | nested:
            meant[node.output[0]] = node.input[0]
            gone.append(at)
    _remove(graph.node, gone)


def _remove(entries: Any, places: list[int]) -> None:
    for at in reversed(places):
        del entries[at]
