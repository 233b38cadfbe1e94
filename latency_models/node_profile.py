"""The time of a model, kernel by kernel, and summed by module, activation and operator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.graph.external_data import parse_whole
from latency_models.graph.model_file import model_label
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs, model_inputs
from latency_models.nodes.attribution import Attribution, Origin
from latency_models.nodes.runtime_profile import KernelCall, RuntimeProfile, call_us, profile_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from latency_models.devices.device import Device
    from latency_models.nodes.attribution import Recogniser

_NOWHERE = "(unknown)"
_NO_ACTIVATION = "(none)"


@dataclass(frozen=True)
class NodeTime:
    """The time of one kernel of an inference.

    Attributes:
        node: its main node in the file, or the kernel's own name if its origin is unknown.
        op_type: the kernel's operator.
        covers: the operators of the file's nodes that it computes.
        module: a dotted path, "(unknown)" if its origin is unknown.
        activation: "relu" for a kernel of its own, "Conv + relu" for one fused into a convolution, "" for none.
        share: of the whole call.
        ms: `share` of the latency.
    """

    node: str
    op_type: str
    covers: tuple[str, ...]
    module: str
    activation: str
    share: float
    ms: float


@dataclass(frozen=True)
class Group:
    """The time of several kernels together; `share` is of the whole call."""

    name: str
    share: float
    ms: float
    kernels: int


@dataclass(frozen=True)
class NodeProfile:
    """The distribution of the time of one inference.

    Attributes:
        latency_ms: the end-to-end latency; shares are of this.
        nodes: kernels in running order.
        by_module: all modules and their parents in the order of the tree, the slowest first.
        by_activation: the slowest first.
        by_op: by the kernels' operators, the slowest first.
        attributed: the share of the kernels' time with a known origin in the file.
        overhead_ms: the time outside the kernels: feeding inputs, fetching outputs, the call itself.
        profiler_us: the profiler's own time, taken off each kernel.
        runs: number of profiled inferences.
    """

    latency_ms: float
    nodes: tuple[NodeTime, ...]
    by_module: tuple[Group, ...]
    by_activation: tuple[Group, ...]
    by_op: tuple[Group, ...]
    attributed: float
    overhead_ms: float
    profiler_us: float
    runs: int

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON takes them."""
        return asdict(self)


def node_profile(
    model: bytes | Path,
    device: Device,
    *,
    recognise: Recogniser,
    given: GivenInputs = NOTHING_GIVEN,
    latency_ms: float | None = None,
    budget_s: float = 1.0,
) -> NodeProfile:
    """Profile `model` kernel by kernel for about `budget_s`.

    ONNX Runtime's profiler counts whole microseconds and lengthens each kernel, the shortest the most. A kernel's time
    here is the mean of the middle half of its calls. All kernels together can't take more than an undisturbed call
    less the time of calling: the excess is taken off them in equal parts, at most the time of the shortest. The rest is
    scaled to the undisturbed call, and this to `latency_ms`.

    Args:
        model: an ONNX file, or its bytes.
        device: ONNX Runtime on this machine.
        recognise: names the activations in the file.
        given: sizes and values of the model's inputs; the rest is made up.
        latency_ms: a careful measurement; by default the median of the calls here.
        budget_s: of the runs, without loading.

    Raises:
        DeviceError: the device isn't ONNX Runtime on this machine.
        InvalidModelError: no loadable model, or one that can't be run.
    """
    inputs = model_inputs(parse_whole(model), model_label(model), device.batch_size, given)
    profiled = profile_runs(model, device, inputs=inputs.fed(), budget_s=budget_s)
    call = float(np.median(profiled.plain_us))
    calling = min(call_us(device), 0.9 * call)
    kernel_us, profiler_us = _kernel_us(profiled, call - calling)
    latency = latency_ms if latency_ms is not None else call / 1e3
    origins = _origins(profiled, recognise)
    nodes = tuple(
        _node_time(kernel, origin, float(us / call), latency)
        for kernel, origin, us in zip(profiled.runs[0], origins, kernel_us, strict=True)
    )
    total = sum(node.share for node in nodes)
    found = sum(node.share for node, origin in zip(nodes, origins, strict=True) if origin is not None)
    return NodeProfile(
        latency_ms=latency,
        nodes=nodes,
        by_module=_tree(nodes),
        by_activation=_grouped(nodes, lambda node: node.activation or _NO_ACTIVATION),
        by_op=_grouped(nodes, lambda node: node.op_type),
        attributed=found / total if total else 0.0,
        overhead_ms=latency * (1.0 - total),
        profiler_us=profiler_us,
        runs=len(profiled.runs),
    )


def _kernel_us(profiled: RuntimeProfile, expected: float) -> tuple[np.ndarray, float]:
    """Times of the kernels in µs, with the sum `expected`, and the profiler's own time taken off each."""
    times = np.sort([[kernel.duration_us for kernel in run] for run in profiled.runs], axis=0).astype(float)
    middle = times[len(times) // 4 : max(len(times) // 4 + 1, len(times) - len(times) // 4)].mean(axis=0)
    if not len(middle):  # a file that only hands out what is stored or given runs no kernel
        return middle, 0.0
    excess = float(np.clip((middle.sum() - expected) / len(middle), 0.0, middle.min()))
    net = middle - excess
    return net * (expected / net.sum()) if net.sum() > 0 else np.full_like(net, expected / len(net)), excess


def _origins(profiled: RuntimeProfile, recognise: Recogniser) -> Sequence[Origin | None]:
    """The origin of each kernel of a run."""
    nodes, kernels = profiled.optimized.graph.node, profiled.runs[0]
    origins = Attribution(profiled.file, profiled.optimized, recognise).origins
    same = len(nodes) == len(kernels) and all(
        node.op_type == kernel.op_type and node.name in {"", kernel.name}
        for node, kernel in zip(nodes, kernels, strict=False)
    )
    if same:
        return origins
    by_name = {node.name: origin for node, origin in zip(nodes, origins, strict=True) if node.name}
    return [by_name.get(kernel.name) for kernel in kernels]


def _node_time(kernel: KernelCall, origin: Origin | None, share: float, latency_ms: float) -> NodeTime:
    return NodeTime(
        node=kernel.name if origin is None else origin.node,
        op_type=kernel.op_type,
        covers=() if origin is None else origin.op_types,
        module=_NOWHERE if origin is None else origin.module,
        activation="" if origin is None else origin.activation,
        share=share,
        ms=share * latency_ms,
    )


def _grouped(nodes: Iterable[NodeTime], key: Callable[[NodeTime], str]) -> tuple[Group, ...]:
    members: dict[str, list[NodeTime]] = defaultdict(list)
    for node in nodes:
        members[key(node)].append(node)
    groups = [_group(name, found) for name, found in members.items()]
    return tuple(sorted(groups, key=lambda group: -group.share))


def _group(name: str, nodes: Sequence[NodeTime]) -> Group:
    return Group(name, sum(node.share for node in nodes), sum(node.ms for node in nodes), len(nodes))


def _tree(nodes: Iterable[NodeTime]) -> tuple[Group, ...]:
    """Every module and its parents; children follow their parent, the slowest first."""
    members: dict[str, list[NodeTime]] = defaultdict(list)
    for node in nodes:
        path = ""
        for part in node.module.split("."):
            path = f"{path}.{part}" if path else part
            members[path].append(node)
    groups = {name: _group(name, found) for name, found in members.items()}

    def rank(name: str) -> tuple[tuple[float, str], ...]:
        parts = name.split(".")
        paths = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        return tuple((-groups[path].share, path) for path in paths)

    return tuple(groups[name] for name in sorted(groups, key=rank))
