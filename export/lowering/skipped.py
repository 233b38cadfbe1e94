"""Nodes that the lowering doesn't look at, with the reasons; no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from export.lowering.activation_sites import OLDEST_OPSET, activation_regions
from export.lowering.elementwise import COMPARISONS, OPERATORS
from export.lowering.lower import tidied_copy
from export.lowering.value_types import ValueTypes
from export.onnx_file import DEFAULT_DOMAINS, nested_graphs, opset_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

# Operators that bend a curve; the others are arithmetic, which is found in every graph.
_ARITHMETIC = COMPARISONS | {"Abs", "Add", "Conv", "Div", "Identity", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt"}
_BENDING = OPERATORS - _ARITHMETIC - {"Sub", "Sum", "Where"}
_OTHER_FLOATS: Mapping[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}


@dataclass(frozen=True)
class SkippedNodes:
    """Nodes that may belong to activations but that the lowering skipped for one reason.

    Attributes:
        reason: as in "in float16; only float32 is looked at".
        operators: operator → number of nodes, the most frequent first.
        first: name of the first node, or of its output.
    """

    reason: str
    operators: dict[str, int]
    first: str


def skipped_nodes(model: onnx.ModelProto) -> tuple[SkippedNodes, ...]:
    """Find the nodes that `export.lower` skips in a model, one group for each reason.

    Args:
        model: any; stays as it is.
    """
    groups: dict[str, list[onnx.NodeProto]] = {}
    for reason, node in (*_in_main_graph(tidied_copy(model)), *_elsewhere(model)):
        groups.setdefault(reason, []).append(node)
    return tuple(
        SkippedNodes(
            reason,
            dict(Counter(node.op_type for node in nodes).most_common()),
            nodes[0].name or nodes[0].output[0],
        )
        for reason, nodes in groups.items()
    )


def _in_main_graph(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    types = ValueTypes(model)
    seen = {at for region in activation_regions(model, types) for at in region.positions}
    opset = opset_of(model) or 0
    for at, node in enumerate(model.graph.node):
        if at in seen or node.op_type not in _BENDING:
            continue
        reason = _reason(node, types, opset)
        if reason is not None:
            yield reason, node


def _reason(node: onnx.NodeProto, types: ValueTypes, opset: int) -> str | None:
    """The reason why a node is skipped; None for an operator on whole numbers."""
    if node.domain not in DEFAULT_DOMAINS:
        return f"of the domain {node.domain}; only ONNX's own operators are looked at"
    if opset < OLDEST_OPSET:
        return f"of opset {opset}; operators are looked at from opset {OLDEST_OPSET} on"
    elem_type = types.type_of(node.output[0]) or types.type_of(node.input[0])
    if elem_type in _OTHER_FLOATS:
        return f"in {_OTHER_FLOATS[elem_type]}; only float32 is looked at"
    if elem_type == TensorProto.UNDEFINED:
        return "of a type that can't be told from the file"
    if elem_type != TensorProto.FLOAT:
        return None
    return "in no activation that is known, or applied to a value whose shape isn't"


def _elsewhere(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    for holder in model.graph.node:
        for inner in _within(holder):
            yield f"in the body of {holder.op_type}; only the main graph is looked at", inner
    for function in model.functions:
        for node in function.node:
            for inner in (node, *_within(node)):
                if inner.op_type in _BENDING:
                    yield "in functions of the file's own; only the main graph is looked at", inner


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for graph in nested_graphs(node):
        yield from (each for each in graph.node if each.op_type in _BENDING)
