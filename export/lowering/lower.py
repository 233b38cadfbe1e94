"""Exact rewrites of a whole model to cheaper forms, for quick graphs, final exports and any other file; no torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from export.lowering.activation_sites import lower_activations
from export.lowering.initializers import gather_constants, initializers_of
from export.onnx_file import CHECKER_ERRORS, DEFAULT_DOMAINS, attributes_of, copied, names_read_within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.lowering.activation_sites import LoweredSite

# ONNX Runtime's CPU provider has GlobalAveragePool for these only.
_POOLED_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


@dataclass(frozen=True)
class LoweringResult:
    """A model in its cheapest exact form, with a report of the changes.

    Attributes:
        model: the new model.
        sites: the activations in it, in order of execution.
        pools: number of means over an image that became GlobalAveragePool.
    """

    model: onnx.ModelProto
    sites: tuple[LoweredSite, ...]
    pools: int


def lower(model: onnx.ModelProto, forms: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Apply every rewrite to a copy of the model, which computes the same.

    Args:
        model: any, as `onnx.load` reads it; its nested graphs stay as they are.
        forms: activation family → name of the form to prefer (`export.lowering.forms.FORMS`).

    Raises:
        TypeError: something else than a model.
    """
    return lower_with_report(model, forms).model


def lower_with_report(model: onnx.ModelProto, forms: Mapping[str, str] | None = None) -> LoweringResult:
    """Lower a model as `lower` does, and report the changes."""
    lowered = tidied_copy(model)
    pools = restore_global_average_pool(lowered)
    sites = lower_activations(lowered, forms)
    _drop_dead(lowered.graph)
    return LoweringResult(lowered, tuple(sites), pools)


def tidied_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model for the rewrites: constants as initializers, without nodes and numbers that nothing reads.

    Raises:
        TypeError: something else than a model, such as a file's path.
    """
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"lower takes an onnx.ModelProto, as onnx.load(path) reads it, not a {type(model).__name__}")
    copy = copied(model)
    gather_constants(copy)
    _drop_dead(copy.graph)  # dead readers would hide values that can be changed
    return copy


def restore_global_average_pool(model: onnx.ModelProto) -> int:
    """Write ReduceMean over the image of an N,C,H,W value as GlobalAveragePool, in place; returns how many.

    Torch's exporter writes adaptive pooling to 1×1 as ReduceMean, for which ONNX Runtime leaves its blocked
    layout. Without kept dimensions a Flatten follows the pool. Only the main graph's floating-point values of
    known rank 4 are touched.
    """
    constants = initializers_of(model.graph)
    candidates = [node for node in model.graph.node if _reduces_image(node, constants)]
    if not candidates:
        return 0
    images = _image_values(model)
    nodes: list[onnx.NodeProto] = []
    pools = 0
    for node in model.graph.node:
        replace = any(node is candidate for candidate in candidates) and node.input[0] in images
        pools += replace
        nodes.extend(_pooled(node) if replace else [node])
    replaced = [copied(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(replaced)
    return pools


def _reduces_image(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether the node takes the mean over the axes 2 and 3 of a value that may have rank 4."""
    if node.op_type != "ReduceMean" or node.domain not in DEFAULT_DOMAINS:
        return False
    axes = attributes_of(node).get("axes")
    # From opset 18 on the axes are the second input.
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return isinstance(axes, list) and {axis % 4 for axis in axes} == {2, 3}


def _pooled(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    keeps = attributes_of(node).get("keepdims") != 0
    pooled = node.output[0] if keeps else f"{node.output[0]}.pooled"
    name = f"{node.name.removesuffix('ReduceMean')}GlobalAveragePool" if node.name else ""
    pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=name)
    pool.metadata_props.extend(node.metadata_props)
    if keeps:
        return [pool]
    flatten = helper.make_node(
        "Flatten", [pooled], [node.output[0]], name=name.replace("GlobalAveragePool", "Flatten"), axis=1
    )
    flatten.metadata_props.extend(node.metadata_props)
    return [pool, flatten]


def _image_values(model: onnx.ModelProto) -> set[str]:
    """Names of the main graph's floating-point values of known rank 4."""
    known = _ranked(model.graph)
    if any(node.op_type == "ReduceMean" and node.input[0] not in known for node in model.graph.node):
        with suppress(*CHECKER_ERRORS):  # over 2 GB, or declared sizes that contradict each other, which may still run
            known = known | _ranked(onnx.shape_inference.infer_shapes(model).graph)
    return {name for name, (rank, kind) in known.items() if rank == 4 and kind in _POOLED_TYPES}


def _ranked(graph: onnx.GraphProto) -> dict[str, tuple[int, int]]:
    return {
        info.name: (len(info.type.tensor_type.shape.dim), info.type.tensor_type.elem_type)
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }


def _drop_dead(graph: onnx.GraphProto) -> None:
    needed = {output.name for output in graph.output}
    dead: list[int] = []
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if needed.isdisjoint(node.output):
            dead.append(index)
        else:
            needed.update(node.input, names_read_within([node]))
    for index in dead:
        del graph.node[index]
    # Without its default an input would have to be fed, also one that nothing reads.
    _keep(graph.initializer, needed.union(info.name for info in graph.input))
    made = needed.union(*(node.output for node in graph.node))
    _keep(graph.value_info, made)


def _keep(entries: Any, names: set[str]) -> None:
    """Remove the entries of a repeated field that are not named."""
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].name not in names:
            del entries[index]
