"""The final ONNX file of a trained network, through torch's exporter, lowered and checked."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.onnx

from export import lowering, onnx_file
from export.errors import ExportError
from export.graph_writer import BATCH, PRODUCER
from export.module_state import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from torch import nn

MINIMUM_OPSET = 18  # torch's dynamo exporter silently raises a lower request to this
_SCOPES = "pkg.torch.onnx.name_scopes"
# The exporter speaks of its own insides, not of the user's network.
_CHATTER = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r".*Setting ONNX exporter to use operator set version 18"),
    (UserWarning, r".*The model version conversion is not supported"),
)
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def export_model(
    model: nn.Module,
    example_input: torch.Tensor,
    *,
    opset: int = 20,
    input_name: str = "input",
    output_name: str = "logits",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Export a network in eval mode; its modules' own modes are restored.

    Args:
        model: takes one float tensor and returns one.
        example_input: (batch, channels, height, width); the batch stays dynamic, the rest is fixed.
        opset: of the default ONNX domain; at least 18.
        input_name: of the graph.
        output_name: of the graph.
        metadata: stored in the file, beside nothing else of the exporter's.

    Returns:
        The lowered model, weights embedded, nodes named `<module path>/<OpType>`, accepted by the ONNX
        checker and by ONNX Runtime.

    Raises:
        ExportError: torch can't export the network, or gave another opset than asked for.
        InvalidFileError: the checker or ONNX Runtime refuses the result.
    """
    if opset < MINIMUM_OPSET:
        raise ExportError(f"opset {opset} can't be exported; the lowest is {MINIMUM_OPSET}")
    # An example batch of one would be taken for a constant.
    example = torch.cat([example_input] * 2) if len(example_input) == 1 else example_input
    with evaluating(model), _quiet():
        exported = _run_exporter(model, example, opset, input_name, output_name)
    found = onnx_file.opset_of(exported)
    if found != opset:
        raise ExportError(f"asked for opset {opset}, but the exporter wrote opset {found}")
    tidy = _tidied(lowering.lower(exported), metadata or {})
    data = tidy.SerializeToString()
    onnx_file.check_model(data)
    onnx_file.open_session(data)
    return tidy


def _run_exporter(
    model: nn.Module, example: torch.Tensor, opset: int, input_name: str, output_name: str
) -> onnx.ModelProto:
    try:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            optimize=True,
            opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
            input_names=[input_name],
            output_names=[output_name],
            verbose=False,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch can't export {type(model).__name__}: {first_line}") from error
    if program is None:
        raise ExportError(f"torch's exporter returned nothing for {type(model).__name__}")
    exported = program.model_proto
    if len(exported.graph.output) != 1:
        raise ExportError(f"{type(model).__name__} returns {len(exported.graph.output)} tensors, not one")
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category, message in _CHATTER:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _tidied(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Name the nodes after their modules and drop the exporter's notes, which outweigh a small network."""
    graph = model.graph
    used: Counter[str] = Counter()
    for node in graph.node:
        name = "/".join(filter(None, (_module_path(node), node.op_type)))
        node.name = name if not used[name] else f"{name}_{used[name]}"
        used[name] += 1
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for entry in (graph, *graph.input, *graph.output, *graph.initializer):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = PRODUCER
    for field in ("metadata_props", "doc_string", "producer_version"):
        model.ClearField(field)
    model.producer_name = PRODUCER
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model


def _module_path(node: onnx.NodeProto) -> str:
    # A batch norm folded into a convolution leaves its own scope on the result: the weight knows better.
    if len(node.input) > 1 and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight")
    scopes = next((item.value for item in node.metadata_props if item.key == _SCOPES), "[]")
    path = ast.literal_eval(scopes)
    return str(path[-2]) if len(path) > 1 else ""
