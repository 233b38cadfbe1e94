"""What numpy computes of an operator against what ONNX Runtime does, special values included."""

import numpy as np
import pytest
from onnx import TensorProto

from export.lowering.elementwise import COMPARISONS, OPERATORS, attributes_of, evaluate
from helpers.graphs import Node, graph_of, normal, run

_SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38, -3e38, 1, -1, 88, -88, 100, -100, 20, 6, 3, -3]
X = np.tile(np.r_[np.array(_SPECIAL, np.float32), 3 * normal(45)].reshape(1, 1, 8, 8), (1, 8, 1, 1))
EACH = np.linspace(-2, 2, 8, dtype=np.float32).reshape(8, 1, 1)
ONE = np.float32(1.5)

UNARY = (
    "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Tanh", "Sigmoid", "Identity", "Relu", "Softplus", "Mish",
    "Softsign", "HardSwish", "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "HardSigmoid", "Gelu", "Swish",
)  # fmt: skip
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Max", "Min", "Sum", *sorted(COMPARISONS))
OPTIONS = [
    ("Gelu", {"approximate": "tanh"}),
    ("Elu", {"alpha": 0.3}),
    ("Celu", {"alpha": 2.0}),
    ("LeakyRelu", {"alpha": -0.5}),
    ("Selu", {"alpha": 2.0, "gamma": 0.5}),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    ("ThresholdedRelu", {"alpha": 0.5}),
    ("Swish", {"alpha": 1.7}),
]
CLIPS = [(ONE * 0, ONE * 4), (-ONE, None), (None, ONE * 0), (None, None)]


def as_the_runtime(op_type, constants=(), attributes=None, *, opset=20):
    """Whether it gives what the runtime does, at the precision of its exponential; NaN and infinities have to agree."""
    names = ["" if value is None else f"k{at}" for at, value in enumerate(constants)]
    stored = {name: value for name, value in zip(names, constants, strict=True) if name}
    node = Node(op_type, ["x", *names], ["z"], **(attributes or {}))
    kind = TensorProto.BOOL if op_type in COMPARISONS else TensorProto.FLOAT
    wanted = run(graph_of([node], stored, X.shape, opset=opset, output_kind=kind), X)[0]
    found = evaluate([node], stored, "x", "z", X)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)  # says where they differ
    return found.dtype == wanted.dtype


@pytest.mark.parametrize("op_type", UNARY)
def test_operators_of_one_value(op_type):
    assert as_the_runtime(op_type, opset=24 if op_type == "Swish" else 20)


@pytest.mark.parametrize("op_type", BINARY)
@pytest.mark.parametrize("constant", [EACH, ONE], ids=["of each channel", "one"])
def test_operators_with_a_constant(op_type, constant):
    assert as_the_runtime(op_type, [constant])


@pytest.mark.parametrize(("op_type", "attributes"), OPTIONS, ids=str)
def test_options(op_type, attributes):
    assert as_the_runtime(op_type, attributes=attributes, opset=24 if op_type == "Swish" else 20)


@pytest.mark.parametrize("limits", CLIPS, ids=str)
def test_limits(limits):
    assert as_the_runtime("Clip", limits)


@pytest.mark.parametrize("attributes", [{"min": 0.0, "max": 6.0}, {"min": -1.0}, {"max": 0.0}, {}], ids=str)
def test_limits_as_attributes(attributes):
    assert as_the_runtime("Clip", attributes=attributes, opset=10)


def test_several_at_once():
    assert as_the_runtime("Max", [EACH, ONE])
    assert as_the_runtime("Min", [EACH, -ONE])
    assert as_the_runtime("Sum", [EACH, ONE, EACH])


def test_a_choice():
    nodes = [Node("Greater", ["x", "k"], ["g"]), Node("Where", ["g", "x", "c"], ["z"])]
    stored = {"k": ONE, "c": EACH}
    np.testing.assert_array_equal(evaluate(nodes, stored, "x", "z", X), run(graph_of(nodes, stored, X.shape), X)[0])


@pytest.mark.parametrize("biased", [False, True])
def test_a_convolution_that_scales_channels(biased):
    stored = {"w": EACH.reshape(8, 1, 1, 1)} | ({"b": EACH.reshape(8)} if biased else {})
    nodes = [Node("Conv", ["x", *stored], ["z"], group=8)]
    x = np.where(np.isfinite(X), X, 0)
    found = evaluate(nodes, stored, "x", "z", x)
    np.testing.assert_allclose(found, run(graph_of(nodes, stored, X.shape), x)[0], rtol=1e-6)


def test_every_operator_is_tested():
    assert {*UNARY, *BINARY, "Clip", "Where", "Conv"} == OPERATORS


def test_precision_is_that_of_the_numbers():
    node = Node("Sigmoid", ["x"], ["z"])
    for kind in (np.float32, np.float64):
        assert evaluate([node], {}, "x", "z", X.astype(kind)).dtype == kind


def test_a_value_that_nothing_makes():
    with pytest.raises(KeyError):
        evaluate([Node("Add", ["x", "nothing"], ["z"])], {}, "x", "z", X)


def test_attributes_have_names():
    assert attributes_of(Node("Elu", ["x"], ["z"], alpha=0.5)) == {"alpha": 0.5}
