"""Nodes that the lowering skips are listed, with the reason."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.lowering.skipped import skipped_nodes
from helpers.graphs import FLOAT, Node, graph_of


def reasons(model: onnx.ModelProto) -> dict[str, dict[str, int]]:
    before = model.SerializeToString()
    found = skipped_nodes(model)
    assert model.SerializeToString() == before
    return {each.reason: each.operators for each in found}


def test_nothing_where_all_is_known():
    nodes = [
        Node("Mish", ["x"], ["a"]),
        Node("Softplus", ["a"], ["b"]),
        Node("Add", ["a", "b"], ["c"]),
        Node("Pow", ["c", "two"], ["d"]),
        Node("Sigmoid", ["d"], ["z"]),
    ]
    assert skipped_nodes(graph_of(nodes, {"two": 2.0})) == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "float64"), (TensorProto.BFLOAT16, "bfloat16")],
)
def test_other_floats(kind, name):
    nodes = [Node("Mish", ["x"], ["a"], "first"), Node("Mish", ["a"], ["b"]), Node("Softplus", ["b"], ["z"])]
    (found,) = skipped_nodes(graph_of(nodes, kind=kind))
    assert found.reason == f"in {name}; only float32 is looked at"
    assert found.operators == {"Mish": 2, "Softplus": 1}
    assert found.first == "first"


def test_the_bodies_of_control_flow():
    def branch(kind: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(kind, FLOAT, None)
        return helper.make_graph([Node(kind, ["x"], [kind])], kind, [], [output])

    nodes = [
        Node("ReduceMax", ["x"], ["m"], keepdims=0),
        Node("Greater", ["m", "zero"], ["c"]),
        Node("If", ["c"], ["z"], then_branch=branch("Mish"), else_branch=branch("Neg")),
    ]
    found = reasons(graph_of(nodes, {"zero": 0.0}))
    assert found == {"in the body of If; only the main graph is looked at": {"Mish": 1}}


def test_functions_of_the_file():
    model = graph_of([Node("Smooth", ["x"], ["z"], domain="own")])
    body = [Node("Softplus", ["a"], ["s"]), Node("Tanh", ["s"], ["t"]), Node("Mul", ["a", "t"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "Smooth", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert reasons(model) == {
        "in functions of the file's own; only the main graph is looked at": {"Softplus": 1, "Tanh": 1}
    }


def test_operators_of_another_domain():
    model = graph_of([Node("Gelu", ["x"], ["z"], domain="com.microsoft")])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert reasons(model) == {"of the domain com.microsoft; only ONNX's own operators are looked at": {"Gelu": 1}}


def test_groups_that_are_no_known_activation():
    nodes = [
        Node("Exp", ["x"], ["e"], "m/Exp"),
        Node("Tanh", ["e"], ["t"]),
        Node("Mul", ["t", "x"], ["y"]),
        Node("Mish", ["y"], ["z"]),
    ]
    (found,) = skipped_nodes(graph_of(nodes))
    assert found.reason == "in no activation that is known, or applied to a value whose shape isn't"
    assert found.operators == {"Exp": 1}  # the Tanh alone is one
    assert found.first == "m/Exp"


def test_slopes_of_channels_where_the_shape_is_not_known():
    nodes = [Node("Resize", ["x", "", "", "s"], ["r"]), Node("PRelu", ["r", "slope"], ["z"])]
    model = graph_of(nodes, {"slope": np.linspace(0.1, 0.8, 8).reshape(8, 1, 1)}, (None, None, None, None))
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, None))
    assert "in no activation that is known, or applied to a value whose shape isn't" in reasons(model)


def test_old_opsets():
    assert reasons(graph_of([Node("Elu", ["x"], ["z"])], opset=8)) == {
        "of opset 8; operators are looked at from opset 9 on": {"Elu": 1}
    }


def test_whole_numbers_are_no_activations():
    nodes = [Node("Shape", ["x"], ["s"]), Node("Max", ["s", "one"], ["z"])]
    assert skipped_nodes(graph_of(nodes, {"one": np.ones(1, np.int64)}, output_kind=TensorProto.INT64)) == ()


def test_an_operator_of_which_nothing_is_known():
    model = graph_of([Node("Strange", ["x"], ["y"], domain="own"), Node("Mish", ["y"], ["w"])], outputs=("w",))
    model.graph.output[0].type.Clear()
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert reasons(model) == {"of a type that can't be told from the file": {"Mish": 1}}
