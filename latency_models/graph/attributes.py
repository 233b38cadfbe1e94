"""What a node holds in its attributes: graphs, tensors, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

SEQUENCE_LENGTHS = {"RNN": 4, "GRU": 4, "LSTM": 4, "DynamicQuantizeLSTM": 4}
"""Recurrent operator → which input says how long each sequence of a batch is."""


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches and bodies of a node of control flow."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph, then all graphs inside it, however deep."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            pending.extend(subgraphs(node))


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the values that a node reads, those that its branches and bodies read included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (info.name for info in graph.output)
        for inner in graph.node:
            yield from names_read(inner)
