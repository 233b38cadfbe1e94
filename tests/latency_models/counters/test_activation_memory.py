"""The runtime's counter of activations against bytes added up by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.cost_graphs import model, value, weight
from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.devices.device import Device

node = helper.make_node


def test_an_input_is_held_as_long_as_a_view_of_it() -> None:
    nodes = [node("Flatten", ["x"], ["f"]), node("Exp", ["f"], ["e"]), node("Add", ["e", "f"], ["y"])]
    net = model(nodes, [value("x", [1, 8, 8])], [value("y", [1, 64])])
    assert counted_peak_bytes(net.SerializeToString(), Device()) == 3 * 64 * 4  # x, e, y


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [onnx.ValueInfoProto(name=nodes[-1].output[0])])


@pytest.mark.parametrize(("taken", "widths"), [(True, (4, 2)), (False, (4, 3, 5))])
def test_what_a_branch_makes_is_counted_also_where_its_holder_is_the_first_kernel(
    taken: bool, widths: tuple[int, ...]
) -> None:
    """x and the condition are held while the branch runs; its result, or an inner value and its result."""
    then = branch("then", node("MatMul", ["x", "a"], ["r"]))
    otherwise = branch("else", node("MatMul", ["x", "b"], ["m"]), node("MatMul", ["m", "c"], ["s"]))
    nodes = [node("If", ["p"], ["y"], then_branch=then, else_branch=otherwise)]
    inputs = [value("x", [1, 4]), value("p", [], TensorProto.BOOL)]
    weights = [weight("a", 4, 2), weight("b", 4, 3), weight("c", 3, 5)]
    net = model(nodes, inputs, [onnx.ValueInfoProto(name="y")], weights)
    feed = {"x": np.ones((1, 4), np.float32), "p": np.array(taken)}
    assert counted_peak_bytes(net.SerializeToString(), Device(), feed) == 4 * sum(widths) + 1
