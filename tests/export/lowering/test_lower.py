"""The rewrites on graphs written by hand: done where they are exact, left alone elsewhere."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import onnx_file
from export.lowering import lower as lowering
from helpers.nets import histogram


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
    trimmed = lowering.lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert [node.op_type for node in trimmed.graph.node] == ["Relu", "If"]
    assert [tensor.name for tensor in trimmed.graph.initializer] == ["captured"]
    assert not trimmed.graph.value_info
    onnx.checker.check_model(trimmed, full_check=True)


def prelu_graph(slope: np.ndarray, shape=(None, 3, 5), *, as_input=False, name="act/PRelu") -> onnx.ModelProto:
    """Neg → PRelu: the input with its sign turned, so that nothing but the PRelu sees what is tested."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape[1:]])]
    tensor = numpy_helper.from_array(slope, "slope")
    if as_input:
        inputs.append(helper.make_tensor_value_info("slope", TensorProto.FLOAT, slope.shape))
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("PRelu", ["y", "slope"], ["z"], name)],
        "g",
        inputs,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", *shape[1:]])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0, -0.3], np.float32)


def special_values(*shape: int) -> np.ndarray:
    """Every special value, then many ordinary ones, so that also a kernel's wide steps are run."""
    ordinary = np.random.default_rng(0).normal(size=int(np.prod(shape))).astype(np.float32)
    ordinary[: 2 * len(SPECIAL)] = np.r_[SPECIAL, SPECIAL[::-1]]
    return ordinary.reshape(shape)


def bits(values: np.ndarray) -> np.ndarray:
    """As integers, every NaN alike: which of them comes out is the hardware's choice."""
    return np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32)


@pytest.mark.parametrize("shape", [(1,), (), (1, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("slope", [0.25, 0.1, -0.5, 1.7])
def test_prelu_with_one_slope_becomes_leaky_relu_to_the_last_bit(slope, shape):
    model = prelu_graph(np.full(shape, slope, np.float32))
    lowered = lowering.lower(model)
    assert histogram(lowered) == {"Neg": 1, "LeakyRelu": 1}
    assert not lowered.graph.initializer
    assert lowered.graph.node[1].name == "act/LeakyRelu"
    onnx.checker.check_model(lowered, full_check=True)
    x = special_values(7, 3, 5)
    np.testing.assert_array_equal(bits(outputs(lowered, x)), bits(outputs(model, x)))


@pytest.mark.parametrize(("slope", "expected"), [(0.0, "Relu"), (1e-42, "LeakyRelu"), (1.0, "PRelu")])
def test_slopes_that_make_it_something_else(slope, expected):
    model = prelu_graph(np.array([slope], np.float32))
    lowered = lowering.lower(model)
    assert histogram(lowered) == {"Neg": 1, expected: 1}
    x = X.reshape(6, 5, 5)[:, None, :, :].reshape(2, 3, 25)[..., :5]
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-6)


def test_what_prelu_makes_of_special_values_by_hand():
    lowered = lowering.lower(prelu_graph(np.array([0.25], np.float32), (None, 1, 8)))
    x = -np.array([[[0.0, -0.0, np.inf, -np.inf, np.nan, 2.0, -2.0, -1e-45]]], np.float32)
    expected = np.array([[[0.0, -0.0, np.inf, -np.inf, np.nan, 2.0, -0.5, -0.0]]], np.float32)
    np.testing.assert_array_equal(bits(outputs(lowered, x)), bits(expected))


def test_a_slope_from_outside_is_left_alone():
    model = prelu_graph(np.array([0.25], np.float32), as_input=True)  # a default that a caller may replace
    assert histogram(lowering.lower(model)) == {"Neg": 1, "PRelu": 1}


@pytest.mark.parametrize("slopes", [[[0.1], [0.2], [0.3]], [[0.1], [2.0], [-0.3]], [[0.25], [0.25], [0.25]]], ids=str)
def test_slopes_of_channels(slopes):
    """Outside of the blocked layout: max(x, ax) where no slope is above 1."""
    model = prelu_graph(np.array(slopes, np.float32))
    lowered = lowering.lower(model)
    kinds = {"Mul": 1, "Max": 1} if np.ptp(slopes) and np.max(slopes) <= 1 else {"PRelu": 1}
    kinds = kinds if np.ptp(slopes) else {"LeakyRelu": 1}
    assert histogram(lowered) == {"Neg": 1} | kinds
    x = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(outputs(lowered, x), outputs(model, x))


def test_a_slope_from_a_constant_node_counts_and_the_original_is_untouched():
    model = prelu_graph(np.array([0.25], np.float32))
    constant = helper.make_node("Constant", [], ["slope"], value=model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    before = model.SerializeToString()
    lowered = lowering.lower(model)
    assert model.SerializeToString() == before
    assert histogram(lowered) == {"Neg": 1, "LeakyRelu": 1}
    assert helper.get_attribute_value(lowered.graph.node[1].attribute[0]) == 0.25


def test_a_slope_shared_with_another_node_is_kept_for_it():
    model = prelu_graph(np.array([0.25], np.float32))
    model.graph.node.append(helper.make_node("Mul", ["z", "slope"], ["w"]))
    model.graph.output[0].name = "w"
    lowered = lowering.lower(model)
    assert histogram(lowered) == {"Neg": 1, "LeakyRelu": 1, "Mul": 1}
    assert [tensor.name for tensor in lowered.graph.initializer] == ["slope"]
    x = special_values(7, 3, 5)
    np.testing.assert_array_equal(bits(outputs(lowered, x)), bits(outputs(model, x)))


@pytest.mark.parametrize(("given", "called"), [("x.onnx", "str"), (b"", "bytes"), (None, "NoneType")])
def test_lower_takes_a_model(given, called):
    with pytest.raises(TypeError, match=rf"lower takes an onnx.ModelProto, as onnx.load\(path\) .* not a {called}"):
        lowering.lower(given)


@pytest.mark.parametrize(
    "weight",
    [
        TensorProto(name="w", dims=[4], data_type=1, segment=TensorProto.Segment(begin=0, end=2), float_data=[1, 2]),
        TensorProto(name="w", dims=[4], data_type=1, raw_data=b"1234"),
        TensorProto(name="w", dims=[-3], data_type=1, raw_data=b"1234"),
        TensorProto(name="w", dims=[2], data_type=1),  # not the output's declared size: no shape can be inferred
    ],
    ids=["in segments", "too short", "of a negative size", "empty"],
)
def test_weights_in_any_form_are_left_as_they_are(weight: TensorProto) -> None:
    model = mean_graph()
    model.graph.initializer.append(weight)
    model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    lowered = lowering.lower(model)
    assert histogram(lowered)["Relu"] == 1
    assert next(each for each in lowered.graph.initializer if each.name == "w") == weight
