"""Constants are the same to the lowering whichever way a file gives them."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.lowering.lower import lower
from helpers.graphs import FLOAT, Node, X, assert_lowers_alike, between, graph_of, normal, ops, recognised, run

SLOPES = between(0.1, 0.9, 8, 1, 1)
WEIGHTS = {"w": normal(8, 8, 3, 3, seed=3) / 9, "b": normal(8, seed=4)}


def constant(name: str, value: object) -> onnx.NodeProto:
    return Node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value, np.float32), name))


def with_prelu(*, as_nodes: bool) -> onnx.ModelProto:
    values = {**WEIGHTS, "slope": SLOPES}
    nodes = [Node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), Node("PRelu", ["c", "slope"], ["z"])]
    if as_nodes:
        return graph_of([*(constant(name, value) for name, value in values.items()), *nodes])
    return graph_of(nodes, values)


def test_weights_of_constant_nodes_tell_the_channels_and_can_be_folded():
    """Only in a map of known channels can a slope of each channel stay in the blocked layout."""
    found = assert_lowers_alike(with_prelu(as_nodes=True), X)
    assert (
        ops(found.model)
        == ops(assert_lowers_alike(with_prelu(as_nodes=False), X).model)
        == ["Conv", "Conv", "Relu", "Conv", "Add"]
    )
    silu = [
        constant("w", WEIGHTS["w"]),
        constant("v", WEIGHTS["w"]),
        constant("beta", 1.5),
        Node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        Node("Mul", ["c", "beta"], ["s"]),
        Node("Sigmoid", ["s"], ["g"]),
        Node("Mul", ["c", "g"], ["a"]),
        Node("Conv", ["a", "v"], ["z"]),
    ]
    assert recognised(assert_lowers_alike(graph_of(silu), X)) == ["swish+"]


def shared(*, chain: int = 1) -> onnx.ModelProto:
    """Two PRelu of one slope, which the second one reads through Identity nodes."""
    nodes = [Node("PRelu", ["x", "slope"], ["p"]), Node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2])]
    names = ["slope", *(f"slope{at}" for at in range(chain))]
    nodes += [Node("Identity", [old], [new]) for old, new in itertools.pairwise(names)]
    return graph_of([*nodes, Node("PRelu", ["y", names[-1]], ["z"])], {"slope": [0.25]})


@pytest.mark.parametrize("chain", [1, 3])
def test_a_slope_that_is_shared_through_identity(chain):
    found = assert_lowers_alike(shared(chain=chain), X)
    assert ops(found.model) == ["LeakyRelu", "MaxPool", "LeakyRelu"]
    assert not found.model.graph.initializer


def test_identity_of_a_constant_node():
    nodes = [
        constant("value", SLOPES),
        Node("Identity", ["value"], ["slope"]),
        Node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        Node("PRelu", ["c", "slope"], ["z"]),
    ]
    assert ops(assert_lowers_alike(graph_of(nodes, WEIGHTS), X).model) == ["Conv", "Conv", "Relu", "Conv", "Add"]


@pytest.mark.parametrize(
    ("attributes", "kind"), [({"value_float": 0.25}, "LeakyRelu"), ({"value_floats": [0.25]}, "LeakyRelu")], ids=str
)
def test_plain_numbers_of_a_constant_node(attributes, kind):
    nodes = [Node("Constant", [], ["slope"], **attributes), Node("PRelu", ["x", "slope"], ["z"])]
    assert ops(assert_lowers_alike(graph_of(nodes), X).model) == [kind]


def test_whole_numbers_of_a_constant_node():
    nodes = [Node("Constant", [], ["axes"], value_ints=[2, 3]), Node("ReduceMean", ["x", "axes"], ["z"])]
    assert ops(assert_lowers_alike(graph_of(nodes), X).model) == ["GlobalAveragePool"]


def test_what_callers_see_stays():
    nodes = [
        constant("told", 2.0),
        Node("Identity", ["slope"], ["copy"]),
        Node("PRelu", ["x", "copy"], ["y"]),
        Node("Mul", ["y", "told"], ["z"]),
    ]
    model = graph_of(nodes, {"slope": [0.25]}, outputs=("z", "told", "copy"))
    model.graph.output[1].type.tensor_type.shape.SetInParent()
    found = lower(model)
    assert [node.op_type for node in found.graph.node][:2] == ["Constant", "Identity"]
    for one, other in zip(run(found, X), run(model, X), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_default_that_callers_may_replace_is_no_constant():
    model = shared()
    model.graph.input.append(helper.make_tensor_value_info("slope", FLOAT, [1]))
    assert ops(lower(model)) == ["PRelu", "MaxPool", "Identity", "PRelu"]


def test_what_a_nested_graph_reads_stays():
    inner = helper.make_graph(
        [Node("Mul", ["x", "copy"], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", FLOAT, None)]
    )
    nodes = [
        Node("Identity", ["slope"], ["copy"]),
        Node("PRelu", ["x", "copy"], ["y"]),
        Node("ReduceMax", ["x"], ["m"], keepdims=0),
        Node("Greater", ["m", "slope"], ["c"]),
        Node("Squeeze", ["c"], ["condition"]),
        Node("If", ["condition"], ["t"], then_branch=inner, else_branch=inner),
        Node("Add", ["y", "t"], ["z"]),
    ]
    found = assert_lowers_alike(graph_of(nodes, {"slope": [0.25]}), X)
    assert "Identity" in ops(found.model)


def old_model() -> onnx.ModelProto:
    """Before IR version 4 every initializer is an input, too."""
    model = with_prelu(as_nodes=False)
    model.ir_version = 3
    model.opset_import[0].version = 9
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims) for tensor in model.graph.initializer
    )
    return model


def test_the_initializers_of_an_old_file_are_constants():
    found = assert_lowers_alike(old_model(), X)
    assert ops(found.model) == ["Conv", "Conv", "Relu", "Conv", "Add"]
    assert [info.name for info in found.model.graph.input] == ["x"]
