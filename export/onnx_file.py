"""Reading, checking and opening ONNX models; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from export.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

Message = TypeVar("Message", onnx.ModelProto, onnx.NodeProto, onnx.TensorProto, onnx.ValueInfoProto)

# ONNX Runtime's exceptions share no base class but Exception.
RUNTIME_ERRORS: tuple[type[Exception], ...] = tuple(
    value for value in vars(ort_state).values() if isinstance(value, type) and issubclass(value, Exception)
)
RUN_ERRORS: tuple[type[Exception], ...] = (
    *RUNTIME_ERRORS,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    MemoryError,
)
CHECKER_ERRORS: tuple[type[Exception], ...] = (
    onnx.checker.ValidationError,  # this one and the next are no ValueErrors
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
    DecodeError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)
"""Errors of ONNX's checker, shape inference and version converter, whose C++ exceptions come as many kinds."""
_FATAL_ONLY = 4
DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


def describe(model: bytes | Path) -> str:
    """A model's name in messages: its path, or "the model in memory"."""
    return str(model) if isinstance(model, Path) else "the model in memory"


def read_model(model: bytes | Path) -> onnx.ModelProto:
    """Parse a model without following its references to external data.

    Raises:
        InvalidFileError: the file can't be read, or is no ONNX model.
    """
    try:
        if isinstance(model, Path):
            return onnx.load(str(model), load_external_data=False)
        return onnx.load_model_from_string(model)
    except (OSError, DecodeError, ValueError, MemoryError) as error:
        raise InvalidFileError(describe(model), str(error)) from error


def _openable(model: bytes | Path) -> bytes | str:
    """A model as ONNX and ONNX Runtime take it: no path that isn't UTF-8, but the file's content in its place."""
    if isinstance(model, bytes):
        return model
    try:
        str(model).encode()
    except UnicodeEncodeError:
        return model.read_bytes()
    return str(model)


def check_model(model: bytes | Path) -> None:
    """Run the ONNX checker with shape inference.

    Raises:
        InvalidFileError: the checker found a fault.
    """
    try:
        onnx.checker.check_model(_openable(model), full_check=True)
    except CHECKER_ERRORS as error:
        raise InvalidFileError(describe(model), str(error)) from error


def open_session(model: bytes | Path, *, threads: int = 1, optimised: bool = True) -> ort.InferenceSession:
    """Open a model on ONNX Runtime's CPU provider.

    Args:
        model: serialised, or a file.
        threads: to run it with.
        optimised: as it is deployed; else node by node, as the graph says.

    Raises:
        InvalidFileError: ONNX Runtime refuses it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY  # errors are raised, and need no second text on the terminal
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(_openable(model), options, providers=["CPUExecutionProvider"])
    except RUN_ERRORS as error:
        raise InvalidFileError(describe(model), str(error)) from error


def run(session: ort.InferenceSession, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Run a model of one input and return its first output.

    Raises:
        InvalidFileError: the model can't be run on inputs of this type and shape.
    """
    wanted = session.get_inputs()
    if len(wanted) != 1:
        raise InvalidFileError("the model", f"it takes {len(wanted)} inputs, not one")
    try:
        return np.asarray(session.run(None, {wanted[0].name: inputs})[0])
    except RUN_ERRORS as error:
        raise InvalidFileError("the model", str(error)) from error


def opset_of(model: onnx.ModelProto) -> int | None:
    """The model's opset: the version of ONNX's own domain, None where it states none."""
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    return versions[0] if versions else None


def copied(message: Message) -> Message:
    """Copy a model, a node, a tensor or a value's type."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Map the names of a node's attributes to their values."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def array_of(tensor: onnx.TensorProto) -> npt.NDArray[Any] | None:
    """A stored tensor's values; None where it doesn't hold as many as it says, or in a form that nothing reads.

    ONNX Runtime looks at no weight that no node reads, so a model that runs may have such tensors.
    """
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError):
        return None


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and every graph nested in its nodes' attributes."""
    yield graph
    for node in graph.node:
        yield from nested_graphs(node)


def nested_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield every graph nested in a node's attributes, at any depth."""
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
            yield from all_graphs(graph)


def names_read_within(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of all values that the nodes' nested graphs read, or hand out."""
    graphs = [graph for node in nodes for graph in nested_graphs(node)]
    names = {name for graph in graphs for node in graph.node for name in node.input}
    return names | {value.name for graph in graphs for value in graph.output}


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Names of all values, including those of nested graphs."""
    names: set[str] = set()
    for part in all_graphs(graph):
        names.update(value.name for value in (*part.input, *part.output, *part.initializer))
        names.update(name for node in part.node for name in (*node.input, *node.output))
    return names


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: of initializers, attributes, nested graphs, functions and training information."""
    yield from _tensors_in(model)


def _tensors_in(message: Any) -> Iterator[onnx.TensorProto]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Sequence) else (value,):
                if isinstance(inner, onnx.TensorProto):
                    yield inner
                else:
                    yield from _tensors_in(inner)
