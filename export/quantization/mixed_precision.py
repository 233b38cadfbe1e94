"""The parts of a network that can be left in float, as data for a search of mixed precision; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.onnx_file import DEFAULT_DOMAINS
from export.quantization import qdq_plan

if TYPE_CHECKING:
    import onnx

_GATES = frozenset({"Sigmoid", "HardSigmoid"})
_ACTIVATIONS = _GATES | {"HardSwish", "LeakyRelu"}
_FOLLOWING = _ACTIVATIONS | qdq_plan.RESCALING | qdq_plan.MOVING | {"Relu", "Clip"}


@dataclass(frozen=True)
class FloatGroup:
    """A convolution or matrix product with the nodes that follow it, up to the next product.

    Attributes:
        name: for people.
        nodes: values that its nodes make, as `float_nodes` takes them.
    """

    name: str
    nodes: tuple[str, ...]


def groups_of(model: onnx.ModelProto) -> tuple[FloatGroup, ...]:
    """The model's groups, in order of execution; a network's stem and head are the first and the last."""
    products = qdq_plan.plan(model).products
    groups: list[tuple[str, list[str]]] = []
    for node in model.graph.node:
        if node.domain not in DEFAULT_DOMAINS or len(node.output) != 1:
            continue
        if node.output[0] in products:
            groups.append((node.name or node.output[0], [node.output[0]]))
        elif groups and node.op_type in _FOLLOWING:
            groups[-1][1].append(node.output[0])
    return tuple(FloatGroup(name, tuple(nodes)) for name, nodes in groups)


def activations_of(model: onnx.ModelProto) -> frozenset[str]:
    """Values made by activations that have an integer operator of their own; a clamp has none.

    A product of a value with its own gate (silu) or with itself (squared relu) belongs to them.
    """
    found, gated = set(), {}
    for node in model.graph.node:
        if node.op_type in _ACTIVATIONS:
            found.add(node.output[0])
        if node.op_type in _GATES:
            gated[node.output[0]] = node.input[0]
        if node.op_type == "Mul":
            first, second = node.input
            if first == second or gated.get(first) == second or gated.get(second) == first:
                found.add(node.output[0])
    return frozenset(found)
