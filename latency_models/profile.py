"""All that a model costs on a device, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latency_models import graph_cost
from latency_models.energy import Unavailable, energy_counter, energy_per_run_mj
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.memory import peak_bytes
from latency_models.runner import OnnxRuntimeRunner, check_readable, model_label
from latency_models.shapes import Shapes, infer, one_line
from latency_models.timing import Latency, LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from latency_models.device import Device

_PROFILE_HALF_WIDTH = 0.005
_PROFILE_RUNS = 1000


@dataclass(frozen=True)
class StaticCosts:
    """The exact costs that need no clock, for one inference of a whole batch."""

    macs: int
    params: int
    size_bytes: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Profile:
    """A model's costs on a device; what can't be had is `Unavailable` with its reason.

    `peak_memory_bytes` is the most that activations take at one time, weights not counted; `size_bytes` the
    file's and its external data's; `energy_mj` one inference's.
    """

    model: str
    device: Device
    latency: Latency
    peak_memory_bytes: int | Unavailable
    size_bytes: int
    macs: int | Unavailable
    params: int | Unavailable
    energy_mj: float | Unavailable

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON takes them: null and `<field>_unavailable` in place of what can't be had."""
        document: dict[str, object] = {"model": self.model, "device": self.device.as_dict()}
        document.update(self.latency.as_dict())
        costs = {
            "peak_memory_bytes": self.peak_memory_bytes,
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "params": self.params,
            "energy_mj": self.energy_mj,
        }
        for name, cost in costs.items():
            document[name] = None if isinstance(cost, Unavailable) else cost
            if isinstance(cost, Unavailable):
                document[f"{name}_unavailable"] = cost.reason
        return document


def static_costs(model: bytes, batch_size: int = 1) -> StaticCosts:
    """The costs of a serialised model that need no clock: for a limit that can be checked before any timing.

    Raises:
        InvalidModelError: no ONNX model, an open dimension beside the batch, or a batch fixed at another
            size.
        UnknownShapeError: a shape that a cost hangs on can't be inferred.
    """
    proto = parse(model)
    shapes = infer(proto, batch_size)
    return StaticCosts(
        macs=graph_cost.macs(shapes),
        params=graph_cost.params(proto, shapes),
        size_bytes=len(model) + graph_cost.external_bytes(proto),
        peak_memory_bytes=peak_bytes(shapes),
    )


def profile(
    model: Path | bytes, device: Device, *, budget_s: float = 2.0, meter: LatencyMeter | None = None
) -> Profile:
    """Measure and count `model`'s costs on `device`, within about `budget_s`.

    `meter` is one for the same device, where the caller has it: its references are loaded already.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run.
    """
    label = model_label(model)
    proto = parse(model)
    shapes = _shapes(proto, device.batch_size, label)
    meter = meter if meter is not None else LatencyMeter(device)
    latency = meter.measure(model, budget_s=budget_s, target_half_width=_PROFILE_HALF_WIDTH, min_runs=_PROFILE_RUNS)
    own_bytes = len(model) if isinstance(model, bytes) else model.stat().st_size
    return Profile(
        model=label,
        device=device,
        latency=latency,
        peak_memory_bytes=_of(shapes, peak_bytes),
        size_bytes=own_bytes + graph_cost.external_bytes(proto),
        macs=_of(shapes, graph_cost.macs),
        params=_of(shapes, lambda known: graph_cost.params(proto, known)),
        energy_mj=energy_of(model, device),
    )


def parse(model: Path | bytes) -> onnx.ModelProto:
    """The model without its external data.

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
    return proto


def _shapes(proto: onnx.ModelProto, batch_size: int, label: str) -> Shapes | Unavailable:
    try:
        return infer(proto, batch_size)
    except UnknownShapeError as error:
        return Unavailable(str(error))
    except InvalidModelError as error:
        raise InvalidModelError(label, error.reason) from error


def _of(shapes: Shapes | Unavailable, cost: Callable[[Shapes], int]) -> int | Unavailable:
    if isinstance(shapes, Unavailable):
        return shapes
    try:
        return cost(shapes)
    except UnknownShapeError as error:
        return Unavailable(str(error))


def energy_of(model: Path | bytes, device: Device) -> float | Unavailable:
    """Energy of one inference in mJ, from the device's counter over a loop of seconds."""
    if isinstance(counter := energy_counter(device), Unavailable):
        return counter
    with OnnxRuntimeRunner(model, device) as runner:
        return energy_per_run_mj(runner.run)
