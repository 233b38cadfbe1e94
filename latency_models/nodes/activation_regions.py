"""Which nodes of a graph are an activation, and which one: by their form, as files seldom say it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import helper, numpy_helper

from latency_models.graph.convolutions import scales_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

_SINGLE = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Mish": "mish",
    "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softplus": "softplus", "Softsign": "softsign", "PRelu": "prelu", "Swish": "silu", "QuickGelu": "silu",
    "ThresholdedRelu": "thresholded_relu", "Gelu": "gelu", "Clip": "clip", "BiasGelu": "gelu", "FastGelu": "gelu",
}  # fmt: skip
_COMPOUND = {
    frozenset(ops.split()): name
    for ops, name in {
        "Sigmoid Mul": "silu",
        "HardSigmoid Mul": "hardswish",
        "Softplus Tanh Mul": "mish",
        "Min Exp Add Mul Div": "mish",
        "Softplus Greater Where": "softplus",
        "Relu Abs Sigmoid Log Sub": "softplus",
        "Relu Mul": "squared_relu",
        "Relu Pow": "squared_relu",
        "Relu Mul Add": "prelu",
        "Min Exp Sub Max": "elu",
        "Add Clip Mul Div": "hardswish",
        "Add Clip Mul": "hardswish",
        "Add Clip Div": "hardsigmoid",
        "Div Erf Add Mul": "gelu",
        "Mul Erf Add": "gelu",
        "Mul Pow Add Tanh": "gelu_tanh",
        "Abs Add Div": "softsign",
        "Mul Sub Relu Add": "piecewise_linear",
        "Mul Add Abs Div": "pade",
        # Conv: of 1×1 kernels, one for each channel, which scales and shifts them in the runtime's own layout.
        "Conv Sigmoid Mul Softsign": "mish",
        "Clip Exp Add Mul Softsign": "mish",
        "Clip Exp Sub Max": "elu",
        "Clip Exp Sub Mul Max": "elu",
        "Clip Exp Sub Mul Relu Add": "elu",
        "Clip Exp Sub Relu Add": "elu",
        "Conv Clip Exp Relu Add": "elu",
        "Neg Min Exp Mul Softsign Add Relu": "softplus",
        "Mul Max": "prelu",
        "Sigmoid Conv": "scaled_sigmoid",
        "Conv Sigmoid Mul": "acon",
        "Conv Sigmoid Mul Add": "acon",
        "Conv Relu Add": "piecewise_linear",
    }.items()
}
# Of the same operators as others, in other numbers.
_COUNTED = {
    frozenset(Counter(ops.split()).items()): name
    for ops, name in {
        "Mul Sigmoid Mul": "swish_beta",
        "Sigmoid Mul Add": "scaled_sigmoid",
        "Mul Mul Sigmoid Mul Mul Add": "acon",
        "Mul Sigmoid Mul Add Mul": "acon",
        "Mul Clip Exp Sub Mul Max": "celu",
        "Clip Mul Exp Sub Mul Max": "celu",
        "Clip Exp Sub Mul Relu Mul Add": "selu",
        "Conv Clip Exp Conv Conv Relu Add": "selu",
        "Conv Relu Conv Add": "prelu",
    }.items()
}
_LINEAR = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Sum", "Identity", "Cast"})
_BENT = frozenset(_SINGLE) | {"Abs", "Erf", "Exp", "Log", "Max", "Min", "Pow", "Sqrt", "Where", "Greater", "Less"}
# Numbers in another form, which an activation may stand between.
_SAME_NUMBERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_TORCH_CLASSES = {
    name.replace("_", ""): name
    for name in (
        *_SINGLE.values(), *_COMPOUND.values(), *_COUNTED.values(),
        "relu6", "gelu_tanh", "glu", "logsigmoid", "hardtanh",
    )
} | {"aconc": "acon", "channelprelu": "prelu"}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """The nodes (their positions in the file) of one activation."""

    name: str
    nodes: frozenset[int]


def activation_regions(
    graph: onnx.GraphProto, module_of: Callable[[int], str | None], class_of: Callable[[int], str | None]
) -> tuple[Region, ...]:
    """The activations of a graph.

    An activation is a connected group of elementwise nodes that depend on one value alone and bend it. Two that
    follow each other are told apart by their modules.

    Args:
        graph: in topological order.
        module_of: a node's module by its position, None where the file doesn't say it.
        class_of: its module's class, likewise.
    """
    constants = constant_values(graph)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    group: dict[str, int] = {}  # value → first node of the region that made it
    root: dict[str, str] = {}
    members: dict[int, list[int]] = {}
    for at, node in enumerate(graph.node):
        inputs = [name for name in node.input if name and name not in constants]
        if node.op_type in _SAME_NUMBERS and len(inputs) == 1:
            root[node.output[0]] = root.get(inputs[0], inputs[0])
            if inputs[0] in group:
                group[node.output[0]] = group[inputs[0]]
            continue
        if (
            not (
                node.op_type in _BENT | _LINEAR
                or (node.op_type == "Conv" and scales_channels(node, shapes.get(node.input[1], ())))
            )
            or not inputs
        ):
            continue
        own = [name for name in inputs if name in group and module_of(group[name]) == module_of(at)]
        roots = {root.get(name, name) if name in own or name not in group else name for name in inputs}
        if len(roots) != 1:
            continue
        firsts = sorted({group[name] for name in own})
        first = firsts[0] if firsts else at
        for merged in firsts[1:]:
            members[first] += members.pop(merged)
            group.update({name: first for name, old in group.items() if old == merged})
        members.setdefault(first, []).append(at)
        for name in node.output:
            group[name], root[name] = first, roots.pop() if len(roots) == 1 else root[node.output[0]]
    return tuple(
        Region(_name([graph.node[at] for at in found], class_of(found[-1]), constants), frozenset(found))
        for found in members.values()
        if any(graph.node[at].op_type in _BENT for at in found)
    )


def _name(nodes: Sequence[onnx.NodeProto], class_name: str | None, constants: Mapping[str, object]) -> str:
    known = _TORCH_CLASSES.get((class_name or "").rpartition(".")[2].lower())
    if known is not None and known != "gelu":
        return known
    if len(nodes) == 1 and nodes[0].op_type in _SINGLE:
        return _single(nodes[0], constants)
    kinds = tuple(dict.fromkeys(node.op_type for node in nodes))
    counts = frozenset(Counter(node.op_type for node in nodes).items())
    if counts in _COUNTED:
        return _COUNTED[counts]
    if (name := _COMPOUND.get(frozenset(kinds))) is not None:
        return name
    # A bias of its own that stands before, say.
    return _name(nodes[1:], None, constants) if nodes[0].op_type in _LINEAR | {"Conv"} else "·".join(kinds)


def _single(node: onnx.NodeProto, constants: Mapping[str, object]) -> str:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Gelu" and attributes.get("approximate") == b"tanh":
        return "gelu_tanh"
    if node.op_type == "Clip":
        low, high = attributes.get("min"), attributes.get("max")
        low = constants.get(node.input[1]) if len(node.input) > 1 else low
        high = constants.get(node.input[2]) if len(node.input) > 2 else high
        if low == 0.0 and high in (6.0, None):
            return "relu" if high is None else "relu6"
        if (low, high) == (-1.0, 1.0):
            return "hardtanh"
        return "clip"
    return _SINGLE[node.op_type]


def constant_values(graph: onnx.GraphProto) -> dict[str, object]:
    """Names of the constants, with the value of those of one number."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    found: dict[str, object] = {
        name: None
        if tensor.external_data or sum(tensor.dims) > 1
        else float(numpy_helper.to_array(tensor).reshape(-1)[0])
        for name, tensor in tensors.items()
    }
    for node in graph.node:
        if all(not name or name in found for name in node.input):
            found.update(dict.fromkeys((name for name in node.output if name not in found), None))
    return found
