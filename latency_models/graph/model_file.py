"""Reading an ONNX file: checks, parsing, its name in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latency_models.errors import InvalidModelError
from latency_models.graph.shapes import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def parse(model: Path | bytes) -> onnx.ModelProto:
    """Parse a model without its external data.

    Raises:
        InvalidModelError: not found, empty, truncated, or not ONNX at all.
    """
    check_readable(model)
    label = model_label(model)
    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        else:
            proto = onnx.load_model(model, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise InvalidModelError(label, f"not a loadable ONNX model, or a truncated one: {one_line(error)}") from error
    if not proto.graph.output:
        raise InvalidModelError(label, "not a loadable ONNX model: it holds no graph with an output")
    if (circle := _circle(proto)) is not None:
        raise InvalidModelError(label, f"not a loadable ONNX model: its function {circle!r} calls itself")
    return proto


def _circle(proto: onnx.ModelProto) -> str | None:
    """The name of a function of the model that calls itself, through others maybe; None where none does."""
    names = {(function.domain, function.name) for function in proto.functions}
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in _nodes(function.node)} & names
        for function in proto.functions
    }
    while free := [name for name, called in calls.items() if not called & calls.keys()]:
        for name in free:  # functions that call only those taken out before are in no circle
            del calls[name]
    return next((name for _, name in sorted(calls)), None)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes, and those of all graphs nested in them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _nodes(graph.node)


def model_label(model: bytes | Path) -> str:
    """The model's name in messages: its path, or "model" for bytes."""
    return "model" if isinstance(model, bytes) else str(model)


def check_readable(model: bytes | Path) -> None:
    """Raise InvalidModelError for a file that is missing, a folder, or empty."""
    label = model_label(model)
    if isinstance(model, bytes):
        if not model:
            raise InvalidModelError(label, "not a loadable ONNX model: it is empty (0 bytes)")
        return
    if model.exists() and not model.is_file():
        raise InvalidModelError(label, "can't be read: it is no regular file")
    try:
        with model.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InvalidModelError(label, f"can't be read: {error.strerror or error}") from error
    if empty:
        raise InvalidModelError(label, "not a loadable ONNX model: the file is empty (0 bytes)")
