"""A runner for ONNX models in torch, for a GPU that the installed ONNX Runtime can't use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, inliner, numpy_helper

from latency_models.errors import InvalidModelError
from latency_models.graph.model_file import check_readable, model_label
from latency_models.graph.shapes import batch_sizes, declared_shape, one_line, real_inputs
from latency_models.runners.runner import Runner
from latency_models.runners.torch_ops import OPERATORS, READ_ON_THE_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from latency_models.devices.device import Device
    from latency_models.runners.torch_ops import Operator

_SEED = 20240229
_CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")


class TorchRunner(Runner):
    """A model that torch runs operator by operator, without a compiler.

    `inputs` are input arrays by name; without them inputs are made up: floats in [0, 1) from a fixed seed, zeros for
    other types, the device's batch size for an open first dimension. An inference copies its inputs to the GPU and its
    results back, as ONNX Runtime's does; `device_ns` is the graph's time alone. Convolutions use TF32 where the GPU has
    it, which is torch's default and ONNX Runtime's.

    Raises:
        InvalidModelError: no loadable model, an operator that isn't in the table, or one that can't be run with
            these inputs.
    """

    def __init__(
        self,
        model: bytes | Path,
        device: Device,
        inputs: Mapping[str, np.ndarray] | None = None,
        *,
        torch_device: str = "cuda",
    ) -> None:
        self._label = model_label(model)
        self._where = torch.device(_with_index(torch_device, device))
        proto = _loaded(model, self._label)
        self._graph: TorchGraph | None = TorchGraph(proto, self._where, self._label)
        feed = dict(inputs) if inputs is not None else _made_up(proto, device.batch_size, self._label)
        self._on_gpu = self._where.type == "cuda"
        names = [info.name for info in real_inputs(proto.graph)]
        self._feed = {name: self._host_tensor(feed[name]) for name in names if name in feed}
        self._events: list[Any] = [_timing_event() for _ in range(2)] if self._on_gpu else []
        self._results: list[Tensor] = []
        self._check_first_run()

    @torch.inference_mode()
    def run(self) -> None:
        """Make one inference, from inputs in the host's memory to results there."""
        assert self._graph is not None
        feed = {name: value.to(self._where, non_blocking=True) for name, value in self._feed.items()}
        if self._on_gpu:
            self._events[0].record()
        results = self._graph(feed)
        if self._on_gpu:
            self._events[1].record()
        self._results = [result.cpu() for result in results]
        if self._on_gpu:
            self._events[1].synchronize()

    @property
    def device_ns(self) -> int | None:
        """Time of the last run on the GPU in ns, between CUDA events around the graph; None on a CPU."""
        return round(self._events[0].elapsed_time(self._events[1]) * 1e6) if self._on_gpu else None

    @property
    def results(self) -> tuple[np.ndarray, ...]:
        """The last run's outputs, in the model's order."""
        return tuple(result.numpy() for result in self._results)

    def close(self) -> None:
        self._graph = None
        self._feed, self._results = {}, []
        if self._on_gpu:
            torch.cuda.empty_cache()  # torch keeps the GPU's memory in reserve

    def _host_tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory() if self._on_gpu else tensor

    def _check_first_run(self) -> None:
        """Run once, since an operator may load and yet refuse its input."""
        try:
            self.run()
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise InvalidModelError(self._label, f"the model can't be run with torch: {one_line(error)}") from error


def _timing_event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _with_index(torch_device: str, device: Device) -> str:
    index = dict(device.provider_options).get("device_id")
    return torch_device if index is None or torch_device != "cuda" else f"cuda:{index}"


def _loaded(model: bytes | Path, label: str) -> onnx.ModelProto:
    check_readable(model)
    try:
        proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load_model(model)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise InvalidModelError(label, f"not a loadable ONNX model, or a truncated one: {one_line(error)}") from error
    if not proto.graph.output:
        raise InvalidModelError(label, "not a loadable ONNX model: it holds no graph with an output")
    return inliner.inline_local_functions(proto) if proto.functions else proto


def _made_up(proto: onnx.ModelProto, batch_size: int, label: str) -> dict[str, np.ndarray]:
    infos = real_inputs(proto.graph)
    shapes = batch_sizes({info.name: declared_shape(info) or [] for info in infos}, batch_size, label)
    rng = np.random.default_rng(_SEED)
    feed = {}
    for info in infos:
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        shape = shapes[info.name]
        feed[info.name] = rng.random(shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
    return feed


@dataclass(frozen=True)
class _Step:
    """A node as a function with the slots that it reads, writes and frees; inputs at `moved` are copied to the GPU."""

    function: Operator
    attributes: dict[str, Any]
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    moved: frozenset[int]
    freed: tuple[int, ...]


class TorchGraph:
    """A graph as a list of steps over numbered slots; values that depend on no input are computed once.

    Whole numbers (int64) are shapes and positions. They stay in the host's memory, where reading one doesn't wait for
    the GPU, and so do the results of steps that read nothing else.
    """

    def __init__(self, proto: onnx.ModelProto, where: torch.device, label: str) -> None:
        self._where, self._label = where, label
        self._slot_of: dict[str, int] = {}
        self._constants: dict[int, Tensor] = {}
        self._on_host: set[int] = set()
        self._read = {name for node in proto.graph.node for name in node.input if name}
        self._read.update(info.name for info in proto.graph.output)
        opset = next((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), 1)
        for tensor in proto.graph.initializer:
            self._keep(tensor.name, _tensor(tensor))
        self._inputs = {info.name: self._slot(info.name) for info in real_inputs(proto.graph)}
        steps = [step for node in proto.graph.node if (step := self._step(node, opset)) is not None]
        self._outputs = [self._slot(info.name) for info in proto.graph.output]
        self._steps = _freeing(steps, {*self._outputs, *self._constants})
        self._template = [self._constants.get(slot) for slot in range(len(self._slot_of))]

    def __call__(self, feed: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs for these inputs, in the graph's order."""
        values = list(self._template)
        for name, slot in self._inputs.items():
            values[slot] = feed[name]
        for step in self._steps:
            for slot, result in zip(step.outputs, self._run(step, values), strict=False):
                values[slot] = result
            for slot in step.freed:
                values[slot] = None
        return [value for slot in self._outputs if (value := values[slot]) is not None]

    def _run(self, step: _Step, values: list[Tensor | None]) -> tuple[Tensor, ...]:
        inputs: list[Any] = [None if slot is None else values[slot] for slot in step.inputs]
        for at in step.moved:
            inputs[at] = inputs[at].to(self._where)
        result = step.function(inputs, step.attributes)
        return result if isinstance(result, tuple) else (result,)

    def _slot(self, name: str) -> int:
        return self._slot_of.setdefault(name, len(self._slot_of))

    def _keep(self, name: str, value: Tensor) -> None:
        slot = self._slot(name)
        on_host = value.dtype == torch.int64
        self._constants[slot] = value if on_host else value.to(self._where)
        if on_host:
            self._on_host.add(slot)

    def _step(self, node: onnx.NodeProto, opset: int) -> _Step | None:
        """The step that runs a node; None for a node whose result is a constant."""
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant":
            self._keep(node.output[0], _constant(attributes, self._label))
            return None
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            domain = f"{node.domain}." if node.domain else ""
            raise InvalidModelError(self._label, f"torch's runner has no operator {domain}{node.op_type}")
        if node.op_type != "Split" and any(name in self._read for name in node.output[1:]):
            raise InvalidModelError(self._label, f"torch's runner gives {node.op_type} one output only")
        inputs = self._placed(node)
        step = _Step(
            OPERATORS[node.op_type],
            _in_torch(attributes, node, opset),
            inputs,
            tuple(self._slot(name) for name in node.output if name),
            frozenset() if node.op_type in READ_ON_THE_HOST else self._to_move(inputs),
            (),
        )
        if inputs and all(slot is None or slot in self._constants for slot in inputs):
            self._fold(node, step)
            return None
        if node.op_type == "Shape" or (not step.moved and all(slot in self._on_host for slot in inputs)):
            self._on_host.update(step.outputs)
        return step

    def _placed(self, node: onnx.NodeProto) -> tuple[int | None, ...]:
        """The slots of a node's inputs; constants are copied now to the device that needs them, not at every run."""
        slots = [self._slot(name) if name else None for name in node.input]
        if node.op_type in READ_ON_THE_HOST:
            wanted = {at: torch.device("cpu") for at in range(1, len(slots))}
        else:
            wanted = dict.fromkeys(self._to_move(tuple(slots)), self._where)
        for at, where in wanted.items():
            slot = slots[at]
            if slot in self._constants and self._constants[slot].device.type != where.type:
                slots[at] = self._copy(slot, where)
        return tuple(slots)

    def _copy(self, slot: int, where: torch.device) -> int:
        copy = self._slot(f"{slot} on {where}\0")  # no value's name
        self._constants[copy] = self._constants[slot].to(where)
        if where.type == "cpu":
            self._on_host.add(copy)
        return copy

    def _to_move(self, inputs: tuple[int | None, ...]) -> frozenset[int]:
        """The positions of inputs on the host that have to follow the others to the GPU."""
        if self._where.type == "cpu" or all(slot is None or slot in self._on_host for slot in inputs):
            return frozenset()
        return frozenset(at for at, slot in enumerate(inputs) if slot in self._on_host)

    def _fold(self, node: onnx.NodeProto, step: _Step) -> None:
        values = [self._constants.get(slot) for slot in range(len(self._slot_of))]
        try:
            with torch.inference_mode():
                results = self._run(step, values)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise InvalidModelError(
                self._label, f"{node.op_type} can't be run with torch: {one_line(error)}"
            ) from error
        for name, result in zip((name for name in node.output if name), results, strict=False):
            self._keep(name, result)


def _freeing(steps: list[_Step], kept: set[int]) -> list[_Step]:
    """The steps, each with the slots that no later step reads."""
    read_later: set[int] = set(kept)
    done = []
    for step in reversed(steps):
        here = {slot for slot in (*step.inputs, *step.outputs) if slot is not None}
        done.append(
            _Step(step.function, step.attributes, step.inputs, step.outputs, step.moved, tuple(here - read_later))
        )
        read_later |= here
    return done[::-1]


def _tensor(stored: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(stored).copy())


def _constant(attributes: Mapping[str, Any], label: str) -> Tensor:
    for name in _CONSTANTS:
        if name in attributes:
            value = attributes[name]
            if name == "value":
                return _tensor(value)
            return torch.tensor(value, dtype=torch.int64 if "int" in name else torch.float32)
    raise InvalidModelError(label, f"torch's runner reads no Constant of this kind: {', '.join(attributes)}")


def _in_torch(attributes: dict[str, Any], node: onnx.NodeProto, opset: int) -> dict[str, Any]:
    """The attributes in torch's types, for the functions of `OPERATORS`."""
    values = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    if node.op_type == "Cast":
        values["to"] = torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(int(attributes["to"])))).dtype
    if node.op_type == "ConstantOfShape" and "value" in attributes:
        values["value"] = _tensor(attributes["value"])
    return {**values, "opset": opset, "n_outputs": len(node.output)}
