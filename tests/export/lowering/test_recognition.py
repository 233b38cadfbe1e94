"""Activations are found where the lowering may not touch them: float16, quantised, of old opsets, of unknown kind."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from export.lowering.recognition import activations_by_output
from export.quantization.quantize import quantize_like

node = helper.make_node
IN_RANGES = ("hardswish", "prelu_channel")
"""At INT8 their Clip or Relu is in the range of the quantisation, and nothing nonlinear is left."""
NAMES = ("silu", "hardswish", "mish", "gelu", "gelu_tanh", "elu", "softplus", "prelu_channel", "acon", "pade")


def net_of(name: str) -> onnx.ModelProto:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), activations.create(name, 8), nn.Conv2d(8, 4, 1))
    with activations.as_if_trained(network):
        return quick_graph(network, (3, 8, 8))[0]


def written(*nodes: onnx.NodeProto, opset: int = 20, **constants: object) -> onnx.ModelProto:
    """From x to y, each constant a float32 array."""
    stored = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy"]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("name", NAMES)
def test_at_every_precision(name: str) -> None:
    model = net_of(name)
    half = convert_float_to_float16(onnx.ModelProto.FromString(model.SerializeToString()), keep_io_types=True)
    quantised = onnx.load_model_from_string(quantize_like(model.SerializeToString()))
    for each in (model, half, quantised):
        left = set() if each is quantised and name in IN_RANGES else {name}
        assert set(activations_by_output(each).values()) == left


def test_constants_that_are_rounded_to_float16() -> None:
    steps = [("Add", "x", "three", "a"), ("Clip", "a", "", "b"), ("Mul", "b", "sixth", "c"), ("Mul", "c", "x", "y")]
    nodes = [node(op, [first, second], [end]) for op, first, second, end in steps]
    nodes[1].input[:] = ["a", "zero", "six"]
    model = written(*nodes, three=3, zero=0, six=6, sixth=np.float16(1 / 6))
    assert activations_by_output(model) == dict.fromkeys("abcy", "hardswish")


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        (
            [node("Exp", ["x"], ["a"]), node("Tanh", ["a"], ["b"]), node("Mul", ["b", "x"], ["y"])],
            dict.fromkeys("aby", "Exp·Tanh·Mul"),
        ),
        ([node("Relu", ["x"], ["a"]), node("Exp", ["a"], ["y"])], {"a": "relu", "y": "Exp"}),
        ([node("Relu", ["x"], ["a"]), node("Abs", ["a"], ["y"])], {"a": "relu", "y": "relu"}),
        ([node("Celu", ["x"], ["y"])], {"y": "celu"}),
        ([node("PRelu", ["x", "slope"], ["y"])], {"y": "prelu"}),
        ([node("Add", ["x", "slope"], ["a"]), node("Relu", ["a"], ["y"])], {"y": "relu"}),
        ([node("Mul", ["x", "slope"], ["y"])], {}),
        ([node("QuickGelu", ["x"], ["y"], domain="com.microsoft")], {"y": "silu"}),
    ],
    ids=["unknown", "unknown-behind", "of-no-effect", "celu", "prelu", "a-bias-before", "linear", "runtime"],
)
@pytest.mark.parametrize("opset", [8, 20])
def test_names(nodes: list[onnx.NodeProto], names: dict[str, str], opset: int) -> None:
    assert activations_by_output(written(*nodes, opset=opset, slope=0.25)) == names
