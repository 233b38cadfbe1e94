"""Runs under ONNX Runtime's own profiler: the time of each kernel, and the graph that the runtime made of the file."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from latency_models import timer
from latency_models.devices.device import ONNXRUNTIME, Device
from latency_models.errors import DeviceError, InvalidModelError
from latency_models.graph.external_data import load_with_external_data
from latency_models.graph.model_file import check_readable, model_label, parse
from latency_models.graph.saved_graph import save_optimised_graph
from latency_models.runners.runner import providers, session, session_options, user_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

_LARGEST_CONSTANT = 1 << 16  # bytes of one that an activation may have
_KERNEL_TIME = "_kernel_time"
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_CALLS = 300
_MOST_RUNS = 1000


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel."""

    name: str
    op_type: str
    duration_us: int


@dataclass(frozen=True)
class RuntimeProfile:
    """Profiled runs, each a sequence of kernels, and undisturbed ones.

    Attributes:
        runs: the kernels of each run, in order; those inside a branch or a loop count to its node.
        plain_us: times of the calls of a session without the profiler, in alternation with `runs`.
        file: the model's file, without its large external data.
        optimized: the graph as it runs, without its large weights; its nodes are in the kernels' order.
    """

    runs: tuple[tuple[KernelCall, ...], ...]
    plain_us: tuple[float, ...]
    file: onnx.ModelProto
    optimized: onnx.ModelProto


def profile_runs(
    model: bytes | Path,
    device: Device,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    budget_s: float = 1.0,
) -> RuntimeProfile:
    """Run `model` under ONNX Runtime's profiler for about `budget_s`, at least twice.

    `inputs` are input arrays by name; without them inputs are made up. All files of the profiler lie in a temporary
    folder, which is removed.

    Raises:
        DeviceError: the device isn't ONNX Runtime on this machine.
        InvalidModelError: no loadable model, or one that can't be run.
    """
    if device.runtime != ONNXRUNTIME or device.host is not None:
        where = f"on {device.host}" if device.host is not None else f"with {device.runtime}"
        raise DeviceError(f"device {device.name!r} runs {where}; kernels can be told apart in ONNX Runtime here only")
    check_readable(model)
    with _refusals(model, device), tempfile.TemporaryDirectory(prefix="hwnas-profile-") as folder:
        plain = session(model, device, inputs)
        profiled = _profiled(model, device, Path(folder))
        plain_us = _alternate(plain, profiled, budget_s)
        traced = Path(profiled.end_profiling())
        with traced.open(encoding="utf-8") as file:
            runs = tuple(_runs(json.load(file)))
        optimized = onnx.load_model(Path(folder) / "optimized.onnx", load_external_data=False)
    return RuntimeProfile(
        runs=runs[2:],
        plain_us=plain_us,
        file=_read(model),
        optimized=optimized,
    )


def call_us(device: Device) -> float:
    """The time in µs of a session's call itself on `device`, measured with a trivial graph."""
    nothing = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"])],
            "nothing",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    call = session(nothing.SerializeToString(), device, None)
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter_ns()
        call.run()
        times.append((time.perf_counter_ns() - began) / 1e3)
    return statistics.median(times)


@contextlib.contextmanager
def _refusals(model: bytes | Path, device: Device) -> Iterator[None]:
    refusals: tuple[type[Exception], ...] = (ValueError, *timer.runtime_errors())
    try:
        yield
    except timer.RefusedError as refused:
        raise user_error(refused, model, device) from refused
    except refusals as error:
        reason = f"the model can't be run under the profiler: {timer.one_line(error)}"
        raise InvalidModelError(model_label(model), reason) from error


def _read(model: bytes | Path) -> onnx.ModelProto:
    """The file with the constants that an activation may have, wherever they are stored."""
    if isinstance(model, Path):
        # Data that isn't safe to read stays outside: nothing but the name of an activation hangs on it.
        with contextlib.suppress(InvalidModelError):
            return load_with_external_data(model, largest_tensor=_LARGEST_CONSTANT)[0]
    return parse(model)


def _profiled(model: bytes | Path, device: Device, folder: Path) -> Any:
    """A session under the profiler that also writes its graph to the folder."""
    import onnxruntime

    options: Any = session_options(device)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    save_optimised_graph(options, folder / "optimized.onnx")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=providers(device))


def _alternate(plain: timer.Session, profiled: Any, budget_s: float) -> tuple[float, ...]:
    """Run both in alternation until the time is up; returns the undisturbed times in µs, without the first two."""
    outputs = [output.name for output in profiled.get_outputs()]
    ends_at = time.perf_counter() + budget_s
    plain_us: list[float] = []
    while len(plain_us) < 3 or (time.perf_counter() < ends_at and len(plain_us) < _MOST_RUNS):
        profiled.run(outputs, plain.feed)
        plain.run()  # restores the caches after the profiler's own work
        began = time.perf_counter_ns()
        plain.run()
        plain_us.append((time.perf_counter_ns() - began) / 1e3)
    return tuple(plain_us[2:])


def _runs(events: list[dict[str, Any]]) -> Iterator[tuple[KernelCall, ...]]:
    """The kernels of each run, without those inside control flow."""
    pending: list[dict[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL_TIME):
            pending.append(event)
        elif event.get("name") == "model_run":
            yield tuple(_kernel(each) for each in _outermost(pending))
            pending = []


def _outermost(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    holders = [event for event in events if event["args"].get("op_name") in _CONTROL_FLOW]
    if not holders:
        return events
    spans = [(holder, holder["ts"], holder["ts"] + holder["dur"]) for holder in holders]
    kept = [
        event
        for event in events
        if not any(begin <= event["ts"] < end for holder, begin, end in spans if holder is not event)
    ]
    return sorted(kept, key=lambda event: int(event["ts"]))


def _kernel(event: dict[str, Any]) -> KernelCall:
    args = event["args"]
    return KernelCall(
        name=str(event["name"]).removesuffix(_KERNEL_TIME),
        op_type=str(args.get("op_name", "")),
        duration_us=int(event["dur"]),
    )
