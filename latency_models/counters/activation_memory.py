"""Peak memory of the activations, as ONNX Runtime itself counts it while it runs a model."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from latency_models import timer
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import CPU_PROVIDER, ONNXRUNTIME
from latency_models.graph.attributes import names_read
from latency_models.graph.model_file import model_label, parse
from latency_models.graph.model_inputs import model_inputs
from latency_models.graph.saved_graph import save_optimised_graph
from latency_models.graph.shapes import CONTROL_FLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from latency_models.devices.device import Device

# Kernels whose result is their input's own memory, unless it is a result of the graph.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_IN_USE, _CHANGE = "mem_bytes_requested_in_use", "mem_requested_in_use_delta"


def counted_peak_bytes(
    model: Path | bytes, device: Device, feed: Mapping[str, np.ndarray] | None = None
) -> int | Unavailable:
    """The most bytes of activations at one time in a run on `device`, by ONNX Runtime's own counter.

    The counter is read at the end of each kernel of a session's first run, in which memory is asked for value by value.
    It leaves out what the caller holds: an input is added until its last use. Weights, and what a kernel takes for
    itself while it runs, aren't in the figure.

    Args:
        model: a file, or its bytes.
        device: must be ONNX Runtime's CPU provider on this machine; others don't count.
        feed: input arrays by name; by default they are made up at the device's batch size.

    Raises:
        InvalidModelError: no ONNX model, or one with open sizes and no `feed`.
    """
    if device.host is not None:
        return Unavailable(f"the device is on another host ({device.host}), where ONNX Runtime's counter isn't read")
    if device.runtime != ONNXRUNTIME or device.provider != CPU_PROVIDER:
        runtime = device.provider if device.runtime == ONNXRUNTIME else device.runtime
        return Unavailable(f"{runtime} doesn't count the memory of activations; only ONNX Runtime's CPU provider does")
    arrays = feed if feed is not None else model_inputs(parse(model), model_label(model), device.batch_size).arrays()
    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, *timer.runtime_errors())
    try:
        with tempfile.TemporaryDirectory(prefix="hwnas-memory-") as folder:
            readings, graph = _first_run(model, device, arrays, Path(folder))
    except refusals as error:
        return Unavailable(f"the model can't be run under ONNX Runtime's profiler: {timer.one_line(error)}")
    input_bytes = {name: array.nbytes for name, array in arrays.items()}
    if not readings:
        return sum(input_bytes.values())
    if any(reading.held is None for reading in readings):
        return Unavailable("this build of ONNX Runtime doesn't count the memory of activations")
    return _peak_bytes(readings, _last_uses(graph), input_bytes)


@dataclass(frozen=True)
class _Reading:
    """The counter at the end of a kernel, in bytes; `change` is what the kernel added.

    `place` is that of its node in the graph; a kernel inside a branch or a loop has its holder's.
    """

    place: int
    held: int | None
    change: int


def _peak_bytes(readings: Sequence[_Reading], last_uses: Mapping[str, int], input_bytes: Mapping[str, int]) -> int:
    """The largest sum of what the counter held and of the inputs that are still needed."""
    # A holder ends after its kernels, for which it may have made room before the first of them began.
    first = [reading for reading in readings if reading.place == readings[0].place][-1]
    before = (first.held or 0) - first.change
    return max(
        (reading.held or 0)
        - before
        + sum(size for name, size in input_bytes.items() if last_uses.get(name, -1) >= reading.place)
        for reading in readings
    )


def _last_uses(graph: onnx.GraphProto) -> dict[str, int]:
    """Value → the place of the last node that reads it, or a view of it; outputs are needed to the end."""
    last = {name: place for place, node in enumerate(graph.node) for name in names_read(node)}
    outputs = {info.name: len(graph.node) for info in graph.output}
    for node in reversed(graph.node):
        if node.op_type in _VIEWS and node.output[0] not in outputs:
            last[node.input[0]] = max(last[node.input[0]], last.get(node.output[0], 0))
    return last | outputs


def _first_run(
    model: Path | bytes, device: Device, feed: Mapping[str, np.ndarray], folder: Path
) -> tuple[tuple[_Reading, ...], onnx.GraphProto]:
    """Run a model once under the profiler; returns the counter's readings and the graph that ran.

    Raises:
        ValueError: the kernels that ran aren't those of the graph.
    """
    import onnxruntime

    options: Any = timer.session_options(device.threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    save_optimised_graph(options, folder / "graph.onnx")
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=[CPU_PROVIDER])
    session.run(None, dict(feed))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace"))
    graph = onnx.load_model(folder / "graph.onnx", load_external_data=False).graph
    return tuple(_readings(events, [node.op_type for node in graph.node])), graph


def _readings(events: Iterable[Mapping[str, Any]], op_types: Sequence[str]) -> Iterator[_Reading]:
    """Yield the readings in the order in which their kernels ended."""
    ran = [each for each in events if each.get("cat") == "Node" and str(each["name"]).endswith("_kernel_time")]
    ran.sort(key=lambda each: (int(each["ts"]), -int(each["dur"])))  # a branch's holder before its kernels
    places: list[int] = []
    ends = -1
    for event in ran:
        if int(event["ts"]) >= ends or not places:
            places.append(places[-1] + 1 if places else 0)
            if event["args"].get("op_name") in CONTROL_FLOW:
                ends = int(event["ts"]) + int(event["dur"])
        else:
            places.append(places[-1])
    outer = [event for event, place, earlier in zip(ran, places, [-1, *places], strict=False) if place != earlier]
    if [event["args"].get("op_name") for event in outer] != list(op_types):
        raise ValueError("the kernels that ran aren't those of the optimised graph")
    placed = sorted(zip(ran, places, strict=True), key=lambda pair: int(pair[0]["ts"]) + int(pair[0]["dur"]))
    for event, place in placed:
        counted = event["args"].get(_IN_USE)
        yield _Reading(place, None if counted is None else int(counted), int(event["args"].get(_CHANGE, 0)))
