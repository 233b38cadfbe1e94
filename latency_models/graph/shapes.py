"""Shapes of all values of a graph, inferred once for every cost that needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from onnx import helper, inliner, shape_inference

from latency_models import timer
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.timer import one_line as one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

# Initializers up to this size may be shapes, axes or pads, whose values inference reads; larger ones are
# weights, whose values it never reads and which cost time to copy.
_READ_BY_INFERENCE = 64
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators with graphs of their own inside."""
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_FIRST_IR_WITHOUT_INITIALIZER_INPUTS = 4


@dataclass(frozen=True)
class Shapes:
    """A graph with the shape and the type of its values.

    `dims` and `elem_types` hold all that is known. `constants` are the values that depend on no input: ONNX Runtime
    computes them once, when the session is made. `values` are the numbers in integer values that a cost depends on.
    """

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: frozenset[str]
    dims: dict[str, tuple[int, ...]] = field(repr=False)
    elem_types: dict[str, int] = field(repr=False)
    values: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def live_nodes(self) -> tuple[onnx.NodeProto, ...]:
        """The nodes that run at every inference, in topological order."""
        return tuple(n for n in self.nodes if any(out and out not in self.constants for out in n.output))

    def of(self, value: str) -> tuple[int, ...]:
        """The shape of a value. Raises UnknownShapeError if it couldn't be inferred."""
        try:
            return self.dims[value]
        except KeyError:
            raise UnknownShapeError(f"the shape of value {value!r} can't be inferred") from None

    def integers(self, value: str) -> tuple[int, ...]:
        """The numbers in an integer value. Raises UnknownShapeError if they aren't known."""
        try:
            return self.values[value]
        except KeyError:
            raise UnknownShapeError(f"the numbers in {value!r}, which a cost depends on, aren't known") from None

    def elements(self, value: str) -> int:
        """The number of elements of a value."""
        return math.prod(self.of(value))

    def n_bytes(self, value: str) -> int:
        """The bytes of a value. Raises UnknownShapeError if its shape or type isn't known."""
        try:
            elem_type = self.elem_types[value]
        except KeyError:
            raise UnknownShapeError(f"the type of value {value!r} can't be inferred") from None
        return self.elements(value) * helper.tensor_dtype_to_np_dtype(elem_type).itemsize


def infer(model: onnx.ModelProto, batch_size: int = 1) -> Shapes:
    """Infer the shapes of all values, with the batch set to `batch_size`.

    The batch is the first dimension of an input, where that is not fixed. No other dimension is guessed.

    Raises:
        InvalidModelError: as `batch_sizes`.
        UnknownShapeError: the graph branches or loops, so that its cost depends on values.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    for node in model.graph.node:
        if node.op_type in CONTROL_FLOW:
            raise UnknownShapeError(f"node {node.name!r} is control flow ({node.op_type}): its cost depends on values")
    light, symbol_sizes = _without_weights(model, batch_size)
    try:
        inferred = shape_inference.infer_shapes(light, check_type=False, strict_mode=False, data_prop=True)
    except (RuntimeError, shape_inference.InferenceError) as error:
        raise UnknownShapeError(f"shape inference fails: {one_line(error)}") from error
    dims: dict[str, tuple[int, ...]] = {}
    elem_types: dict[str, int] = {}
    declared = (*model.graph.value_info, *model.graph.output)
    graph = inferred.graph
    for info in (*graph.input, *graph.value_info, *graph.output, *declared):
        _record(info, symbol_sizes, dims, elem_types)
    for tensor in model.graph.initializer:
        dims[tensor.name] = tuple(tensor.dims)
        elem_types[tensor.name] = tensor.data_type
    return Shapes(
        nodes=tuple(light.graph.node),
        inputs=tuple(info.name for info in real_inputs(model.graph)),
        outputs=tuple(info.name for info in model.graph.output),
        constants=constants_of(model),
        dims=dims,
        elem_types=elem_types,
    )


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds; older files list initializers among the inputs too."""
    stored = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in stored]


def batch_sizes(
    declared: Mapping[str, Sequence[int | str | None]], batch_size: int, model: str = "model"
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs at `batch_size`; each is declared with sizes and names (None: open and unnamed).

    The batch is the first dimension where it is open, and any other that goes by its name.

    Raises:
        InvalidModelError: another dimension is open, or every first dimension is fixed at another size than a
            `batch_size` above 1.
    """
    try:
        return timer.batch_sizes(declared, batch_size)
    except timer.RefusedError as refused:
        raise InvalidModelError(model, refused.reason) from refused


def declared_shape(info: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Sizes and names of an input's dimensions, None in place of unnamed open ones; None without a shape."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in info.type.tensor_type.shape.dim
    ]


def _fix_batch(inputs: Iterable[onnx.ValueInfoProto], batch_size: int) -> dict[str, int]:
    """Write the sizes at `batch_size` into the inputs; returns the sizes of named dimensions."""
    shaped = {info.name: (info, shape) for info in inputs if (shape := declared_shape(info)) is not None}
    sizes = batch_sizes({name: shape for name, (_, shape) in shaped.items()}, batch_size)
    names: dict[str, int] = {}
    for name, (info, shape) in shaped.items():
        for dim, declared, size in zip(info.type.tensor_type.shape.dim, shape, sizes[name], strict=True):
            if isinstance(declared, str):
                names[declared] = size
            dim.dim_value = size
    return names


def _without_weights(model: onnx.ModelProto, batch_size: int) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A copy with a fixed batch, inputs in place of weights, and open outputs; also the sizes of named dimensions."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, _FIRST_IR_WITHOUT_INITIALIZER_INPUTS))
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(real_inputs(model.graph))
    symbol_sizes = _fix_batch(graph.input, batch_size)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _READ_BY_INFERENCE and not tensor.external_data:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    # A declared shape may hold another batch size.
    for info in model.graph.output:
        graph.output.append(onnx.ValueInfoProto(name=info.name))
    return light, symbol_sizes


def _record(
    info: onnx.ValueInfoProto,
    symbol_sizes: dict[str, int],
    dims: dict[str, tuple[int, ...]],
    elem_types: dict[str, int],
) -> None:
    """Store the shape and type of `info`, unless they are known already."""
    tensor_type = info.type.tensor_type
    if tensor_type.elem_type:
        elem_types.setdefault(info.name, tensor_type.elem_type)
    if not tensor_type.HasField("shape") or info.name in dims:
        return
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else symbol_sizes.get(dim.dim_param, -1)
        for dim in tensor_type.shape.dim
    ]
    if all(size >= 0 for size in sizes):
        dims[info.name] = tuple(sizes)


def constants_of(model: onnx.ModelProto, decided_late: Collection[str] = ()) -> frozenset[str]:
    """Names of the values that depend on initializers alone; those in `decided_late` don't.

    From IR version 4 on an initializer that is listed as an input may be replaced by a caller: it isn't constant.
    """
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    if model.ir_version >= _FIRST_IR_WITHOUT_INITIALIZER_INPUTS:
        known -= {info.name for info in graph.input}
    for node in graph.node:
        if node.op_type in CONTROL_FLOW or node.op_type in _RANDOM:
            continue
        if all(not name or name in known for name in node.input):
            known.update(name for name in node.output if name and name not in decided_late)
    return frozenset(known)
