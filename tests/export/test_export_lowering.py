"""The rewrites on graphs written by hand: done where they are exact, left alone elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from export_nets import histogram
from onnx import TensorProto, helper, numpy_helper

from export import lowering, onnx_file


def mean_graph(
    axes=(2, 3), *, keepdims=1, opset=20, rank=4, kind=TensorProto.FLOAT, via="initializer"
) -> onnx.ModelProto:
    """Relu → ReduceMean, with the axes as attribute (below opset 18), initializer, Constant node or input."""
    inputs = [helper.make_tensor_value_info("x", kind, ["batch", 3, 5, 5, 5][:rank])]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    initializers = []
    values = numpy_helper.from_array(np.asarray(axes, np.int64), "axes")
    if opset < 18:
        nodes.append(helper.make_node("ReduceMean", ["y"], ["z"], "m/ReduceMean", axes=axes, keepdims=keepdims))
    else:
        nodes.append(helper.make_node("ReduceMean", ["y", "axes"], ["z"], "m/ReduceMean", keepdims=keepdims))
        if via == "initializer":
            initializers.append(values)
        elif via == "node":
            nodes.insert(0, helper.make_node("Constant", [], ["axes"], value=values))
        else:
            inputs.append(helper.make_tensor_value_info("axes", TensorProto.INT64, [len(axes)]))
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("z", kind, None)], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnx_file.run(onnx_file.open_session(model.SerializeToString()), x)


X = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [13, 18, 20])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (3, -2)])
def test_a_mean_over_the_image_becomes_a_pool(axes, opset, keepdims):
    model = mean_graph(axes, opset=opset, keepdims=keepdims)
    before = model.SerializeToString()
    lowered = lowering.lower(model)
    assert model.SerializeToString() == before
    expected = {"Relu": 1, "GlobalAveragePool": 1} | ({} if keepdims else {"Flatten": 1})
    assert histogram(lowered) == expected
    assert not lowered.graph.initializer
    np.testing.assert_allclose(outputs(lowered, X), outputs(model, X), atol=1e-6)
    assert outputs(lowered, X).shape == ((2, 3, 1, 1) if keepdims else (2, 3))


def test_axes_from_a_constant_node_count_and_the_node_goes():
    lowered = lowering.lower(mean_graph(via="node"))
    assert histogram(lowered) == {"Relu": 1, "GlobalAveragePool": 1}
    assert [node.name for node in lowered.graph.node][1] == "m/GlobalAveragePool"


@pytest.mark.parametrize(
    "options",
    [
        {"axes": (1, 2)},
        {"axes": (3,)},
        {"axes": (1, 2, 3)},
        {"via": "input"},
        {"rank": 5},
        {"kind": TensorProto.INT32},
    ],
    ids=str,
)
def test_other_means_are_left_alone(options):
    model = mean_graph(**options)
    assert histogram(lowering.lower(model)) == histogram(model)


def test_only_the_pool_is_restored_when_only_that_is_asked_for():
    model = mean_graph()
    restored = lowering.restore_global_average_pool(model)
    assert histogram(restored)["GlobalAveragePool"] == 1
    assert [tensor.name for tensor in restored.graph.initializer] == ["axes"]


def test_what_nothing_needs_is_dropped_and_what_a_branch_reads_is_kept():
    value = numpy_helper.from_array(np.ones(3, np.float32), "captured")
    branch = helper.make_graph(
        [helper.make_node("Add", ["y", "captured"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [3])],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Neg", ["y"], ["dead_one"]),
        helper.make_node("Exp", ["dead_one"], ["dead_two"]),
        helper.make_node("If", ["condition"], ["z"], then_branch=branch, else_branch=branch),
    ]
    initializers = [value, numpy_helper.from_array(np.ones(3, np.float32), "unused")]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [3])],
        initializers,
        value_info=[helper.make_tensor_value_info("dead_one", TensorProto.FLOAT, [3])],
    )
    trimmed = lowering.drop_dead(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert [node.op_type for node in trimmed.graph.node] == ["Relu", "If"]
    assert [tensor.name for tensor in trimmed.graph.initializer] == ["captured"]
    assert not trimmed.graph.value_info
    onnx.checker.check_model(trimmed, full_check=True)
