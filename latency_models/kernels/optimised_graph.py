"""The kernels that ONNX Runtime runs for a file, from its own optimiser, with the shapes of their values."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from latency_models import timer
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.graph.external_data import load_with_external_data
from latency_models.graph.model_file import model_label, parse
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs, model_inputs
from latency_models.graph.observed_shapes import observe, refusals, tensor_types, written_out
from latency_models.graph.saved_graph import save_optimised_graph
from latency_models.graph.shapes import CONTROL_FLOW, Shapes, one_line, real_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device


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


def optimised_graph(model: bytes | Path, device: Device, given: GivenInputs = NOTHING_GIVEN) -> OptimisedGraph:
    """The graph that ONNX Runtime's optimiser makes of `model` for these inputs, as one run of it on this CPU shows it.

    An If gives way to the branch that it takes.

    Args:
        model: a file, or its bytes.
        device: whose number of threads and batch size count.
        given: sizes and values of the model's inputs; the rest is made up.

    Raises:
        InvalidModelError: no loadable model, open sizes that aren't given, or one that can't be run with these inputs.
        InputError: what is given doesn't fit.
        UnknownShapeError: the graph loops, so that its cost depends on values.
    """
    label = model_label(model)
    proto = parse(model) if isinstance(model, bytes) else load_with_external_data(model)[0]
    inputs = model_inputs(proto, label, device.batch_size, given)
    feed = inputs.arrays()
    try:
        plain = written_out(proto, feed, label=label)
        observe(plain, feed, label=label)  # what the optimiser makes of a graph that can't be run says nothing
    except InvalidModelError as error:
        raise inputs.refused(error) from error
    looping = next((node for node in plain.graph.node if node.op_type in CONTROL_FLOW), None)
    if looping is not None:
        raise UnknownShapeError(
            f"{label}: node {looping.name!r} is control flow ({looping.op_type}): its cost depends on values"
        )
    # Open sizes stay open: the session that is predicted computes them at each run, and fuses less for it.
    for output in plain.graph.output:  # a declared shape may hold another batch
        if output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.ClearField("shape")
    del plain.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        optimised = _optimised(plain, device, label, Path(folder))
        known = observe(optimised, feed, label=label, folder=Path(folder))
        names = [name for node in optimised.graph.node for name in node.output if name]
        types = tensor_types(optimised, names, Path(folder)) if names else {}
    return _Reading(optimised, known, types | known.elem_types).graph()


def _optimised(proto: onnx.ModelProto, device: Device, label: str, folder: Path) -> onnx.ModelProto:
    """The optimised graph, without its larger weights, which lie in the folder."""
    import onnxruntime

    options = timer.session_options(device.threads)
    save_optimised_graph(options, folder / "optimised.onnx")
    try:
        onnxruntime.InferenceSession(
            proto.SerializeToString(),
            options,
            providers=timer.providers(device.provider, dict(device.provider_options)),
        )
    except refusals() as error:
        raise InvalidModelError(label, f"not a loadable ONNX model: {one_line(error)}") from error
    optimised = onnx.load_model(folder / "optimised.onnx", load_external_data=False)
    # A weight that was listed as an input, and that the optimiser needed no longer, has left its input behind.
    read = {name for node in optimised.graph.node for name in node.input}
    kept = [info for info in optimised.graph.input if info.name in read]
    fed = [info for info in kept if info.name in {each.name for each in real_inputs(proto.graph)}]
    del optimised.graph.input[:]
    optimised.graph.input.extend(fed)
    return optimised


class _Reading:
    """Walks the optimised graph and gives each kernel its values."""

    def __init__(self, model: onnx.ModelProto, known: Shapes, types: Mapping[str, int]) -> None:
        self._model = model
        self._known = known
        self._types = types
        self._stored = {tensor.name for tensor in model.graph.initializer}
        self._sparse = {
            tensor.values.name: Value(tensor.values.name, tuple(tensor.dims), tensor.values.data_type, stored=True)
            for tensor in model.graph.sparse_initializer
        }

    def graph(self) -> OptimisedGraph:
        kernels = [self._kernel(node) for node in self._model.graph.node]
        used = {value.name: value for kernel in kernels for value in kernel.inputs if value is not None}
        return OptimisedGraph(tuple(kernels), sum(value.n_bytes for value in used.values() if value.stored))

    def _kernel(self, node: onnx.NodeProto) -> Kernel:
        return Kernel(
            node.op_type,
            node.domain,
            tuple(self._value(name) for name in node.input),
            tuple(value for name in node.output if (value := self._value(name)) is not None),
            {each.name: helper.get_attribute_value(each) for each in node.attribute},
        )

    def _value(self, name: str) -> Value | None:
        """Look up a value; None for an omitted one, and for one that is no tensor."""
        if name in self._sparse:
            return self._sparse[name]
        if name not in self._known.dims or not self._types.get(name):
            return None
        return Value(name, self._known.dims[name], self._types[name], stored=name in self._stored)
