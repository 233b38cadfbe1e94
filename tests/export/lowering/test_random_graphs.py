"""Random graphs compute the same before and after the lowering.

A hundred here; `HWNAS_RANDOM_GRAPHS=5000` looks at more.
"""

import os

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.lowering.lower import lower_with_report
from export.onnx_file import RUNTIME_ERRORS
from helpers.graphs import FLOAT, Node, assert_equal, assert_sound, run

GRAPHS = int(os.environ.get("HWNAS_RANDOM_GRAPHS", "100"))
A_BATCH = 20


class RandomGraph:
    """Convolutions, activations in many spellings, sums, gates, pools and heads, in random order."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}
        self.opset = int(self.random.choice([9, 11, 13, 17, 18, 20]))
        self.channels = int(self.random.choice([1, 3, 8, 8, 8, 16]))

    def chance(self, of):
        return self.random.random() < of

    def one_of(self, *things):
        return things[int(self.random.integers(len(things)))]

    def constant(self, value):
        array = np.asarray(value, np.float32)
        name = f"k{len(self.constants) + len(self.nodes)}"
        if self.chance(0.15):
            self.nodes.append(Node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.constants[name] = array
        return name

    def op(self, op_type, *inputs, **attributes):
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        if op_type in ("Add", "Mul") and self.chance(0.5):
            names.reverse()
        at = len(self.nodes)
        name = f"m{at % 3}/{op_type}_{at}" if self.chance(0.7) else ""
        self.nodes.append(Node(op_type, names, [f"v{at}"], name, **attributes))
        return f"v{at}"

    def some(self, low, high, channels):
        """One number, or one for each channel, in one of the shapes that mean this; or one for each column."""
        shapes = [(), (), (1,), (1, 1, 1)]
        if channels:
            shapes += [(channels, 1, 1)] * 3 + [(1, channels, 1, 1)] * 2 + [(8,), (8, 1)]
        return self.random.uniform(low, high, self.one_of(*shapes))

    def conv(self, x, channels):
        kernel, outputs = self.one_of(1, 3), self.one_of(1, 3, 8, 16)
        groups = channels if self.chance(0.3) else 1
        outputs = channels if groups > 1 else outputs
        weight = self.random.normal(size=(outputs, channels // groups, kernel, kernel))
        bias = self.one_of([], [""], [0.3 * self.random.normal(size=outputs)])
        pads = [self.one_of(0, kernel // 2, kernel // 2)] * 4
        return self.op("Conv", x, weight / np.sqrt(weight[0].size), *bias, group=groups, pads=pads), outputs

    def learned(self, x, c):
        """An activation with scales of its own."""
        beta = self.some(-2, -0.3, c) if self.chance(0.3) else self.some(0.3, 2, c)
        kind = self.one_of("swish", "sigmoid", "acon")
        if kind == "swish":
            return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, beta)))
        if kind == "sigmoid":
            scaled = self.op("Mul", self.op("Sigmoid", self.op("Mul", x, beta)), self.some(0.3, 2, c))
            return self.op("Add", scaled, self.some(-1, 1, c)) if self.chance(0.5) else scaled
        difference = self.op("Mul", x, self.some(0.3, 2, c))
        gated = self.op("Mul", difference, self.op("Sigmoid", self.op("Mul", difference, beta)))
        return self.op("Add", gated, self.op("Mul", x, self.some(-0.3, 0.3, c)))

    def spelt(self, x, c):
        """An activation in small operators, or a part of one."""
        op = self.op
        kind = int(self.random.integers(17))
        if kind == 0:
            return op("Mul", x, op("Tanh", op("Softplus", x)))
        if kind == 1:
            return op("PRelu", x, self.some(-0.5, 1.5, c))
        if kind == 2:
            return op("Max", x, op("Mul", x, self.some(-0.2, 1.2, c)))
        if kind == 3:
            return op("Div", op("Mul", x, self.clip(op("Add", x, 3.0), 0.0, 6.0)), 6.0)
        if kind == 4:
            return op("Mul", op("Mul", x, op("Add", op("Erf", op("Div", x, 2**0.5)), 1.0)), 0.5)
        if kind == 5:
            low = op("Sub", op("Exp", op("Min", x, 0.0)), 1.0)
            return op("Where", op("Greater", x, 0.0), x, op("Mul", low, self.random.uniform(0.3, 2)))
        if kind == 6:
            return op("Where", op("Greater", x, 20.0), x, op("Softplus", x))
        if kind == 7:
            return op("Min", op("Max", x, 0.0), 6.0)
        if kind == 8:
            positive = op("Relu", x)
            return op("Mul", positive, positive)
        if kind == 9:
            return op("Div", x, op("Add", op("Exp", op("Neg", x)), 1.0))
        if kind == 10:
            return op("Div", x, op("Add", op("Abs", x), 1.0))
        if kind == 11:
            y = op("Mul", x, self.random.uniform(-0.5, 0.5))
            for knot in (-1.0, 0.0, 1.0):
                hinge = op("Relu", op("Sub", x, knot))
                y = op("Add", y, op("Mul", hinge, self.random.uniform(-1, 1)))
            return y
        if kind == 12 and c:
            bias = [self.random.normal(size=c)] if self.chance(0.5) else []
            return op("Conv", x, self.random.uniform(0.2, 1.5, (c, 1, 1, 1)), *bias, group=c)
        if kind == 13:
            return op(self.one_of("Add", "Mul"), x, self.some(-1, 1, c))
        if kind == 14:
            return op(self.one_of("Add", "Sub", "Mul", "Max", "Min"), self.spelt(x, c), self.spelt(x, c))
        if kind == 15:
            return op("Elu", x, alpha=float(self.random.uniform(0.2, 3)))
        single = ("Relu", "Sigmoid", "Tanh", "Softsign", "Selu", "HardSigmoid", "LeakyRelu", "Abs", "Neg", "Identity")
        return op(self.one_of(*single), x)

    def clip(self, x, low, high):
        return self.op("Clip", x, min=low, max=high) if self.opset < 11 else self.op("Clip", x, low, high)

    def gated(self, x, c, gate):
        weight = self.random.normal(size=(c, c, 1, 1)) / np.sqrt(c)
        return self.op("Mul", x, self.op(gate, self.op("Conv", self.op("GlobalAveragePool", x), weight)))

    def step(self, values):
        x, c = values[-1] if self.chance(0.85) else self.one_of(*values)
        kind = self.random.random()
        if kind < 0.4:
            x, c = self.conv(x, c)
            x = self.learned(x, c)
            between = self.one_of("", "MaxPool", "AveragePool", "gate")
            if between == "gate":
                x = self.gated(x, c, "HardSigmoid")
            elif between:
                x = self.op(between, x, kernel_shape=[3, 3], pads=[1] * 4)
            return self.conv(x, c)
        if kind < 0.75:
            return self.spelt(x, c), c
        if kind < 0.85:
            return self.conv(x, c)
        if kind < 0.93:
            return self.op(self.one_of("Add", "Mul"), x, self.one_of(*(v for v in values if v[1] == c))[0]), c
        return self.gated(x, c, "Sigmoid"), c

    def model(self):
        values = [("x", self.channels)]
        for _ in range(int(self.random.integers(2, 8))):
            values.append(self.step(values))
        x, c = values[-1]
        if self.chance(0.4):
            x = self.op("Flatten", self.op("GlobalAveragePool", self.learned(x, c)))
            x = self.op("Gemm", x, self.random.normal(size=(c, 5)), self.random.normal(size=5))
        outputs = [self.op("Identity", x)]
        if self.chance(0.2):
            outputs += [value for value, _ in values[1:2] if value != "x"]
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", FLOAT, [self.one_of("batch", 8), self.channels, 8, 8])],
            [helper.make_tensor_value_info(name, FLOAT, None) for name in dict.fromkeys(outputs)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def largest_inside(model, x):
    """The largest finite number that comes up: where two such numbers cancel, rounding is measured by them."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output)
    values = [value for value in run(whole, x) if value.dtype != bool]
    return max(1.0, *(float(np.abs(value[np.isfinite(value)]).max(initial=0)) for value in values))


def compared(seed):
    """How many activations were rewritten; None where ONNX Runtime refuses the graph: shapes don't fit together."""
    graph = RandomGraph(seed)
    model = graph.model()
    x = 2 * np.random.default_rng(seed).normal(size=(8, graph.channels, 8, 8)).astype(np.float32)
    try:
        wanted = run(model, x)
    except RUNTIME_ERRORS:
        return None
    for info, value in zip(model.graph.output, wanted, strict=True):
        info.CopyFrom(helper.make_tensor_value_info(info.name, FLOAT, [None] * value.ndim))
    found = lower_with_report(model)
    assert_sound(found.model)
    largest = largest_inside(model, x)
    assert_equal(run(found.model, x), wanted, at_least=largest)
    assert_equal(run(lower_with_report(found.model).model, x), wanted, at_least=largest)
    return sum(site.before != site.after or site.folded for site in found.sites)


@pytest.mark.parametrize("batch", range(0, GRAPHS, A_BATCH))
def test_random_graphs_stay_equal(batch):
    rewritten, valid = 0, 0
    for seed in range(batch, batch + A_BATCH):
        try:
            changed = compared(seed)
        except AssertionError as error:
            raise AssertionError(f"graph {seed}: {error}") from error
        valid += changed is not None
        rewritten += changed or 0
    assert valid >= A_BATCH // 2
    assert rewritten >= A_BATCH // 2


def test_the_same_seed_gives_the_same_graph():
    assert RandomGraph(3).model() == RandomGraph(3).model() != RandomGraph(4).model()
    assert isinstance(RandomGraph(3).model(), onnx.ModelProto)
