"""The branch that an If takes, in the place of the If."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from latency_models.graph.attributes import subgraphs
from latency_models.graph.shapes import constants_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Evaluate = Callable[[onnx.ModelProto, Sequence[str]], Mapping[str, np.ndarray]]

_MOST_DEPTH = 50


def take_branches(model: onnx.ModelProto, evaluate: Evaluate) -> tuple[onnx.ModelProto, frozenset[str]]:
    """The model without its Ifs: each has given way to the branch that its condition chooses.

    Args:
        model: stays as it is.
        evaluate: computes named values of a model.

    Returns:
        The model, and the results of those Ifs whose condition depends on inputs: no runtime knows them beforehand,
        also where the branch that was taken gives a constant.

    Ifs inside loops stay, since each turn may take another branch.

    Raises:
        ValueError: an If has no such branch, or one with other results.
    """
    taken, decided_late = model, frozenset[str]()
    for _ in range(_MOST_DEPTH):
        conditions = _first_conditions(taken.graph)
        if not conditions:
            break
        chosen = {name: bool(np.all(value)) for name, value in evaluate(taken, conditions).items()}
        late = chosen.keys() - constants_of(taken, decided_late)
        ifs = [node for node in taken.graph.node if node.op_type == "If" and node.input[0] in late]
        decided_late |= {name for node in ifs for name in node.output if name}
        taken = _spliced(taken, chosen)
    return taken, decided_late


def _first_conditions(graph: onnx.GraphProto) -> list[str]:
    """Conditions of the Ifs whose condition depends on no other If's result."""
    pending: set[str] = set()
    found: dict[str, None] = {}
    for node in graph.node:
        late = bool(pending.intersection(node.input))
        if node.op_type == "If" and not late and node.input:
            found[node.input[0]] = None
        if late or node.op_type == "If":
            pending.update(node.output)
    return list(found)


def _spliced(model: onnx.ModelProto, chosen: Mapping[str, bool]) -> onnx.ModelProto:
    """The model with the branches of those Ifs whose condition is known in their place."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for number, node in enumerate(model.graph.node):
        if node.op_type != "If" or node.input[0] not in chosen:
            result.graph.node.append(node)
            continue
        wanted = "then_branch" if chosen[node.input[0]] else "else_branch"
        branch = next((each.g for each in node.attribute if each.name == wanted), None)
        if branch is None or len(branch.output) != len(node.output):
            raise ValueError(f"the If that makes {', '.join(node.output)!r} has no {wanted} with as many results")
        _insert(result.graph, branch, node.output, f"if{number}/")
    return result


def _insert(graph: onnx.GraphProto, branch: onnx.GraphProto, outputs: Sequence[str], prefix: str) -> None:
    """Append a branch's nodes and weights under names of their own; its results get the names in `outputs`."""
    own = {tensor.name for tensor in branch.initializer}
    own.update(name for node in branch.node for name in node.output if name)
    names = {name: prefix + name for name in own}
    for tensor in branch.initializer:
        stored = graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = names[tensor.name]
    for node in branch.node:
        moved = graph.node.add()
        moved.CopyFrom(node)
        moved.name = prefix + node.name if node.name else ""
        _rename(moved, names)
    for info, output in zip(branch.output, outputs, strict=True):
        if output:
            graph.node.append(onnx.helper.make_node("Identity", [names.get(info.name, info.name)], [output]))


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give the values of a node new names, in the graphs inside it as well."""
    for field in (node.input, node.output):
        renamed = [names.get(name, name) for name in field]
        del field[:]
        field.extend(renamed)
    for graph in subgraphs(node):
        hidden = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
        hidden.update(name for inner in graph.node for name in inner.output)
        visible = {name: new for name, new in names.items() if name not in hidden}
        for inner in graph.node:
            _rename(inner, visible)
        for info in graph.output:
            info.name = visible.get(info.name, info.name)
