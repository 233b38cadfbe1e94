"""Learned scales in the weights around: folded with equal outputs, or left alone with equal outputs."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.lowering.lower import lower_with_report
from helpers.graphs import FLOAT, Node, X, assert_lowers_alike, between, graph_of, normal, ops, recognised

C = 8


def swish(x, y):
    nodes = [Node("Mul", ["beta", x], ["sw.i"]), Node("Sigmoid", ["sw.i"], ["sw.s"]), Node("Mul", [x, "sw.s"], [y])]
    return nodes, {"beta": between(0.5, 2, 1)}


def swish_each(x, y):
    nodes, _ = swish(x, y)
    return nodes, {"beta": between(0.5, 2, C, 1, 1)}


def sigmoid(x, y):
    nodes = [Node("Sigmoid", [x], ["sg.s"]), Node("Mul", ["scale", "sg.s"], ["sg.m"]), Node("Add", ["sg.m", "b"], [y])]
    return nodes, {"scale": np.float32([3.0]), "b": np.float32([-1.2])}


def sigmoid_scaled(x, y):
    """Without the shift, which zeros at a border and most operators don't let through."""
    return [Node("Sigmoid", [x], ["sg.s"]), Node("Mul", ["sg.s", "scale"], [y])], {"scale": between(0.5, 3, C, 1, 1)}


def acon(x, y):
    nodes = [
        Node("Mul", ["difference", x], ["ac.d"]),
        Node("Mul", ["beta", "ac.d"], ["ac.i"]),
        Node("Sigmoid", ["ac.i"], ["ac.s"]),
        Node("Mul", ["p2", x], ["ac.l"]),
        Node("Mul", ["ac.d", "ac.s"], ["ac.g"]),
        Node("Add", ["ac.g", "ac.l"], [y]),
    ]
    each = (C, 1, 1)
    return nodes, {
        "difference": between(0.5, 2, *each, seed=2),
        "beta": between(0.5, 2, *each, seed=3),
        "p2": between(-0.4, 0.4, *each, seed=4),
    }


ACTIVATIONS = {"swish": swish, "swish_each": swish_each, "sigmoid": sigmoid, "scaled": sigmoid_scaled, "acon": acon}
FAMILY = {"swish": "swish", "swish_each": "swish", "sigmoid": "sigmoid", "scaled": "sigmoid", "acon": "acon"}

# What makes the value before: nodes from x to "a".
BEFORE = {
    "conv": ([Node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4)], {"w1": normal(C, C, 3, 3) / 8, "b1": normal(C)}),
    "no bias": ([Node("Conv", ["x", "w1"], ["a"])], {"w1": normal(C, C, 1, 1) / 3}),
    "depthwise": (
        [Node("Conv", ["x", "w1"], ["a"], group=C, pads=[1] * 4)],
        {"w1": normal(C, 1, 3, 3) / 2},
    ),
    "grouped": (
        [Node("Conv", ["x", "w1", "b1"], ["a"], group=2, strides=[2, 2])],
        {"w1": normal(C, C // 2, 1, 1) / 2, "b1": normal(C)},
    ),
}
# What reads the result: nodes from "v" to z, and which activations it takes the outer scale of.
ALL = frozenset(ACTIVATIONS)
SCALES = ALL - {"sigmoid"}
BEHIND = {
    "conv": ([Node("Conv", ["v", "w2", "b2"], ["z"])], {"w2": normal(5, C, 1, 1), "b2": normal(5)}, ALL),
    "no bias": ([Node("Conv", ["v", "w2"], ["z"])], {"w2": normal(5, C, 3, 3)}, ALL),
    "empty bias": ([Node("Conv", ["v", "w2", ""], ["z"])], {"w2": normal(5, C, 1, 1)}, ALL),
    "padded": ([Node("Conv", ["v", "w2", "b2"], ["z"], pads=[1] * 4)],
               {"w2": normal(5, C, 3, 3), "b2": normal(5)}, SCALES),
    "same": ([Node("Conv", ["v", "w2"], ["z"], auto_pad="SAME_UPPER")], {"w2": normal(5, C, 3, 3)}, SCALES),
    "depthwise": ([Node("Conv", ["v", "w2"], ["z"], group=C)], {"w2": normal(C, 1, 3, 3)}, ALL),
    "grouped": ([Node("Conv", ["v", "w2"], ["z"], group=4, strides=[2, 2])], {"w2": normal(12, 2, 1, 1)}, ALL),
    "head": ([Node("GlobalAveragePool", ["v"], ["p"]), Node("Flatten", ["p"], ["f"]),
              Node("Gemm", ["f", "w2", "b2"], ["z"], transB=1)], {"w2": normal(5, C), "b2": normal(5)}, ALL),
    "head untransposed": ([Node("GlobalAveragePool", ["v"], ["p"]), Node("Flatten", ["p"], ["f"]),
                           Node("Gemm", ["f", "w2"], ["z"])], {"w2": normal(C, 5)}, ALL),
    "reshaped head": ([Node("GlobalAveragePool", ["v"], ["p"]), Node("Reshape", ["p", "shape"], ["f"]),
                       Node("MatMul", ["f", "w2"], ["z"])],
                      {"w2": normal(C, 5), "shape": np.array([-1, C], np.int64)}, SCALES),
    "max pool": ([Node("MaxPool", ["v"], ["p"], kernel_shape=[3, 3]), Node("Conv", ["p", "w2"], ["z"])],
                 {"w2": normal(5, C, 1, 1)}, SCALES),
    "average pool": ([Node("AveragePool", ["v"], ["p"], kernel_shape=[2, 2], pads=[1] * 4),
                      Node("Conv", ["p", "w2"], ["z"])], {"w2": normal(5, C, 1, 1)}, SCALES),
    "squeezed gate": ([Node("GlobalAveragePool", ["v"], ["p"]), Node("Conv", ["p", "w3"], ["q"]),
                       Node("HardSigmoid", ["q"], ["h"]), Node("Mul", ["v", "h"], ["g"]),
                       Node("Conv", ["g", "w2"], ["z"])],
                      {"w2": normal(5, C, 1, 1), "w3": normal(C, C, 1, 1)}, SCALES),
    "two readers": ([Node("Conv", ["v", "w2"], ["l"]), Node("Conv", ["v", "w3"], ["r"]),
                     Node("Add", ["l", "r"], ["z"])],
                    {"w2": normal(5, C, 1, 1), "w3": normal(5, C, 1, 1, seed=9)}, ALL),
    # Nothing of these can take it.
    "nothing": ([Node("Transpose", ["v"], ["z"], perm=[0, 2, 3, 1])], {}, frozenset()),
    "sum": ([Node("Add", ["v", "x"], ["t"]), Node("Conv", ["t", "w2"], ["z"])], {"w2": normal(5, C, 1, 1)},
            frozenset()),
    "weights of two": ([Node("Conv", ["v", "w2"], ["l"]), Node("Conv", ["l", "w2"], ["z"])],
                       {"w2": normal(C, C, 1, 1) / 3}, frozenset()),
    "halves": ([Node("Cast", ["v"], ["h"], to=TensorProto.FLOAT16), Node("Conv", ["h", "w2"], ["c"]),
                Node("Cast", ["c"], ["z"], to=FLOAT)], {"w2": normal(5, C, 1, 1).astype(np.float16)}, frozenset()),
    "another gate": ([Node("GlobalAveragePool", ["v"], ["p"]), Node("Mul", ["v", "p"], ["g"]),
                      Node("Conv", ["g", "w2"], ["z"])], {"w2": normal(5, C, 1, 1)}, frozenset()),
}  # fmt: skip


def net(activation, before="conv", behind="conv", *, outputs=("z",), shape=("batch", C, 6, 6)):
    first, constants_before, (last, constants_behind) = *BEFORE[before], BEHIND[behind][:2]
    middle, constants = ACTIVATIONS[activation]("a", "v")
    stored = constants_before | constants | constants_behind
    return graph_of([*first, *middle, *last], stored, shape, outputs=outputs)


PLAIN = {"swish": ("Sigmoid", "Mul"), "sigmoid": ("Sigmoid",)}  # where no scale is left


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_stands_behind(activation, behind):
    model = net(activation, "no bias", behind)
    found = assert_lowers_alike(model, X, tolerance=1e-5 if behind != "halves" else 2e-3)
    site = next(site for site in found.sites if site.activation == FAMILY[activation])
    takes = activation in BEHIND[behind][2]
    if activation == "acon":  # its inner scale goes before in any case
        assert site.folded
        assert (site.form == "of_silu") == takes
    else:
        assert site.folded == takes
        assert (site.after == PLAIN[FAMILY[activation]]) == takes


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("activation", ["swish", "swish_each", "acon"])
def test_what_stands_before(activation, before):
    found = assert_lowers_alike(net(activation, before), X)
    assert [site.folded for site in found.sites] == [True]


def test_without_a_convolution_before_only_outer_scales_go():
    for activation, make in ACTIVATIONS.items():
        nodes, constants = make("x", "v")
        model = graph_of([*nodes, *BEHIND["conv"][0]], constants | BEHIND["conv"][1])
        # Only of a convolution's result it is certain that channels are where a convolution has them.
        assert recognised(assert_lowers_alike(model, X)) == [FAMILY[activation] + "+" * (activation == "sigmoid")]


def test_a_sigmoids_inner_scale():
    nodes = [Node("Conv", ["x", "w"], ["a"]), Node("Mul", ["a", "k"], ["b"]), Node("Sigmoid", ["b"], ["z"])]
    model = graph_of(nodes, {"w": normal(C, C, 1, 1), "k": between(0.5, 2, C, 1, 1)})
    found = assert_lowers_alike(model, X)
    assert ops(found.model) == ["Conv", "Sigmoid"]


@pytest.mark.parametrize("activation", ["swish", "acon"])
def test_negative_scales(activation):
    model = net(activation, behind="max pool")
    for tensor in model.graph.initializer:
        if tensor.name in ("beta", "difference"):
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    (site,) = assert_lowers_alike(model, X).sites
    assert (site.form, site.folded) == (("product", False) if activation == "swish" else ("blocked", True))


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scales_that_would_cost_digits_stay(factor):
    model = net("swish")
    beta = next(tensor for tensor in model.graph.initializer if tensor.name == "beta")
    beta.CopyFrom(numpy_helper.from_array(np.float32([factor]), "beta"))
    assert not any(site.folded for site in assert_lowers_alike(model, X).sites)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["a", "v"])
def test_an_output_of_the_graph_keeps_its_numbers(activation, name):
    assert_lowers_alike(net(activation, outputs=("z", name)), X)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["w1", "b1", "w2", "b2"])
def test_weights_that_are_inputs_or_outputs_keep_their_numbers(activation, name):
    as_output = net(activation, outputs=("z", name))
    assert_lowers_alike(as_output, X)
    as_input = net(activation)
    tensor = next(tensor for tensor in as_input.graph.initializer if tensor.name == name)
    as_input.graph.input.append(helper.make_tensor_value_info(name, FLOAT, tensor.dims))
    found = assert_lowers_alike(as_input, X)
    kept = next(each for each in found.model.graph.initializer if each.name == name)
    assert kept == tensor


@pytest.mark.parametrize("name", ["a", "v", "w1", "w2"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_a_branch_reads_keeps_its_numbers(activation, name):
    model = net(activation, outputs=("z", "y"))
    branch = helper.make_graph(
        [Node("Neg", [name], ["inner"])], "branch", [], [helper.make_tensor_value_info("inner", FLOAT, None)]
    )
    model.graph.node.append(Node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    model.graph.initializer.append(numpy_helper.from_array(np.bool_(True), "yes"))
    assert_lowers_alike(model, X)


@pytest.mark.parametrize("shape", [(C, 1), (C,), (1, C, 1)], ids=str)
def test_scales_of_another_axis_of_that_size_stay(shape):
    model = net("swish", "no bias", shape=("batch", C, C, C))
    beta = next(tensor for tensor in model.graph.initializer if tensor.name == "beta")
    beta.CopyFrom(numpy_helper.from_array(between(0.5, 2, *shape), "beta"))
    assert not any(site.folded for site in assert_lowers_alike(model, normal(2, C, C, C)).sites)


def test_scales_of_another_axis_of_a_volume_stay():
    nodes, _ = swish("a", "v")
    model = graph_of(
        [Node("Conv", ["x", "w1"], ["a"]), *nodes, Node("Conv", ["v", "w2"], ["z"])],
        {"w1": normal(C, C, 1, 1, 1), "w2": normal(C, C, 1, 1, 1), "beta": between(0.5, 2, C, 1, 1)},
        (2, C, C, 3, 3),
    )
    assert not any(site.folded for site in assert_lowers_alike(model, normal(2, C, C, 3, 3)).sites)


@pytest.mark.parametrize("rank", [3, 5])
def test_one_scale_goes_into_convolutions_of_any_rank(rank):
    nodes, constants = swish("a", "v")
    ones = [1] * (rank - 2)
    model = graph_of(
        [Node("Conv", ["x", "w1"], ["a"]), *nodes, Node("Conv", ["v", "w2"], ["z"])],
        {"w1": normal(C, C, *ones), "w2": normal(C, C, *ones)} | constants,
        (2, C, *[4] * (rank - 2)),
    )
    assert recognised(assert_lowers_alike(model, normal(2, C, *[4] * (rank - 2)))) == ["swish+"]


def test_flattened_channels_that_meet_another_axis_keep_their_scale():
    nodes, constants = swish_each("a", "v")
    pooled = [
        Node("GlobalAveragePool", ["v"], ["p"]),
        Node("Flatten", ["p"], ["f"]),
        Node("Mul", ["f", "x"], ["m"]),  # (8, 8) by (8, 8, 8, 8): channels meet columns
        Node("Conv", ["m", "w2"], ["z"]),
    ]
    stored = {"w1": normal(C, C, 1, 1), "w2": normal(C, C, 1, 1)} | constants
    model = graph_of([Node("Conv", ["x", "w1"], ["a"]), *nodes, *pooled], stored, (C, C, C, C))
    assert recognised(assert_lowers_alike(model, normal(C, C, C, C))) == ["swish"]


def test_a_convolution_that_belongs_to_another_activation_keeps_its_weights():
    """A 1×1 convolution of each channel is read as part of the next activation, with the numbers it had."""
    nodes, constants = swish("a", "v")
    behind = [Node("Conv", ["v", "d"], ["u"], group=C), Node("Sigmoid", ["u"], ["z"])]
    stored = {"w1": normal(C, C, 1, 1), "d": normal(C, 1, 1, 1)} | constants
    assert_lowers_alike(graph_of([Node("Conv", ["x", "w1"], ["a"]), *nodes, *behind], stored), X)
    before = [Node("Sigmoid", ["x"], ["u"]), Node("Conv", ["u", "d", "e"], ["a"], group=C)]
    stored = {"w2": normal(5, C, 1, 1), "d": normal(C, 1, 1, 1), "e": normal(C)} | constants
    assert_lowers_alike(graph_of([*before, *nodes, Node("Conv", ["v", "w2"], ["z"])], stored), X)


def test_a_new_bias_takes_no_name_that_is_there():
    model = net("sigmoid", behind="no bias", outputs=("z", "y"))
    model.graph.node.append(Node("Mul", ["z", "w2.shifted"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "w2.shifted"))
    assert recognised(assert_lowers_alike(model, X)) == ["sigmoid+"]


def test_a_chain_of_learned_scales():
    """Each convolution between takes one from before and one from behind."""
    nodes, stored, value = [], {}, "x"
    for at in range(4):
        stored |= {f"w{at}": normal(C, C, 1, 1, seed=at) / 3, f"k{at}": np.float32(0.5 + at / 3)}
        names = [f"{name}{at}" for name in "cist"]
        nodes += [
            Node("Conv", [value, f"w{at}"], [names[0]]),
            Node("Mul", [names[0], f"k{at}"], [names[1]]),
            Node("Sigmoid", [names[1]], [names[2]]),
            Node("Mul", [names[0], names[2]], [names[3]]),
        ]
        value = names[3]
    nodes.append(Node("Conv", [value, "last"], ["z"]))
    found = lower_with_report(graph_of(nodes, stored | {"last": normal(3, C, 1, 1)}))
    assert ops(found.model) == ["Conv", "Sigmoid", "Mul"] * 4 + ["Conv"]
    assert_lowers_alike(graph_of(nodes, stored | {"last": normal(3, C, 1, 1)}), X)
