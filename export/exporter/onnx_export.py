"""The final ONNX file of a trained network, through torch's exporter, lowered and checked."""

from __future__ import annotations

import ast
import inspect
import io
import logging
import re
import warnings
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
import torch.onnx
from torch import nn

from export import agreement, onnx_file
from export.errors import ExportError
from export.exporter import average_pools
from export.exporter.fidelity import infidelity
from export.graph_writer import BATCH, INPUT, OUTPUT, PRODUCER
from export.lowering import lower as lowering
from export.module_state import evaluating
from export.runtime_forms import with_exact_forms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

MINIMUM_OPSET = 18  # torch's dynamo exporter silently raises a lower request to this
# Whether torch's exporter optimises, and whether its graph is lowered: the first way whose file is right is taken.
# The exporter's optimiser drops numbers up to 1e-8, and equal forms are equal to some digits: log(relu(x) + 1e-9) may
# become log(relu(x)).
_WAYS = ((True, True), (False, True), (False, False))
_SCOPES = "pkg.torch.onnx.name_scopes"
_FOLDED_BIAS = ".weight_bias"  # what the exporter calls the bias that a batch norm leaves in its convolution
_MADE_UP = re.compile(r"val_\d+")  # what it calls numbers that are no parameters
# Warnings about the exporter itself, not about the user's network.
_CHATTER = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (UserWarning, r".*Setting ONNX exporter to use operator set version 18"),
    (UserWarning, r".*The model version conversion is not supported"),
)
_TALKERS = ("torch", "onnxscript", "onnx_ir")


def export_model(
    model: nn.Module,
    example_input: torch.Tensor,
    *,
    opset: int = 20,
    metadata: Mapping[str, str] | None = None,
    forms: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Export a network in eval mode; its modules' own modes are restored.

    Args:
        model: any module that takes one tensor and returns one.
        example_input: (batch, …), an image's batch being (batch, channels, height, width); the batch stays dynamic,
            the rest is fixed.
        opset: of the default ONNX domain; at least 18.
        metadata: stored in the file; the exporter's own notes are dropped.
        forms: activation family → form to prefer, as `export.lowering.lower.lower` takes it.

    Returns:
        The lowered model, weights embedded, accepted by the ONNX checker and by ONNX Runtime. Nodes are named
        `<module path>/<OpType>`, the values between them `<node>_output`, stored numbers after their parameters.

    Raises:
        TypeError: the network is no `nn.Module`, or the opset is no number.
        ExportError: the network doesn't run on the example, has another form than one tensor in and one out, torch
            can't export it, torch gave another opset than asked for, or the file computes something else than the
            network on zeros, negative, large, normal or the given values.
        InvalidFileError: the checker or ONNX Runtime refuses the result.
    """
    _check_types(model, opset)
    if opset < MINIMUM_OPSET:
        raise ExportError(f"opset {opset} can't be exported; the lowest is {MINIMUM_OPSET}")
    example = _checked_example(example_input)
    with evaluating(model), quiet():
        _try_out(model, example)
    wrong = None
    probes = agreement.probes(example.detach().cpu().numpy())
    for optimize, lowered in _WAYS:
        with evaluating(model), quiet():
            exported = run_exporter(model, example, opset, _dynamic_batch(model), optimize=optimize)
        cheapest = lowering.lower(exported, forms) if lowered else exported
        tidy = _tidied(with_exact_forms(cheapest), metadata or {})
        onnx_file.check_model(tidy.SerializeToString())
        tidy, _ = agreement.kept_apart(tidy, probes)
        onnx_file.open_session(tidy.SerializeToString())
        wrong = infidelity(model, tidy, probes)
        if wrong is None:
            return tidy
    raise ExportError(f"torch's exporter writes {type(model).__name__} as something else: {wrong}")


def run_exporter(
    model: nn.Module, example: torch.Tensor, opset: int, dynamic_shapes: tuple[Any, ...], *, optimize: bool = True
) -> onnx.ModelProto:
    """Run torch's exporter on a network in eval mode, and return its file as it is; see `quiet`.

    Args:
        model: takes one tensor.
        example: its input; sizes of 1 would be taken for constants.
        opset: of the default ONNX domain.
        dynamic_shapes: as `torch.onnx.export` takes them.
        optimize: whether batch norms and constants are folded.

    Raises:
        ExportError: torch can't export it, wrote several outputs, or wrote another opset than asked for.
    """
    name = type(model).__name__
    try:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            optimize=optimize,
            opset_version=opset,
            dynamic_shapes=dynamic_shapes,
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table=average_pools.translations(),
            verbose=False,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExportError(f"torch can't export {name}: {_first_line(error)}") from error
    if program is None:
        raise ExportError(f"torch's exporter returned nothing for {name}")
    exported = program.model_proto
    if len(exported.graph.output) != 1:
        raise ExportError(f"{name} returns {len(exported.graph.output)} tensors, not one")
    found = onnx_file.opset_of(exported)
    if found != opset:
        raise ExportError(f"asked for opset {opset}, but the exporter wrote opset {found}")
    return exported


def _check_types(model: object, opset: object) -> None:
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}: make one of it" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"export_model takes a torch.nn.Module, not {what}")
    if not isinstance(opset, int):
        raise TypeError(f"the opset must be a whole number, not {opset!r}")


def _checked_example(example: object) -> torch.Tensor:
    if not isinstance(example, torch.Tensor) or not example.ndim or not len(example):
        found = f"shape {tuple(example.shape)}" if isinstance(example, torch.Tensor) else type(example).__name__
        raise ExportError(f"the example input must be one tensor (batch, …), not {found}")
    # A batch of one would be taken for a constant.
    return torch.cat([example] * 2) if len(example) == 1 else example


def _try_out(model: nn.Module, example: torch.Tensor) -> None:
    """Run the network once, because torch's own errors are clearer than the exporter's."""
    name, shape = type(model).__name__, tuple(example.shape)
    try:
        with torch.no_grad():
            found = model(example)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ExportError(f"{name} can't be run on an input of shape {shape}: {_first_line(error)}") from error
    if isinstance(found, tuple | list | dict):
        raise ExportError(f"{name} returns a {type(found).__name__} of {len(found)} tensors, not one tensor")
    if not isinstance(found, torch.Tensor):
        raise ExportError(f"{name} returns a {type(found).__name__}, not one tensor")
    if found.shape[:1] != example.shape[:1]:
        given = f"shape {tuple(found.shape)} for a batch of {len(example)}"
        raise ExportError(f"{name} returns {given}: its first dimension isn't the batch")


def _dynamic_batch(model: nn.Module) -> tuple[Any, ...]:
    """The dynamic batch, nested as the exporter wants it for `forward(x)` and for `forward(*inputs)`."""
    shapes = ({0: torch.export.Dim(BATCH, min=1)},)
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    return (shapes,) if kinds[:1] == [inspect.Parameter.VAR_POSITIONAL] else shapes


def _first_line(error: BaseException) -> str:
    """The first line of the first cause, which the exporter's own errors wrap in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporter: its loggers, its warnings about itself, and what it prints."""
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKERS]
    loggers = [logging.getLogger(name) for name in {*_TALKERS, *known}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        printed = io.StringIO()  # graphs that it can't trace
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
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
    _name_values(graph)
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


def _name_values(graph: onnx.GraphProto) -> None:
    """Name values after the node that makes them, constants after the node that reads them, folded biases `bias`."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    stored = {tensor.name for tensor in graph.initializer}
    names: dict[str, str] = {}
    for node in graph.node:
        made = [value for value in node.output if value and value not in fixed]
        names |= {
            value: f"{node.name}_output" if len(node.output) == 1 else f"{node.name}_output_{index}"
            for index, value in enumerate(made)
        }
        made_up = [value for value in node.input if value in stored and _MADE_UP.fullmatch(value)]
        names |= {value: f"{node.name}_constant_{index}" for index, value in enumerate(made_up) if value not in names}
    for tensor in graph.initializer:
        better = names.get(tensor.name, tensor.name.replace(_FOLDED_BIAS, ".bias"))
        if better != tensor.name and better not in stored:
            names[tensor.name], tensor.name = better, better
    for part in onnx_file.all_graphs(graph):  # nested graphs see the values around them
        for node in part.node:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]


def _module_path(node: onnx.NodeProto) -> str:
    # A batch norm folded into a convolution leaves its own scope on the result: the weight knows better.
    if len(node.input) > 1 and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight")
    scopes = next((item.value for item in node.metadata_props if item.key == _SCOPES), "[]")
    path = ast.literal_eval(scopes)
    return str(path[-2]) if len(path) > 1 else ""
