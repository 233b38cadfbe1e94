"""Which parts of a graph are read as a function of one number, and which are not."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.lowering.lower import lower, lower_with_report
from export.lowering.regions import regions
from helpers.graphs import FLOAT, Node, X, assert_lowers_alike, between, graph_of, normal, ops, recognised, run

SILU = [Node("Sigmoid", ["x"], ["s"]), Node("Mul", ["x", "s"], ["z"])]
MISH = [Node("Softplus", ["x"], ["p"]), Node("Tanh", ["p"], ["t"]), Node("Mul", ["x", "t"], ["z"])]


def found(model):
    return [(region.root, region.output, len(region.nodes)) for region in regions(model.graph, lambda region: True)]


# --- what is between two values


def test_the_largest_is_offered_first_and_is_the_function():
    asked = []
    regions(graph_of(MISH).graph, lambda region: asked.append(region.positions) is not None)
    assert asked == [(0, 1, 2), (0, 1), (1,), (0,)]
    only = regions(graph_of(MISH).graph, lambda region: True)[0]
    x = normal(5)
    np.testing.assert_allclose(only(x), [x * np.tanh(np.log1p(np.exp(x)))], rtol=1e-5)


def test_they_are_disjoint():
    chain = [Node("Neg", ["x"], ["a"]), Node("Conv", ["a", "w"], ["b"]), Node("Exp", ["b"], ["z"])]
    assert found(graph_of(chain, {"w": normal(4, 8, 3, 3)})) == [("b", "z", 1), ("x", "a", 1)]


def test_what_something_else_reads_is_no_inner_value():
    model = graph_of([*MISH, Node("Neg", ["p"], ["other"])], outputs=("z", "other"))
    assert ("x", "z", 3) not in found(model)
    assert assert_lowers_alike(model, X).sites == lower_with_report(model).sites


def test_an_output_of_the_graph_is_no_inner_value():
    model = graph_of(MISH, outputs=("z", "p"))
    assert ("x", "z", 3) not in found(model)
    assert_lowers_alike(model, X)


@pytest.mark.parametrize("branch_reads", ["p", "t"])
@pytest.mark.parametrize("chosen", [True, False])
def test_what_a_branch_reads_is_no_inner_value(branch_reads, chosen):
    def branch(name):
        inside = [Node("Neg", [branch_reads], [f"{name}.n"]), Node("Abs", [f"{name}.n"], [f"{name}.o"])]
        return helper.make_graph(inside, name, [], [helper.make_tensor_value_info(f"{name}.o", FLOAT, None)])

    choice = Node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    model = graph_of([*MISH, choice], {"c": np.bool_(chosen)}, outputs=("z", "y"))
    assert ("x", "z", 3) not in found(model)
    assert_lowers_alike(model, X)


def test_what_a_loop_reads_is_no_inner_value():
    state = [helper.make_tensor_value_info("carried", FLOAT, None)]
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, []),
              helper.make_tensor_value_info("go", TensorProto.BOOL, []), *state]  # fmt: skip
    outputs = [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
               helper.make_tensor_value_info("sum", FLOAT, None)]  # fmt: skip
    inside = [Node("Identity", ["go"], ["on"]), Node("Add", ["carried", "t"], ["sum"])]
    body = helper.make_graph(inside, "body", inputs, outputs)
    model = graph_of([*MISH, Node("Loop", ["n", "", "x"], ["y"], body=body)], {"n": np.int64(3)}, outputs=("z", "y"))
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("y", FLOAT, [None] * 4))
    assert ("x", "z", 3) not in found(model)
    assert_lowers_alike(model, X)


def test_a_residual_sum_ends_a_region():
    nodes = [
        Node("Conv", ["x", "w"], ["a"]),
        Node("Add", ["a", "x"], ["b"]),
        Node("Sigmoid", ["b"], ["s"]),
        Node("Mul", ["b", "s"], ["z"]),
    ]
    model = graph_of(nodes, {"w": normal(8, 8, 1, 1)})
    assert found(model) == [("b", "z", 2)]
    assert recognised(assert_lowers_alike(model, X)) == ["swish"]


def test_a_squeezed_gate_is_no_function_of_what_it_gates():
    nodes = [
        Node("GlobalAveragePool", ["x"], ["p"]),
        Node("Conv", ["p", "w"], ["c"]),
        Node("Sigmoid", ["c"], ["s"]),
        Node("Mul", ["x", "s"], ["z"]),
    ]
    model = graph_of(nodes, {"w": normal(8, 8, 1, 1)})
    assert found(model) == [("c", "s", 1)]
    assert recognised(assert_lowers_alike(model, X)) == ["sigmoid"]


def test_two_inputs_have_no_common_root():
    nodes = [Node("Conv", ["x", "w"], ["a"]), Node("Sigmoid", ["a"], ["s"]), Node("Mul", ["x", "s"], ["z"])]
    assert found(graph_of(nodes, {"w": normal(8, 8, 1, 1)})) == [("a", "s", 1)]


def test_a_comparison_is_no_activation():
    model = graph_of([Node("Greater", ["x", "k"], ["z"])], {"k": 0.0}, output_kind=TensorProto.BOOL)
    assert found(model) == []
    assert ops(lower(model)) == ["Greater"]
    each = graph_of([Node("Less", ["x", "k"], ["z"])], {"k": normal(8, 1, 1)}, output_kind=TensorProto.BOOL)
    assert ops(lower(each)) == ["Less"]


# --- constants


def prelu_by_hand(slope):
    nodes = [Node("Mul", ["x", "k"], ["a"]), Node("Max", ["x", "a"], ["z"])]
    return nodes, {"k": slope}


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (8, 1, 1), (1, 8, 1, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("how", ["initializer", "node"])
def test_constants_of_several_shapes(shape, how):
    nodes, constants = prelu_by_hand(between(0.1, 0.9, *shape))
    if how == "node":
        nodes.insert(0, Node("Constant", [], ["k"], value=numpy_helper.from_array(constants.pop("k"))))
    assert recognised(assert_lowers_alike(graph_of(nodes, constants), X)) == ["leaky_relu"]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 6), (1, 6, 1), (3, 1, 1, 1)], ids=str)
def test_constants_of_another_axis_stay_on_it(shape):
    model = graph_of(*prelu_by_hand(between(0.1, 0.9, *shape)), (3, 8, 6, 6))
    assert_lowers_alike(model, X)


@pytest.mark.parametrize("shape", [(8, 1, 6), (6, 6), (8, 6, 6)], ids=str)
def test_constants_of_two_axes_are_left_alone(shape):
    model = graph_of(*prelu_by_hand(between(0.1, 0.9, *shape)))
    assert lower_with_report(model).sites == ()
    assert_lowers_alike(model, X)


def test_constants_of_different_axes_are_left_alone():
    nodes = [Node("Mul", ["x", "k"], ["a"]), Node("Mul", ["a", "l"], ["b"]), Node("Max", ["x", "b"], ["z"])]
    model = graph_of(nodes, {"k": between(0.1, 0.9, 6), "l": between(0.1, 0.9, 8, 1, 1)})
    assert lower_with_report(model).sites == ()


@pytest.mark.parametrize(
    ("shape", "constant"),
    [((3, 8), (1, 1, 1)), ((3, 8), (1, 1, 1, 1)), ((3, 1, 6, 6), (8, 1, 1)), ((3, 1), (8,)), ((3, 8, 1), (6,))],
    ids=str,
)
@pytest.mark.parametrize("equal", [True, False])
def test_constants_that_widen_the_result(shape, constant, equal):
    values = np.full(constant, 0.3, np.float32) if equal else between(0.1, 0.9, *constant)
    model = graph_of(*prelu_by_hand(values), shape)
    assert ops(assert_lowers_alike(model, normal(*shape)).model) == ["Mul", "Max"]


def test_an_unknown_width_counts_as_another():
    model = graph_of(*prelu_by_hand(between(0.1, 0.9, 8, 1, 1)), (3, None, 6, 6))
    assert ops(lower(model)) == ["Mul", "Max"]
    for channels in (1, 8):
        assert_lowers_alike(model, normal(3, channels, 6, 6))


def test_a_default_that_callers_may_replace_is_no_constant():
    model = graph_of(*prelu_by_hand(np.float32(0.3)))
    model.graph.input.append(helper.make_tensor_value_info("k", FLOAT, []))
    assert ops(lower(model)) == ["Mul", "Max"]


# --- types


@pytest.mark.parametrize("nodes", [SILU, [Node("Softplus", ["x"], ["z"])], [Node("Elu", ["x"], ["z"])]], ids=len)
def test_halves_are_left_alone(nodes):
    model = graph_of(nodes, kind=TensorProto.FLOAT16)
    assert lower_with_report(model).sites == ()
    assert_lowers_alike(model, X.astype(np.float16))


def test_halves_inside_a_float_graph_are_left_alone():
    nodes = [
        Node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        Node("Elu", ["h"], ["e"]),
        Node("Cast", ["e"], ["z"], to=FLOAT),
    ]
    model = graph_of(nodes)
    assert lower_with_report(model).sites == ()
    assert_lowers_alike(model, X)


def test_doubles_are_left_alone():
    nodes = [Node("Max", ["x", "low"], ["a"]), Node("Min", ["a", "high"], ["z"])]
    model = graph_of(nodes, {"low": np.float64(0), "high": np.float64(6)}, kind=TensorProto.DOUBLE)
    assert lower_with_report(model).sites == ()
    assert_lowers_alike(model, X.astype(np.float64))


def test_integers_are_left_alone():
    nodes = [Node("Relu", ["x"], ["r"]), Node("Mul", ["r", "r"], ["z"])]
    model = graph_of(nodes, kind=TensorProto.INT32)
    assert lower_with_report(model).sites == ()
    assert_lowers_alike(model, X.astype(np.int32))


def test_another_domain_is_another_operator():
    nodes = [Node("Gelu", ["x"], ["z"], domain="com.microsoft")]
    model = graph_of(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert lower_with_report(model).sites == ()


def test_before_opset_9_nothing_is_read():
    assert lower_with_report(graph_of([Node("Elu", ["x"], ["z"])], opset=8)).sites == ()


# --- long ones


@pytest.mark.parametrize("op_type", ["Tanh", "Relu", "Add"])
def test_long_chains(op_type):
    names = ["x", *(f"v{at}" for at in range(120)), "z"]
    inputs = ["k"] if op_type == "Add" else []
    nodes = [Node(op_type, [a, *inputs], [b]) for a, b in itertools.pairwise(names)]
    model = graph_of(nodes, {"k": 0.01} if inputs else {})
    found = lower_with_report(model)
    for one, other in zip(run(found.model, X), run(model, X), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert len(found.model.graph.node) <= len(nodes)
