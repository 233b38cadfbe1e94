"""The quick graph of a single module without a rule: exported once, then written with each instance's own values.

Torch's exporter takes about a second for a module, whatever its size. Its graph before any optimisation has the
parameters under their own names, which makes it a template for all modules that differ in these values alone.
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
from onnx import numpy_helper
from torch import nn

from export import onnx_file
from export.errors import ExportError, UnsupportedModuleError
from export.exporter import onnx_export
from export.graph_writer import BATCH, INPUT, OUTPUT, Value

if TYPE_CHECKING:
    from collections.abc import Hashable

    from export.graph_writer import GraphWriter

_TOLERANCE = 1e-2  # tells another function from the runtime's rounding of the same one
_TEMPLATES = 256
_STATE_TYPES = (torch.float32, torch.int64, torch.int32, torch.bool)
_OWN = frozenset(vars(nn.Module()))  # what every module has: modes, hooks, the tables of its parts


@dataclass(frozen=True)
class _Key:
    """Everything that a template depends on except the input's sizes."""

    opset: int
    rank: int
    structure: Hashable
    state: tuple[tuple[str, str, tuple[int, ...]], ...]


_templates: dict[_Key, list[onnx.ModelProto]] = {}


def emit(writer: GraphWriter, module: nn.Module, x: Value) -> Value:
    """Write a module that keeps its input's shape and treats each image alone; a rule for quick graphs.

    The first module of its kind takes as long as an export, each further one milliseconds. Parameters and buffers
    are the instance's own; modules with other attributes are another kind. The graph's results are compared with
    torch's, once for each shape of input.

    Raises:
        UnsupportedModuleError: the exporter can't export it, its attributes can't be compared, or its graph can't be
            written into another.
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
    values: dict[str, Value | str] = {INPUT: x, "": ""}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        own = tensor.name in tensors
        values[tensor.name] = writer.initializer(tensor.name, array) if own else writer.constant(array)
    for node in graph.node:
        inputs = [values[name] for name in node.input]
        values[node.output[0]] = writer.node(node.op_type, *inputs, shape=x.shape, **onnx_file.attributes_of(node))
    return cast("Value", values[OUTPUT])


def _bound(key: _Key, module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The module's serialised graph for inputs of this shape, with its own values, optimised as an export is."""
    template = next((each for each in _templates.get(key, ()) if _fits(each, shape)), None)
    if template is None:
        template = _exported(module, shape, key.opset)
        while sum(map(len, _templates.values())) >= _TEMPLATES:
            del _templates[next(iter(_templates))]
        _templates.setdefault(key, []).append(template)
    bound = onnx_file.copied(template)
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
        if any(onnx_file.nested_graphs(node)) or len(node.output) != 1 or node.domain not in onnx_file.DEFAULT_DOMAINS:
            raise UnsupportedModuleError(
                "", f"{node.op_type} with several outputs, a graph within, or of {node.domain}"
            )
    if not model.graph.node and model.graph.output[0].name != INPUT:
        raise UnsupportedModuleError("", "a module that gives the same for every input")
    optimised: bytes = model.SerializeToString()
    return optimised


_checked: set[tuple[_Key, tuple[int, ...]]] = set()


def _check(key: _Key, shape: tuple[int, ...], module: nn.Module, data: bytes) -> None:
    """Compare the results of graph and module, once for each shape.

    Raises:
        UnsupportedModuleError: they differ, as where a module computes something else for other sizes.
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
    """Whether the template fits these sizes: the exporter left them open or fixed just these."""
    dims = template.graph.input[0].type.tensor_type.shape.dim[1:]
    named: dict[str, int] = {}
    return all(
        named.setdefault(dim.dim_param, size) == size if dim.dim_param else dim.dim_value == size
        for dim, size in zip(dims, shape, strict=True)
    )


def _exported(module: nn.Module, shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """The exporter's graph before any optimisation, with all sizes open but those that the module fixes."""
    open_sizes = {0: torch.export.Dim(BATCH, min=1)} | dict.fromkeys(range(1, len(shape) + 1), torch.export.Dim.AUTO)
    private = copy.deepcopy(module).cpu().eval()
    with onnx_export.quiet():
        model = onnx_export.run_exporter(private, torch.zeros(2, *shape), opset, (open_sizes,), optimize=False)
    for entry in (model.graph, *model.graph.node):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model


def _tensors(module: nn.Module) -> dict[str, Any]:
    """Parameters and buffers by their path, as arrays.

    Raises:
        UnsupportedModuleError: one has a type that no network trained in float32 has.
    """
    found: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for tensor in found.values():
        if tensor.dtype not in _STATE_TYPES:
            raise UnsupportedModuleError("", f"{type(module).__name__} with weights of {tensor.dtype}")
    return {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}


def _state_shapes(module: nn.Module) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, str(array.dtype), array.shape) for name, array in _tensors(module).items())


def _structure(module: nn.Module) -> Hashable:
    """Types and attributes of the module and its parts, which the exporter turns into constants."""
    return tuple(
        (path, type(part), tuple((name, _frozen(value)) for name, value in vars(part).items() if name not in _OWN))
        for path, part in module.named_modules()
    )


def _frozen(value: Any) -> Hashable:
    """A hashable stand-in for a value, equal where the values are.

    Raises:
        UnsupportedModuleError: values of this type can't be compared.
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
