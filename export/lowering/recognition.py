"""Which activation each node of a file is part of, by what the nodes compute: for reading, nothing is rewritten.

More is recognised here than the lowering may touch: float16, values between QuantizeLinear and DequantizeLinear, old
opsets. What has no name of its own is called by its operators.
"""

from __future__ import annotations

import ast
import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.lowering import families
from export.lowering.initializers import gather_constants, initializers_of
from export.lowering.regions import regions
from export.onnx_file import array_of, attributes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.lowering.families import Function, RecognisedActivation
    from export.lowering.regions import Region

# The second and third are for constants rounded to float16; 1e-4 still parts gelu from gelu_tanh.
_TOLERANCES = (families.IDENTICAL, 1e-4, 2e-3)
_LINEAR = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Sum", "Identity", "Conv"})
# What no family stands for: operators of ONNX Runtime's own domain, and a fraction of polynomials.
_BY_OPERATOR = {"BiasGelu": "gelu", "FastGelu": "gelu", "QuickGelu": "silu", "Mul·Add·Abs·Div": "pade"}
# Operators and torch classes, in lower case, that say more than the function: a prelu computes what a leaky_relu does.
_MORE_SPECIFIC = {
    "prelu": "prelu", "channelprelu": "prelu_channel", "celu": "celu", "thresholdedrelu": "thresholded_relu",
    "swishbeta": "swish_beta", "scaledsigmoid": "scaled_sigmoid", "aconc": "acon", "pade": "pade", "glu": "glu",
    "logsigmoid": "logsigmoid",
}  # fmt: skip
_TYPE_CHANGES = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
_LARGEST = 1 << 14  # numbers of a constant that an activation may have
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def activations_by_output(model: onnx.ModelProto) -> dict[str, str]:
    """Map the output of each node that is part of an activation to the activation's name.

    Args:
        model: without functions of its own; its nested graphs are not looked into.
    """
    graph = _in_float32(model).graph
    known: dict[object, RecognisedActivation | None] = {}

    def is_known(region: Region) -> bool:
        if region.key not in known:
            known[region.key] = _recognise(region)
        return known[region.key] is not None

    named = regions(graph, is_known)
    unnamed = regions(graph, lambda region: _is_unnamed(region, named))
    names = {node.output[0]: _BY_OPERATOR[node.op_type] for node in graph.node if node.op_type in _BY_OPERATOR}
    for region in (*named, *unnamed):
        name = _name(region, known.get(region.key))
        names.update((node.output[0], name) for node in region.nodes)
    return names | _of_casts(model.graph, names)


def _of_casts(graph: onnx.GraphProto, names: Mapping[str, str]) -> dict[str, str]:
    """A Cast is part of the activation that reads it, or else of the one that it reads."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(names.get(node.output[0], ""))
    found = {}
    for node in (node for node in graph.node if node.op_type == "Cast"):
        read_by = readers.get(node.output[0], set())
        name = (read_by.pop() if len(read_by) == 1 else "") or names.get(node.input[0])
        if name:
            found[node.output[0]] = name
    return found


def _recognise(region: Region) -> RecognisedActivation | None:
    functions: tuple[Function, ...] = (
        region,
        lambda x: region(-x),
    )  # a form of mish has the sign in the weights before it
    for function, tolerance in product(functions, _TOLERANCES):
        close = function if tolerance == families.IDENTICAL else _rounded_end(function)
        known = families.recognise(close, tolerance)
        if known is not None:
            # |x| and relu(x + b) have one knot, and are no activation of that kind.
            knots = known.parameters.get("knots")
            return known if knots is None or knots.size > 1 else None
    return None


def _rounded_end(function: Function) -> Function:
    """The function, scaled so that it ends in exactly x or 1 where rounded constants let it end close to that."""
    ends = function(np.array([families.FAR]))
    scale = np.ones_like(ends)
    for wanted in (families.FAR, 1.0):
        near = np.abs(ends / wanted - 1) < _TOLERANCES[-1]
        scale[near] = wanted / ends[near]
    return lambda x: function(x) * scale


def _is_unnamed(region: Region, named: list[Region]) -> bool:
    """Whether a region has a nonlinear node in no named one; it may hold named ones where it gates its input."""
    own = set(region.positions)
    parts = [set(other.positions) for other in named if not own.isdisjoint(other.positions)]
    if parts and (
        sum(region.root in node.input for node in region.nodes) < 2 or not own.issuperset(set().union(*parts))
    ):
        return False
    rest = own.difference(*parts)
    return any(
        at in rest and node.op_type not in _LINEAR for at, node in zip(region.positions, region.nodes, strict=True)
    )


def _name(region: Region, known: RecognisedActivation | None) -> str:
    if known is not None and known.channels > 1:
        return known.name
    last = region.nodes[-1]
    operator = last.op_type if len(region.nodes) == 1 else ""
    for said in (_torch_class(last), operator):
        if (name := _MORE_SPECIFIC.get(said.lower())) is not None:
            return name
    operators = "·".join(dict.fromkeys(node.op_type for node in region.nodes))
    return known.name if known is not None else _BY_OPERATOR.get(operators, operators)


def _torch_class(node: onnx.NodeProto) -> str:
    """The class of the node's module, as torch's exporter notes it; empty where it doesn't."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    try:
        classes = ast.literal_eval(notes.get("pkg.torch.onnx.class_hierarchy", "[]"))
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # anybody may have written it
        return ""
    if not classes:
        classes = [level.partition(": ")[2] for level in notes.get("namespace", "").split("/")]
    return str(classes[-2]).rpartition(".")[2] if isinstance(classes, list) and len(classes) > 1 else ""


def _in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every value is float32: without casts and quantisation, and with those of constants computed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    gather_constants(copy)
    for tensor in copy.graph.initializer:
        half = tensor.data_type in _HALVES and tensor.data_location != TensorProto.EXTERNAL
        if half and (array := array_of(tensor)) is not None:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    stored = initializers_of(copy.graph)
    sources, gone = dict[str, str](), list[int]()
    for at, node in enumerate(copy.graph.node):
        if node.op_type in _TYPE_CHANGES:
            gone.append(at)
            if (constant := _converted(node, stored)) is not None:
                copy.graph.initializer.append(constant)
            else:
                sources[node.output[0]] = node.input[0]
    for at in reversed(gone):
        del copy.graph.node[at]
    for node in copy.graph.node:
        for at, name in enumerate(node.input):
            while name in sources:
                name = sources[name]
            node.input[at] = name
    return copy


def _converted(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    """The float32 constant that a node makes; None where it makes none, or a large one."""
    tensors = [stored.get(name) for name in node.input if name]
    if any(t is None or t.data_location == TensorProto.EXTERNAL or math.prod(t.dims) > _LARGEST for t in tensors):
        return None
    arrays = [array for tensor in tensors if tensor is not None and (array := array_of(tensor)) is not None]
    if len(arrays) != len(tensors):
        return None
    values, *rest = (array.astype(np.float32) for array in arrays)
    if node.op_type == "DequantizeLinear":
        axis = attributes_of(node).get("axis", 1) if rest[0].size > 1 else -1
        if rest[0].ndim > 1:  # a scale for each block
            return None
        zero = rest[1] if len(rest) > 1 else np.float32(0)
        values = np.moveaxis((np.moveaxis(np.atleast_1d(values), axis, -1) - zero) * rest[0], -1, axis)
    return numpy_helper.from_array(values, node.output[0])
