"""The kernels that ONNX Runtime runs for a file, from its own optimiser, with the shapes of their values."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import defs, helper, shape_inference

from latency_models import timer
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.graph.external_data import load_with_external_data
from latency_models.graph.model_file import model_label, parse
from latency_models.graph.shapes import Shapes, batch_sizes, declared_shape, infer, one_line, real_inputs
from latency_models.kernels.shapes import OWN_DOMAINS, own_output_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_DEFAULT_DOMAINS = ("", "ai.onnx")
_READ_AS_SHAPES = 1024


@dataclass(frozen=True)
class Value:
    """A value between kernels: its shape, its element type, and whether it is stored with the model."""

    name: str
    dims: tuple[int, ...]
    elem_type: int
    stored: bool

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def n_bytes(self) -> int:
        """Size in bytes."""
        return self.elements * int(helper.tensor_dtype_to_np_dtype(self.elem_type).itemsize)


@dataclass(frozen=True)
class Kernel:
    """One node of the optimised graph; an omitted optional input is None."""

    op_type: str
    domain: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OptimisedGraph:
    """The kernels in topological order, and the bytes of the weights that they read."""

    kernels: tuple[Kernel, ...]
    stored_bytes: int


def optimised_graph(model: bytes | Path, device: Device) -> OptimisedGraph:
    """The graph that ONNX Runtime's optimiser makes of `model` on `device`; nothing is run.

    Raises:
        InvalidModelError: no loadable model, or its batch isn't `device.batch_size`, or another dimension is open.
        UnknownShapeError: the graph branches or loops, or a shape depends on values.
    """
    proto = _with_fixed_batch(model, device.batch_size)
    try:
        known = infer(proto, device.batch_size)
    except InvalidModelError as error:
        raise InvalidModelError(model_label(model), error.reason) from error
    optimised = _optimised(proto, device, model_label(model))
    return _Reading(optimised, known).graph()


def _with_fixed_batch(model: bytes | Path, batch_size: int) -> onnx.ModelProto:
    proto = parse(model) if isinstance(model, bytes) else load_with_external_data(model)[0]
    inputs = {info.name: info for info in real_inputs(proto.graph)}
    declared = {name: shape for name, info in inputs.items() if (shape := declared_shape(info)) is not None}
    for name, fixed in batch_sizes(declared, batch_size, model_label(model)).items():
        for dim, size in zip(inputs[name].type.tensor_type.shape.dim, fixed, strict=True):
            dim.dim_value = size
    for output in proto.graph.output:  # a declared shape may hold another batch
        if output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    return proto


def _optimised(proto: onnx.ModelProto, device: Device, label: str) -> onnx.ModelProto:
    import onnxruntime

    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, *timer.runtime_errors())
    options = timer.session_options(device.threads)
    options.log_severity_level = 4  # it would warn that such a file is bound to this machine
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                proto.SerializeToString(),
                options,
                providers=timer.providers(device.provider, dict(device.provider_options)),
            )
        except refusals as error:
            raise InvalidModelError(label, f"not a loadable ONNX model: {one_line(error)}") from error
        return onnx.load_model(path)


class _Reading:
    """Walks the optimised graph and finds the shape of each value."""

    def __init__(self, model: onnx.ModelProto, known: Shapes) -> None:
        self._model = model
        self._known = known
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, Value] = {}

    def graph(self) -> OptimisedGraph:
        graph = self._model.graph
        for tensor in graph.initializer:
            self._values[tensor.name] = Value(tensor.name, tuple(tensor.dims), tensor.data_type, stored=True)
        for info in real_inputs(graph):
            self._values[info.name] = self._input(info)
        kernels = [self._kernel(node) for node in graph.node]
        used = {value.name: value for kernel in kernels for value in kernel.inputs if value is not None}
        return OptimisedGraph(tuple(kernels), sum(value.n_bytes for value in used.values() if value.stored))

    def _input(self, info: onnx.ValueInfoProto) -> Value:
        shape = declared_shape(info)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise UnknownShapeError(f"the shape of input {info.name!r} isn't known")
        dims = tuple(size for size in shape if isinstance(size, int))
        return Value(info.name, dims, info.type.tensor_type.elem_type, stored=False)

    def _kernel(self, node: onnx.NodeProto) -> Kernel:
        if node.op_type in _CONTROL_FLOW:
            raise UnknownShapeError(f"node {node.name!r} is control flow ({node.op_type}): its cost depends on values")
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        inputs = tuple(self._values[name] if name else None for name in node.input)
        outputs = tuple(self._output(node, name, at, inputs, attributes) for at, name in enumerate(node.output) if name)
        self._values.update((value.name, value) for value in outputs)
        return Kernel(node.op_type, node.domain, inputs, outputs, attributes)

    def _output(
        self, node: onnx.NodeProto, name: str, at: int, inputs: tuple[Value | None, ...], attributes: dict[str, Any]
    ) -> Value:
        known = self._known
        if name in known.dims and name in known.elem_types:
            return Value(name, known.dims[name], known.elem_types[name], stored=False)
        shape = None
        if node.domain in OWN_DOMAINS:
            dims = [None if value is None else value.dims for value in inputs]
            shape = own_output_shapes(node.op_type, dims, attributes)
        if shape is not None:
            return Value(name, shape, self._elem_type(node, inputs), stored=False)
        return self._inferred(node, at)

    def _elem_type(self, node: onnx.NodeProto, inputs: tuple[Value | None, ...]) -> int:
        """The type of a result of ONNX Runtime's own kernels: the first input's, or float after dequantisation."""
        first = next(value for value in inputs if value is not None)
        if node.op_type in {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DequantizeLinear"}:
            return int(onnx.TensorProto.FLOAT)
        return first.elem_type

    def _inferred(self, node: onnx.NodeProto, at: int) -> Value:
        """A node's output with the shape by ONNX's inference for this node."""
        name = node.output[at]
        unknown = UnknownShapeError(f"the shape of value {name!r} ({node.op_type}) can't be inferred")
        domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
        if not defs.has(node.op_type, domain):
            raise unknown
        schema = defs.get_schema(node.op_type, self._opsets.get(node.domain, defs.onnx_opset_version()), domain)
        types = {each: _type_of(self._values[each]) for each in node.input if each}
        data = {
            each: self._constants[each]
            for each in node.input
            if each in self._constants and math.prod(self._constants[each].dims) <= _READ_AS_SHAPES
        }
        imports = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        try:
            found = shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=imports, ir_version=self._model.ir_version
            )[name].tensor_type
        except (RuntimeError, KeyError, ValueError) as error:
            raise unknown from error
        if not found.HasField("shape") or not all(dim.HasField("dim_value") for dim in found.shape.dim):
            raise unknown
        return Value(name, tuple(dim.dim_value for dim in found.shape.dim), found.elem_type, stored=False)


def _type_of(value: Value) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(value.elem_type, value.dims)
