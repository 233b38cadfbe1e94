"""The choice of what is quantised in a float graph: operators with fast integer kernels in ONNX Runtime; no torch.

Everything else stays float, between a DequantizeLinear and a QuantizeLinear. `export.quantization.qdq` writes the
plan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx_file import DEFAULT_DOMAINS, all_graphs, attributes_of, copied, value_names
from export.quantization import integer_forms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Range = tuple[float, float]
"""Least and greatest value of a tensor."""

RESCALING = frozenset({"Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool"})
"""Operators with integer kernels that give their result a scale of its own."""
MOVING = frozenset({"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})
"""Operators that only move values, so that the output has the input's scale."""
_POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
"""Operators that are bound to a layout; a float one between integer convolutions costs two transpositions."""
_STEPS, _BESIDE = 255, 0.03
"""Steps from 0 to a gate's 1, and how far from a tie is far enough: float32 errs by less than 0.0001 there."""
_JOINING = frozenset({"Add", "Sum", "Mul", "Concat"})
"""Operators that are computed on integers only where all of their operands are quantised."""
_CONSTANTS_ALLOWED = frozenset({"Add", "Mul"})
_FLOAT_RESULT = frozenset({"Gemm", "MatMul"})
"""Operators whose integer kernels can give floats."""

_Role = tuple[str, int]
"""What a constant is to its reader: "weights" with the axis of their channels, or "operand"."""


@dataclass
class Plan:
    """The parts of a graph to quantise, chosen by `plan` and written by `export.quantization.qdq.write`.

    Attributes:
        model: a copy of the source; saturating operators are dropped from it, others replaced.
        activations: tensor → whether it is certainly ≥ 0; each gets a scale of its own.
        bounds: ranges of the activations that are not in the source.
        factors: tensor → factor that its readers see it multiplied with, by means of the scale alone.
        moved: tensor → the activation whose scale it shares.
        weights: constant weights → the axis of their channels.
        biases: constant biases → the activation and the weights whose product it is added to.
        constants: stored operands, quantised like activations.
        products: values that convolutions and matrix products with quantised weights make in the source.
        sources: value that an integer operator makes → the source's values whose nodes it stands for.
        kept: value → the reason why the node that makes it stays float, where another of its kind is quantised.
        isolated: values behind which a barrier stands, so that no kernel reaches across (`export.barriers`).
        pairs: integers of the written graph → the value that they stand for.
    """

    model: onnx.ModelProto
    activations: dict[str, bool] = field(default_factory=dict)
    bounds: dict[str, Range] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    biases: dict[str, tuple[str, str]] = field(default_factory=dict)
    constants: dict[str, None] = field(default_factory=dict)
    products: set[str] = field(default_factory=set)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    isolated: set[str] = field(default_factory=set)
    pairs: dict[str, str] = field(default_factory=dict)

    def unknown(self) -> list[str]:
        """Names of the tensors whose ranges `write` needs; all are in the source too."""
        return [name for name in self.activations if name not in self.bounds]


def plan(
    model: onnx.ModelProto,
    float_nodes: Collection[str] = (),
    *,
    kept: Mapping[str, str] | None = None,
    isolated: Collection[str] = (),
) -> Plan:
    """Decide which parts of a model are quantised; the model stays as it is.

    What is slower on integers stays float, unless there is no other product: then the model is wanted in INT8 all the
    same.

    Args:
        model: in a recent opset, its constants folded.
        float_nodes: values whose nodes stay float in any case.
        kept: values whose nodes stay float because their integer kernels are wrong, with the reasons.
        isolated: values behind which a barrier is wanted.
    """
    found = _Planner(model, float_nodes, kept or {}, isolated, slow_stays_float=True).run()
    if found.weights or not found.kept:
        return found
    return _Planner(model, float_nodes, kept or {}, isolated, slow_stays_float=False).run()


class _Planner:
    """One pass over the nodes, in order of execution."""

    def __init__(
        self,
        model: onnx.ModelProto,
        float_nodes: Collection[str],
        kept: Mapping[str, str],
        isolated: Collection[str],
        *,
        slow_stays_float: bool,
    ) -> None:
        self.slow_stays_float = slow_stays_float
        self.float_nodes = frozenset(float_nodes) | frozenset(kept)
        self.distrusted = frozenset(kept)
        self.plan = Plan(copied(model), kept=dict(kept), isolated=set(isolated))
        self.roles: dict[str, dict[_Role, list[tuple[onnx.NodeProto, int]]]] = defaultdict(lambda: defaultdict(list))
        self.biased: list[onnx.NodeProto] = []
        graph = self.plan.model.graph
        given = {value.name for value in graph.input}
        self.arrays = {t.name: t for t in graph.initializer if t.name not in given}
        self.outputs = {value.name for value in graph.output}
        self.uses = Counter(name for g in all_graphs(graph) for node in g.node for name in node.input)
        self.uses.update(self.outputs)
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.taken = value_names(graph)
        self.makers: dict[str, onnx.NodeProto] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> Plan:
        graph = self.plan.model.graph
        for node in graph.node:
            kept = self._step(node)
            self.nodes += kept
            self.makers.update((name, each) for each in kept for name in each.output)
        self._separate_roles()
        self._free_outputs()
        self._isolate()
        nodes = [copied(node) for node in self.nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        return self.plan

    def _step(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Plan one node; returns the nodes that stand in its place."""
        if node.domain not in DEFAULT_DOMAINS or len(node.output) != 1 or node.output[0] in self.float_nodes:
            return [node]
        if node.op_type in ("Relu", "Clip"):
            return self._clamp(node)
        if node.op_type in ("HardSigmoid", "HardSwish"):
            return self._hard(node)
        if reason := self._reason_to_stay_float(node):
            self._keep_float(node, reason)
            return [node]
        integer_forms.drop_unit_dilations(node)
        if node.op_type in _POOLING and self.plan.weights:
            self._activation(node.input[0])
        if (axis := self._channels(node)) is not None:
            self._product(node, axis)
        elif node.op_type in RESCALING or (node.op_type == "Sum" and len(node.input) == 2):
            self._rescaling(node)
        elif node.op_type in MOVING and self._quantised(node.input[0]):
            self.plan.moved[node.output[0]] = self.plan.moved.get(node.input[0], node.input[0])
            self.plan.sources[node.output[0]] = (node.output[0],)
        return [node]

    def _reason_to_stay_float(self, node: onnx.NodeProto) -> str:
        tensor = self.arrays.get(node.input[1]) if len(node.input) > 1 else None
        slow = integer_forms.reason_of_time(node, () if tensor is None else tensor.dims)
        return integer_forms.reason_of_wrong_results(node) or (slow if self.slow_stays_float else "")

    def _keep_float(self, node: onnx.NodeProto, reason: str) -> None:
        """Leave a node float; what a pool gives to a sum is quantised all the same, or that would be float too."""
        self.plan.kept.setdefault(node.output[0], reason)
        joined = any(reader.op_type in _JOINING for reader in self.readers[node.output[0]])
        if node.op_type in _POOLING and joined and self._quantised(node.input[0]):
            self._activation(node.output[0])

    def _quantised(self, name: str) -> bool:
        return name in self.plan.activations or name in self.plan.moved

    def _activation(self, name: str, *, positive: bool = False) -> None:
        if not self._quantised(name):
            maker = self.makers.get(name)
            self.plan.activations[name] = positive or (maker is not None and maker.op_type == "Relu")

    def _constant(self, name: str, *, ranks: tuple[int, ...] = ()) -> bool:
        tensor = self.arrays.get(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT and (not ranks or len(tensor.dims) in ranks)

    def _channels(self, node: onnx.NodeProto) -> int | None:
        """The axis of output channels in the node's constant weights; None for a node that can't be quantised."""
        op, options = node.op_type, attributes_of(node)
        if op == "Conv" and self._constant(node.input[1], ranks=(3, 4)):
            axis = 0
        elif op == "MatMul" and self._constant(node.input[1], ranks=(2,)):
            axis = 1
        elif op == "Gemm" and self._constant(node.input[1], ranks=(2,)) and not options.get("transA"):
            axis = 0 if options.get("transB") else 1
            if options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0:
                return None
        else:
            return None
        if len(node.input) > 2 and node.input[2] and not self._constant(node.input[2], ranks=(1,)):
            return None
        return None if self._constant(node.input[0]) else axis

    def _product(self, node: onnx.NodeProto, axis: int) -> None:
        self._activation(node.input[0])
        self._made(node)
        self.plan.products.add(node.output[0])
        self.roles[node.input[1]]["weights", axis].append((node, 1))
        if len(node.input) > 2 and node.input[2]:
            if self.uses[node.input[2]] > 1:  # its scale belongs to this node alone
                own = copied(self.arrays[node.input[2]])
                own.name = node.input[2] = self._fresh(f"{node.output[0]}.bias")
                self.plan.model.graph.initializer.append(own)
            self.biased.append(node)

    def _made(self, node: onnx.NodeProto, *, positive: bool = False) -> None:
        """Quantise the value that an integer operator makes."""
        self._activation(node.output[0], positive=positive)
        self.plan.sources[node.output[0]] = (node.output[0],)

    def _rescaling(self, node: onnx.NodeProto) -> None:
        """Quantise an operator between quantised operands: 8 bits are too few inside a formula such as Mish's."""
        constants = node.op_type in _CONSTANTS_ALLOWED
        stored = {name: at for at, name in enumerate(node.input) if constants and self._constant(name)}
        if not all(self._quantised(name) or name in stored for name in node.input) or len(stored) == len(node.input):
            return
        if node.op_type == "Sum":
            node.op_type = "Add"  # the one that there is a kernel for
        for name, at in stored.items():
            self.roles[name]["operand", 0].append((node, at))
        self._made(node, positive=node.op_type == "Sigmoid")

    def _clamp(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Drop a clamp of a value that is read nowhere else: a range that ends at the bounds saturates there."""
        before, after = node.input[0], node.output[0]
        maker = self.makers.get(before)
        low, high = self._clamp_bounds(node)
        # A range saturates only where an integer operator makes the value.
        integer = before in self.plan.activations and before in self.plan.sources
        alone = self.uses[before] == 1 and integer and before not in self.plan.bounds
        if maker is None or not alone or not low <= 0.0 <= high:
            return [node]
        if (
            after in self.outputs and maker.op_type in _FLOAT_RESULT
        ):  # the last product gives floats: no range saturates
            del self.plan.activations[before]
            return [node]
        maker.output[0] = after
        self.makers[after] = maker
        del self.plan.activations[before]
        self._activation(after, positive=low == 0.0)
        self.plan.sources[after] = (*self.plan.sources.pop(before, ()), after)
        return []

    def _clamp_bounds(self, node: onnx.NodeProto) -> Range:
        """The clamp's bounds; NaN, for which no comparison holds, where one is not a constant."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        options = attributes_of(node)
        bounds = [float(options.get("min", -np.inf)), float(options.get("max", np.inf))]
        for index, name in enumerate(node.input[1:]):
            if name:
                known = self._constant(name)
                bounds[index] = numpy_helper.to_array(self.arrays[name]).item() if known else np.nan
        return bounds[0], bounds[1]

    def _hard(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Write min(max(a·x + b, 0), 1) as a · (x + b/a) saturated at 0 and 1/a, an integer addition.

        ONNX Runtime has no integer kernel for HardSigmoid, and the way to float and back costs more than it saves.
        """
        x, y = node.input[0], node.output[0]
        options = attributes_of(node)
        swish = node.op_type == "HardSwish"
        slope = 1 / 6 if swish else float(options.get("alpha", 0.2))
        offset = 0.5 if swish else float(options.get("beta", 0.5))
        if not self._quantised(x) or slope <= 0:
            return [node]
        gate = self._fresh(f"{y}.gate") if swish else y
        shift = numpy_helper.from_array(
            np.array(_beside_a_tie(offset) / slope, np.float32), self._fresh(f"{gate}.shift")
        )
        self.plan.model.graph.initializer.append(shift)
        self.plan.constants[shift.name] = None
        self.plan.factors[gate] = slope
        self._activation(gate, positive=True)
        self.plan.sources[gate] = self.plan.sources[y] = (y,)
        name = node.name or y  # an inlined function's nodes have no names, and two of one name can't be loaded
        made = [helper.make_node("Add", [x, shift.name], [gate], name=f"{name}/Add")]
        if swish:
            made.append(helper.make_node("Mul", [x, gate], [y], name=f"{name}/Mul"))
            self.plan.bounds[gate] = (0.0, 1.0)
            self._activation(y)
        for each in made:
            each.metadata_props.extend(node.metadata_props)
        return made

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _free_outputs(self) -> None:
        """Leave the graph's outputs float: a product gives floats at no cost, and moved values stay as precise."""
        for name in self.outputs:
            maker = self.makers.get(name)
            if self.uses[name] == 1:
                self.plan.moved.pop(name, None)
            if maker is not None and maker.op_type in _FLOAT_RESULT and self.uses[name] == 1:
                self.plan.activations.pop(name, None)

    def _separate_roles(self) -> None:
        """Give each role of a constant a tensor of its own; whoever reads it as floats keeps the floats.

        A kernel that reads a weight along the other axis, or as an operand, must not meet scales of the first role:
        ONNX Runtime fuses it with these all the same.
        """
        for name, roles in self.roles.items():
            alone = len(roles) == 1 and sum(map(len, roles.values())) == self.uses[name]
            for (role, axis), places in roles.items():
                own = name if alone else self._copy(name)
                for node, at in places:
                    node.input[at] = own
                if role == "weights":
                    self.plan.weights[own] = axis
                else:
                    self.plan.constants[own] = None
        for node in self.biased:
            self.plan.biases[node.input[2]] = (node.input[0], node.input[1])

    def _copy(self, name: str) -> str:
        own = copied(self.arrays[name])
        own.name = self._fresh(name)
        self.plan.model.graph.initializer.append(own)
        return str(own.name)

    def _isolate(self) -> None:
        """Put barriers behind float nodes that a runtime would take into an integer kernel all the same."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                readers[name].append(node)
        for node in self.nodes:
            if len(node.output) != 1 or node.output[0] in self.plan.sources:
                continue
            name = node.output[0]
            one = node.op_type in integer_forms.TAKING_ONE and self._quantised(node.input[0])
            every = node.op_type in integer_forms.TAKING_ALL and all(map(self._quantised, node.input))
            if not (one or every or name in self.distrusted):
                continue
            if one:
                name = self._end(name, readers, integer_forms.PASSED)
            if self._quantised(self._end(name, readers, integer_forms.PASSED | MOVING)):
                self.plan.isolated.add(name)
        for name in self.outputs:
            moved = [each.output[0] for each in readers[name] if each.op_type in MOVING]
            if not self._quantised(name) and any(self._quantised(self._end(each, readers, MOVING)) for each in moved):
                self.plan.isolated.add(name)

    def _end(self, name: str, readers: Mapping[str, list[onnx.NodeProto]], passed: Collection[str]) -> str:
        """The value at the end of a chain of such operators, each the only reader of the one before."""
        while not self._quantised(name) and self.uses[name] == len(readers[name]) == 1:
            if readers[name][0].op_type not in passed:
                break
            name = readers[name][0].output[0]
        return name


def _beside_a_tie(offset: float) -> float:
    """A hard gate's value at 0, moved a little where it lies just between two of its 255 steps.

    So do the usual 0.5, at every 0 of the input, and whoever rounds there errs in either direction.
    """
    steps = offset * _STEPS
    return (steps + _BESIDE) / _STEPS if abs(steps % 1 - 0.5) < _BESIDE else offset
