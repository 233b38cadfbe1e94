"""Activations as other programs spell them: each found, each in its form, in graphs of every kind."""

import itertools
import math

import numpy as np
import pytest

from export.lowering.lower import lower, lower_with_report
from helpers.graphs import Node, assert_equal, assert_lowers_alike, between, graph_of, normal, ops, recognised, run

C = 8


class Spelling:
    """Writes operators on x one after the other; numbers become constants."""

    def __init__(self, opset):
        self.opset, self.nodes, self.constants = opset, [], {}

    def __call__(self, op_type, *inputs, **attributes):
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(Node(op_type, names, [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def constant(self, value):
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def clip(self, x, low, high):
        if self.opset < 11:
            return self("Clip", x, min=float(low), max=float(high))
        return self("Clip", x, low, high)


def _relu6_gate(s, x):
    return s.clip(s("Add", x, 3.0), 0.0, 6.0)


def _softplus(s, x):
    """log(1 + exp(x)), for every x."""
    return s("Add", s("Log", s("Add", s("Exp", s("Neg", s("Abs", x))), 1.0)), s("Relu", x))


def _tanh_gate(s, cube, x):
    inner = s("Mul", s("Add", x, s("Mul", cube, 0.044715)), math.sqrt(2 / math.pi))
    return s("Add", s("Tanh", inner), 1.0)


def _below(s, x):
    return s("Sub", s("Exp", s("Min", x, 0.0)), 1.0)


def _mish_by_exponential(s, x):
    e = s("Exp", s("Min", x, 20.0))
    n = s("Mul", e, s("Add", e, 2.0))
    return s("Mul", x, s("Div", n, s("Add", n, 2.0)))


SLOPES = between(0.05, 0.9, C, 1, 1)
SPELLINGS = {
    "hardswish: times, over": ("hardswish", lambda s, x: s("Div", s("Mul", x, _relu6_gate(s, x)), 6.0)),
    "hardswish: over, times": ("hardswish", lambda s, x: s("Mul", s("Div", _relu6_gate(s, x), 6.0), x)),
    "hardswish: sixths": ("hardswish", lambda s, x: s("Mul", x, s("Mul", _relu6_gate(s, x), 1 / 6))),
    "hardswish: gate": ("hardswish", lambda s, x: s("Mul", s("HardSigmoid", x, alpha=1 / 6, beta=0.5), x)),
    "hardsigmoid": ("hardsigmoid", lambda s, x: s("Div", _relu6_gate(s, x), 6.0)),
    "gelu: over √2": (
        "gelu",
        lambda s, x: s("Mul", s("Mul", x, s("Add", s("Erf", s("Div", x, math.sqrt(2))), 1.0)), 0.5),
    ),
    "gelu: half first": (
        "gelu",
        lambda s, x: s("Mul", s("Mul", 0.5, x), s("Add", 1.0, s("Erf", s("Mul", x, math.sqrt(0.5))))),
    ),
    "gelu: half of the gate": (
        "gelu",
        lambda s, x: s("Mul", x, s("Mul", s("Add", s("Erf", s("Div", x, math.sqrt(2))), 1.0), 0.5)),
    ),
    "gelu_tanh: power": (
        "gelu_tanh",
        lambda s, x: s("Mul", s("Mul", x, 0.5), _tanh_gate(s, s("Pow", x, 3.0), x)),
    ),
    "gelu_tanh: products": (
        "gelu_tanh",
        lambda s, x: s("Mul", s("Mul", x, _tanh_gate(s, s("Mul", s("Mul", x, x), x), x)), 0.5),
    ),
    "mish: softplus": ("mish", lambda s, x: s("Mul", x, s("Tanh", s("Softplus", x)))),
    "mish: logarithm": ("mish", lambda s, x: s("Mul", s("Tanh", _softplus(s, x)), x)),
    "mish: exponential": ("mish", _mish_by_exponential),
    "silu": ("swish", lambda s, x: s("Mul", s("Sigmoid", x), x)),
    "silu: quotient": ("swish", lambda s, x: s("Div", x, s("Add", 1.0, s("Exp", s("Neg", x))))),
    "softplus: where": ("softplus", lambda s, x: s("Where", s("Greater", x, 20.0), x, s("Softplus", x))),
    "softplus: logarithm": ("softplus", _softplus),
    "elu: where": ("elu", lambda s, x: s("Where", s("Greater", x, 0.0), x, _below(s, x))),
    "elu: where, turned": ("elu", lambda s, x: s("Where", s("Less", x, 0.0), s("Mul", _below(s, x), 0.5), x)),
    "elu: sum": ("elu", lambda s, x: s("Add", s("Relu", x), s("Mul", _below(s, x), 0.7))),
    "selu": ("elu", lambda s, x: s("Selu", x)),
    "leaky: maximum": ("leaky_relu", lambda s, x: s("Max", x, s("Mul", x, 0.1))),
    "leaky: where": ("leaky_relu", lambda s, x: s("Where", s("Greater", x, 0.0), x, s("Mul", 0.1, x))),
    "leaky: two halves": (
        "leaky_relu",
        lambda s, x: s("Sub", s("Relu", x), s("Mul", s("Relu", s("Neg", x)), 0.3)),
    ),
    "relu: maximum": ("leaky_relu", lambda s, x: s("Max", x, 0.0)),
    "relu6": ("clip", lambda s, x: s("Min", s("Max", x, 0.0), 6.0)),
    "relu6: turned": ("clip", lambda s, x: s("Max", 0.0, s("Min", 6.0, x))),
    "prelu of channels": ("leaky_relu", lambda s, x: s("PRelu", x, SLOPES)),
    "tanh: sigmoid": ("sigmoid", lambda s, x: s("Sub", s("Mul", s("Sigmoid", s("Mul", x, 2.0)), 2.0), 1.0)),
    "softsign": ("softsign", lambda s, x: s("Div", x, s("Add", s("Abs", x), 1.0))),
    "squared relu: power": ("squared_relu", lambda s, x: s("Pow", s("Relu", x), 2.0)),
}
OPSETS = (9, 11, 13, 17, 18, 20)


def spelt(name, opset=20, *, between_convolutions=True, shape=("batch", C, 6, 6), outputs=("z",)):
    """The activation between two convolutions, or between the input and its negative."""
    s = Spelling(opset)
    x = "x"
    if between_convolutions:
        x = s("Conv", x, normal(C, shape[1], 3, 3) / 8, normal(C), pads=[1] * 4)
    y = SPELLINGS[name][1](s, x)
    last = s("Conv", y, normal(5, C, 1, 1)) if between_convolutions else s("Neg", y)
    s.nodes[-1].output[0] = "z"
    assert last
    return graph_of(s.nodes, s.constants, shape, opset=opset, outputs=outputs)


X = 4 * normal(3, C, 6, 6)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", SPELLINGS)
def test_it_is_found_and_equal(name, opset):
    found = assert_lowers_alike(spelt(name, opset), X)
    assert recognised(found) == [SPELLINGS[name][0]]
    assert found.sites[0].form is not None or opset < 20


def after(name, opset=20):
    return ops(lower(spelt(name, opset)))[1:-1]


def test_the_forms():
    for name in SPELLINGS:
        if name.startswith("hardswish"):
            assert after(name) == ["HardSwish"]
            assert after(name, 13) == ["HardSigmoid", "Mul"]
        if name.startswith("gelu"):
            assert after(name) == ["Gelu"]
        if name.startswith("gelu:"):
            assert after(name, 13) == ["Div", "Erf", "Add", "Mul", "Mul"]
        if name.startswith("mish"):
            assert set(after(name)) == {"Conv", "Sigmoid", "Mul", "Softsign"}
        if name.startswith("silu"):
            assert after(name) == ["Sigmoid", "Mul"]
        if name.startswith("leaky"):
            assert after(name) == ["LeakyRelu"]
        if name.startswith("relu6"):
            assert after(name) == ["Clip"]
        if name.startswith("softplus"):
            assert not {"Softplus", "Log", "Where"} & set(after(name))
    assert after("relu: maximum") == ["Relu"]
    assert after("tanh: sigmoid") == ["Tanh"]
    assert after("softsign") == ["Softsign"]
    assert after("squared relu: power") == ["Relu", "Mul"]
    assert after("prelu of channels") == ["Conv", "Relu", "Conv", "Add"]


@pytest.mark.parametrize("shape", [(3, C), (3, C, 5), (2, C, 3, 4, 5), (C,)], ids=str)
@pytest.mark.parametrize("name", [name for name in SPELLINGS if "channels" not in name])
def test_values_of_any_rank(name, shape):
    model = spelt(name, between_convolutions=False, shape=shape)
    assert_lowers_alike(model, 4 * normal(*shape), again=False)


@pytest.mark.parametrize("channels", [1, 3, 12, 17])
@pytest.mark.parametrize("name", ["mish: softplus", "elu: where", "selu", "softplus: where", "prelu of channels"])
def test_channels_of_any_number(name, channels):
    s = Spelling(20)
    a = s("Conv", "x", normal(channels, 3, 3, 3))
    own_slopes = name == "prelu of channels"
    y = s("PRelu", a, between(0.1, 0.9, channels, 1, 1)) if own_slopes else SPELLINGS[name][1](s, a)
    s("Conv", y, normal(2, channels, 3, 3), pads=[1] * 4)
    s.nodes[-1].output[0] = "z"
    model = graph_of(s.nodes, s.constants, ("batch", 3, 9, 9))
    for batch in (1, 4):
        assert_lowers_alike(model, normal(batch, 3, 9, 9))


def test_several_of_a_kind_have_names_of_their_own():
    s, value = Spelling(20), "x"
    for at in range(3):
        value = SPELLINGS["mish: softplus"][1](s, s("Conv", value, normal(C, C, 1, 1) / 3, name=f"b.{at}/Conv"))
    s.nodes[-1].output[0] = "z"
    for at, node in enumerate(s.nodes):
        node.name = node.name or f"b/{node.op_type}_{at}"  # all in one module
    found = assert_lowers_alike(graph_of(s.nodes, s.constants), X)
    assert recognised(found) == ["mish"] * 3
    assert all(node.name.startswith("b") for node in found.model.graph.node)


def test_a_preferred_form_is_taken_where_it_may_stand():
    model = spelt("mish: softplus")
    wanted = {"negated": "Softsign", "reflected": "Softsign", "softsign": "Exp", "division": "Div", "operator": "Mish"}
    for form, operator in wanted.items():
        found = lower_with_report(model, {"mish": form})
        assert found.sites[0].form == form
        assert operator in ops(found.model)
        assert_equal(run(found.model, X), run(model, X))
    old = lower_with_report(spelt("mish: softplus", 17), {"mish": "operator"})
    assert old.sites[0].form == "negated"


def test_what_overflows_is_another_function():
    """log(1 + exp(x)) is ∞ from 89 on, and stays it."""
    s = Spelling(20)
    s("Log", s("Add", s("Exp", "x"), 1.0))
    model = graph_of(s.nodes, s.constants, (3,), outputs=(s.nodes[-1].output[0],))
    found = lower(model)
    x = np.array([-1, 50, 100], np.float32)
    np.testing.assert_array_equal(run(found, x)[0], run(model, x)[0])
    assert np.isinf(run(found, x)[0][2])


@pytest.mark.parametrize("limit", [1.1e4, 65504.0, 1e6])
def test_a_limit_far_out_is_kept(limit):
    s = Spelling(20)
    s("Clip", s("Relu", "x"), -limit, limit)
    model = graph_of(s.nodes, s.constants, (4,), outputs=(s.nodes[-1].output[0],))
    x = np.array([-1, 1, 1.05 * limit, 1e8], np.float32)
    np.testing.assert_array_equal(run(lower(model), x)[0], run(model, x)[0])


def test_deviations_are_listed():
    nodes = list(itertools.chain([Node("Elu", ["x"], ["z"])]))
    found = lower_with_report(graph_of(nodes, {}, (4,)))
    x = np.array([np.nan, np.inf, -np.inf, -1], np.float32)
    one, other = run(found.model, x)[0], run(graph_of(nodes, {}, (4,)), x)[0]
    differ = [name for name, a, b in zip(("NaN", "+∞", "−∞"), one, other, strict=False) if not (a == b or a != a != b)]
    assert [each.split()[0] for each in found.sites[0].deviations] == differ


@pytest.mark.parametrize(
    ("slope", "name"),
    [
        (between(0.1, 0.9, 8, 1, 1), "prelu_channel"),
        (np.full((8, 1, 1), 0.25), "leaky_relu"),
        (np.array([0.25]), "leaky_relu"),
        (np.array([0.0]), "relu"),
    ],
)
def test_what_a_prelu_is_called(slope, name):
    nodes = [Node("Conv", ["x", "w"], ["c"], pads=[1] * 4), Node("PRelu", ["c", "slope"], ["z"])]
    found = assert_lowers_alike(graph_of(nodes, {"w": normal(8, 8, 3, 3, seed=3), "slope": slope}), X)
    assert [site.name for site in found.sites] == [name]


def test_what_other_activations_of_channels_are_called():
    nodes = [
        Node("Mul", ["x", "beta"], ["s"]),
        Node("Sigmoid", ["s"], ["g"]),
        Node("Mul", ["x", "g"], ["a"]),
        Node("Sigmoid", ["a"], ["b"]),
        Node("Mul", ["b", "beta"], ["z"]),
    ]
    found = assert_lowers_alike(graph_of(nodes, {"beta": between(0.5, 2.0, 8, 1, 1)}), X)
    assert [site.name for site in found.sites] == ["swish_beta", "scaled_sigmoid"]
