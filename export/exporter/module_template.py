"""The quick graph of a single module that has no rule: exported once, then written with each instance's own values.

Torch's exporter takes about a second for a module, whatever its size. What it gives, before any optimisation, holds
the parameters as named inputs of the computation: a template for every module that differs in their values alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnxscript.optimizer
import torch
import torch.onnx
from onnx import helper, numpy_helper
from torch import nn

from export import onnx_file
from export.errors import ExportError, UnsupportedModuleError
from export.exporter import onnx_export
from export.graph_writer import BATCH, Value

if TYPE_CHECKING:
    from collections.abc import Hashable

    from export.graph_writer import GraphWriter

_INPUT, _OUTPUT = "x", "y"
_TOLERANCE = 1e-2  # tells another function from the runtime's rounding of the same one
_TEMPLATES = 256
_STATE_TYPES = (torch.float32, torch.int64, torch.int32, torch.bool)
_OWN = frozenset(vars(nn.Module()))  # what every module has: modes, hooks, the tables of its parts


@dataclass(frozen=True)
class _Key:
    """All that a template depends on but for the input's sizes."""

    opset: int
    rank: int
    structure: Hashable
    state: tuple[tuple[str, str, tuple[int, ...]], ...]


_templates: dict[_Key, list[onnx.ModelProto]] = {}


def emit(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write a module that keeps its input's shape and does the same to each image; a rule for quick graphs.

    The first module of its kind takes as long as an export, each further one milliseconds. Parameters and buffers
    are the instance's own; other attributes tell one kind from another. Whatever comes out is compared, once for
    each shape of input, with what torch computes.

    Raises:
        UnsupportedModuleError: the exporter can't export it, its attributes can't be told apart, or the graph is not
            one that can be written into another.
    """
    try:
        key = _Key(writer.opset, len(x.shape) + 1, _structure(module), _state_shapes(module))
        data = _bound(key, module, x.shape)
    except ExportError as error:
        if isinstance(error, UnsupportedModuleError):
            raise
        raise UnsupportedModuleError(writer.scope, f"{type(module).__name__}: {error}") from error
    graph = onnx.load_from_string(data).graph
    tensors = _tensors(module)
    values: dict[str, Value | str] = {_INPUT: x, "": ""}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        own = tensor.name in tensors
        values[tensor.name] = writer.initializer(tensor.name, array) if own else writer.constant(array)
    for node in graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        inputs = [values[name] for name in node.input]
        values[node.output[0]] = writer.node(node.op_type, *inputs, shape=x.shape, **attributes)
    return cast("Value", values[_OUTPUT])


def _bound(key: _Key, module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The module's graph for inputs of this shape with its own values in it, optimised as an export is."""
    template = next((each for each in _templates.get(key, ()) if _fits(each, shape)), None)
    if template is None:
        template = _exported(module, shape, key.opset)
        while sum(map(len, _templates.values())) >= _TEMPLATES:
            del _templates[next(iter(_templates))]
        _templates.setdefault(key, []).append(template)
    bound = onnx.ModelProto()
    bound.CopyFrom(template)
    tensors = _tensors(module)
    for initializer in bound.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(numpy_helper.from_array(tensors[initializer.name], initializer.name))
    for size, dimension in zip(shape, bound.graph.input[0].type.tensor_type.shape.dim[1:], strict=True):
        dimension.dim_value = size
    data = _optimised(bound.SerializeToString(deterministic=True))
    _check(key, shape, module, data)
    return data


@lru_cache(maxsize=1024)
def _optimised(data: bytes) -> bytes:
    model: onnx.ModelProto = onnxscript.optimizer.optimize(onnx.load_from_string(data))
    for node in model.graph.node:
        nested = any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute)
        if nested or len(node.output) != 1 or node.domain not in onnx_file.DEFAULT_DOMAINS:
            raise UnsupportedModuleError(
                "", f"{node.op_type} with several outputs, a graph within, or of {node.domain}"
            )
    if not model.graph.node and model.graph.output[0].name != _INPUT:
        raise UnsupportedModuleError("", "a module that gives the same for every input")
    optimised: bytes = model.SerializeToString()
    return optimised


_checked: set[tuple[_Key, tuple[int, ...]]] = set()


def _check(key: _Key, shape: tuple[int, ...], module: nn.Module, data: bytes) -> None:
    """Compare graph and module once for each shape.

    Raises:
        UnsupportedModuleError: they differ, as where a module does something else to other sizes.
    """
    if (key, shape) in _checked:
        return
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, generator=generator) * 2
    with torch.no_grad():
        wanted = copy.deepcopy(module).cpu()(x).numpy()
    found = onnx_file.run(onnx_file.open_session(data), x.numpy())
    if not np.allclose(found, wanted, atol=_TOLERANCE, rtol=_TOLERANCE, equal_nan=True):
        raise UnsupportedModuleError("", f"{type(module).__name__}, whose export computes something else")
    _checked.add((key, shape))


def _fits(template: onnx.ModelProto, shape: tuple[int, ...]) -> bool:
    """Whether the exporter left these sizes open, or took just them for granted."""
    dims = template.graph.input[0].type.tensor_type.shape.dim[1:]
    named: dict[str, int] = {}
    return all(
        named.setdefault(dim.dim_param, size) == size if dim.dim_param else dim.dim_value == size
        for dim, size in zip(dims, shape, strict=True)
    )


def _exported(module: nn.Module, shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """As the exporter gives it, unoptimised, with all sizes open but those that the module fixes."""
    open_sizes = {0: torch.export.Dim(BATCH, min=1)} | dict.fromkeys(range(1, len(shape) + 1), torch.export.Dim.AUTO)
    private = copy.deepcopy(module).cpu().eval()
    with onnx_export._quiet():
        try:
            program = torch.onnx.export(
                private,
                (torch.zeros(2, *shape),),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                dynamic_shapes=(open_sizes,),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                verbose=False,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ExportError(f"torch can't export it: {first_line}") from error
    if program is None or len(program.model_proto.graph.output) != 1:
        raise ExportError("torch's exporter gave nothing, or several outputs")
    model = program.model_proto
    if onnx_file.opset_of(model) != opset:
        raise ExportError(f"asked for opset {opset}, but the exporter wrote opset {onnx_file.opset_of(model)}")
    for entry in (model.graph, *model.graph.node):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model


def _tensors(module: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by their path, as arrays.

    Raises:
        UnsupportedModuleError: one has another type than those of a network that is trained in float32.
    """
    found: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for tensor in found.values():
        if tensor.dtype not in _STATE_TYPES:
            raise UnsupportedModuleError("", f"{type(module).__name__} with weights of {tensor.dtype}")
    return {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}


def _state_shapes(module: nn.Module) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, str(array.dtype), array.shape) for name, array in _tensors(module).items())


def _structure(module: nn.Module) -> Hashable:
    """Types and attributes of the module and its parts: what the exporter writes into the graph as constants."""
    return tuple(
        (path, type(part), tuple((name, _frozen(value)) for name, value in vars(part).items() if name not in _OWN))
        for path, part in module.named_modules()
    )


def _frozen(value: Any) -> Hashable:
    """Something hashable that differs where the value does.

    Raises:
        UnsupportedModuleError: no such thing is known.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return type(value), repr(value)
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, dict):
        return dict, tuple((_frozen(name), _frozen(each)) for name, each in value.items())
    if isinstance(value, torch.Tensor):
        return torch.Tensor, str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, type | torch.dtype) or (callable(value) and not isinstance(value, nn.Module)):
        return value  # by identity: a function that closes over something is one of its own
    raise UnsupportedModuleError("", f"a module with an attribute of type {type(value).__name__}")
