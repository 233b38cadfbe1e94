"""A model's costs on a device, measured and counted, in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.counters.energy import energy_counter, energy_per_run_mj, gpu_index, is_gpu
from latency_models.counters.footprint import Footprint, footprint_of, smallest_model
from latency_models.counters.nvml import memory_growth_bytes, read_gpu
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import TORCH
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.graph import graph_cost
from latency_models.graph.memory import peak_bytes
from latency_models.graph.model_file import model_label, parse
from latency_models.graph.shapes import Shapes, infer
from latency_models.graph.static_costs import layout_block
from latency_models.runners.runner import OnnxRuntimeRunner, Runner
from latency_models.timing.meter import Latency, LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from latency_models.devices.device import Device

_PROFILE_HALF_WIDTH = 0.005
_PROFILE_RUNS = 1000


@dataclass(frozen=True)
class Profile:
    """A model's costs on a device; a cost that can't be had is `Unavailable` with its reason.

    Attributes:
        peak_memory_bytes: the largest sum of activations at one time, without weights.
        size_bytes: of the file and its external data.
        energy_mj: of one inference, above idle.
        gpu_memory_bytes: the growth of a GPU's memory.
        footprint: a fresh process's memory; None where it wasn't asked for.
    """

    model: str
    device: Device
    latency: Latency
    peak_memory_bytes: int | Unavailable
    size_bytes: int
    macs: int | Unavailable
    params: int | Unavailable
    energy_mj: float | Unavailable
    gpu_memory_bytes: int | Unavailable
    footprint: Footprint | Unavailable | None = None

    def as_dict(self) -> dict[str, object]:
        """The record for JSON: null and `<field>_unavailable` in place of a cost that can't be had."""
        document: dict[str, object] = {"model": self.model, "device": self.device.as_dict()}
        document.update(self.latency.as_dict())
        costs: dict[str, float | Unavailable] = {
            "peak_memory_bytes": self.peak_memory_bytes,
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "params": self.params,
            "energy_mj": self.energy_mj,
            "gpu_memory_bytes": self.gpu_memory_bytes,
        }
        if isinstance(self.footprint, Footprint):
            costs["footprint_bytes"] = self.footprint.bytes
            costs["footprint_model_bytes"] = self.footprint.model_bytes
        elif self.footprint is not None:
            costs["footprint_bytes"] = costs["footprint_model_bytes"] = self.footprint
        for name, cost in costs.items():
            document[name] = None if isinstance(cost, Unavailable) else cost
            if isinstance(cost, Unavailable):
                document[f"{name}_unavailable"] = cost.reason
        return document


def profile(
    model: Path | bytes,
    device: Device,
    *,
    budget_s: float = 2.0,
    meter: LatencyMeter | None = None,
    latency: Latency | None = None,
    footprint: bool = False,
) -> Profile:
    """Measure and count `model`'s costs on `device`, within about `budget_s`; energy takes some seconds more.

    `meter` is a meter of the same device, if the caller has one: its references are loaded already. `latency` is the
    model's, if it was measured before. `footprint` starts fresh processes, about half a second each.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run.
    """
    label = model_label(model)
    proto = parse(model)
    shapes = _shapes(proto, device.batch_size, label)
    if latency is None:
        meter = meter if meter is not None else LatencyMeter(device)
        latency = meter.measure(model, budget_s=budget_s, target_half_width=_PROFILE_HALF_WIDTH, min_runs=_PROFILE_RUNS)
    own_bytes = len(model) if isinstance(model, bytes) else model.stat().st_size
    return Profile(
        model=label,
        device=device,
        latency=latency,
        peak_memory_bytes=_of(shapes, lambda known: peak_bytes(known, layout_block(device))),
        size_bytes=own_bytes + graph_cost.external_bytes(proto),
        macs=_of(shapes, graph_cost.macs),
        params=_of(shapes, lambda known: graph_cost.params(proto, known)),
        energy_mj=energy_of(model, device),
        gpu_memory_bytes=gpu_memory_of(model, device),
        footprint=footprint_of(model, device) if footprint else None,
    )


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
    """The energy of one inference in mJ above idle, from the device's counter over loops of seconds."""
    counter = energy_counter(device)
    if isinstance(counter, Unavailable):
        return counter
    with runner_for(model, device) as runner:
        return energy_per_run_mj(runner.run, counter)


def gpu_memory_of(model: Path | bytes, device: Device) -> int | Unavailable:
    """The growth of the GPU's memory in bytes when `model` is loaded and run."""
    if not is_gpu(device):
        return Unavailable(f"device {device.name!r} is no NVIDIA GPU of this machine")
    # The runtime's own libraries and context, which every model needs, are on the GPU before the first reading.
    with runner_for(smallest_model(), replace(device, batch_size=1)):
        return memory_growth_bytes(lambda: runner_for(model, device), read=lambda: read_gpu(gpu_index(device)))


def runner_for(model: Path | bytes, device: Device) -> Runner:
    """The runner that fits a device, with the model loaded."""
    if device.runtime == TORCH:
        from latency_models.runners.torch_runner import TorchRunner

        return TorchRunner(model, device)
    return OnnxRuntimeRunner(model, device)
