"""Barriers: nodes that hand a value on as it is, and across which ONNX Runtime's optimisations don't reach.

The runtime joins neighbours into one kernel, and some of these compute something else than the nodes that they stand
for. The largest of a single value is that value, in every opset, on every runtime, at the price of a copy; Identity,
Add of 0 and the like are removed before anything is joined.
"""

from __future__ import annotations

import onnx


def barrier(source: str, target: str) -> onnx.NodeProto:
    """A node that gives a value another name, and keeps apart what makes it and what reads it."""
    return onnx.helper.make_node("Max", [source], [target], name=f"{target}/Barrier")


def is_barrier(node: onnx.NodeProto) -> bool:
    """Whether the node only keeps its neighbours apart."""
    return node.op_type == "Max" and len(node.input) == 1
