"""A model's costs on a device, measured and counted, in one record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.counters.energy import energy_counter, energy_per_run_mj, gpu_index, is_gpu
from latency_models.counters.footprint import Footprint, footprint_of, smallest_model
from latency_models.counters.nvml import memory_growth_bytes, read_gpu
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import TORCH
from latency_models.errors import InvalidModelError, UnknownShapeError
from latency_models.graph.element_types import precision_of
from latency_models.graph.external_data import external_bytes, external_files, parse_whole
from latency_models.graph.macs import macs
from latency_models.graph.model_file import model_label
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs, model_inputs
from latency_models.graph.observed_shapes import observe
from latency_models.graph.weights import params
from latency_models.runners.runner import OnnxRuntimeRunner, Runner
from latency_models.timing.meter import Latency, LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import onnx

    from latency_models.devices.device import Device
    from latency_models.graph.shapes import Shapes

PEAK_SOURCE = "ONNX Runtime's counter"
_PROFILE_HALF_WIDTH = 0.005
_PROFILE_RUNS = 1000


@dataclass(frozen=True)
class Profile:
    """A model's costs on a device; a cost that can't be had is `Unavailable` with its reason.

    Attributes:
        precision: that the file computes in, as its types say: int8, fp32, fp16, bf16 or fp64.
        peak_memory_bytes: the largest sum of activations at one time, without weights, by the runtime's own counter.
        size_bytes: of the file and its external data.
        macs: for these inputs, with the sizes that the runtime computed.
        energy_mj: of one inference, above idle.
        gpu_memory_bytes: the growth of a GPU's memory.
        shapes: input → the sizes that it was run with.
        notes: for the user, on assumed sizes.
        footprint: a fresh process's memory; None where it wasn't asked for.
    """

    model: str
    device: Device
    precision: str
    latency: Latency
    peak_memory_bytes: int | Unavailable
    size_bytes: int
    macs: int | Unavailable
    params: int | Unavailable
    energy_mj: float | Unavailable
    gpu_memory_bytes: int | Unavailable
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    footprint: Footprint | Unavailable | None = None

    def as_dict(self) -> dict[str, object]:
        """The record for JSON: null and `<field>_unavailable` in place of a cost that can't be had."""
        document: dict[str, object] = {
            "model": self.model,
            "device": self.device.as_dict(),
            "precision": self.precision,
            "shapes": {name: list(sizes) for name, sizes in self.shapes.items()},
        }
        document.update(self.latency.as_dict())
        document["warnings"] = [*self.notes, *self.latency.warnings]
        if not isinstance(self.peak_memory_bytes, Unavailable):
            document["peak_memory_source"] = PEAK_SOURCE
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
    given: GivenInputs = NOTHING_GIVEN,
    budget_s: float = 2.0,
    meter: LatencyMeter | None = None,
    latency: Latency | None = None,
    footprint: bool = False,
) -> Profile:
    """Measure and count `model`'s costs on `device`, within about `budget_s`; energy takes some seconds more.

    The model is also run on this machine's CPU, once for the sizes of its values and once for their memory.

    Args:
        model: a file, or its bytes.
        device: that it is measured on.
        given: sizes and values of its inputs; the rest is made up.
        budget_s: for the latency.
        meter: a meter of the same device, if the caller has one: its references are loaded already.
        latency: the model's with these inputs, if it was measured before.
        footprint: whether to start fresh processes for it, about half a second each.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run.
        InputError: what is given doesn't fit the model's inputs.
    """
    label = model_label(model)
    proto = parse_whole(model)
    inputs = model_inputs(proto, label, device.batch_size, given)
    device = replace(device, batch_size=inputs.batch_size)
    arrays, fed = inputs.arrays(), inputs.fed()
    if latency is None:
        meter = meter if meter is not None else LatencyMeter(device)
        try:
            latency = meter.measure(
                model, budget_s=budget_s, target_half_width=_PROFILE_HALF_WIDTH, min_runs=_PROFILE_RUNS, inputs=fed
            )
        except InvalidModelError as error:
            raise inputs.refused(error) from error
    shapes = _observed(model, proto, arrays, label)
    return Profile(
        model=label,
        device=device,
        precision=precision_of(proto),
        latency=latency,
        peak_memory_bytes=counted_peak_bytes(model, device, arrays),
        size_bytes=_size_bytes(model, proto),
        macs=_of(shapes, macs),
        params=_of(shapes, lambda known: params(proto, known.dims)),
        energy_mj=energy_of(model, device, fed),
        gpu_memory_bytes=gpu_memory_of(model, device, fed),
        shapes=inputs.shapes,
        notes=inputs.notes,
        footprint=footprint_of(model, device, fed) if footprint else None,
    )


def _size_bytes(model: Path | bytes, proto: onnx.ModelProto) -> int:
    """The model's file and, each once, those that its weights lie in."""
    if isinstance(model, bytes):
        return len(model) + external_bytes(proto)
    return model.stat().st_size + sum(file.stat().st_size for file in external_files(model, proto))


def _observed(
    model: Path | bytes, proto: onnx.ModelProto, feed: dict[str, np.ndarray], label: str
) -> Shapes | Unavailable:
    folder = None
    if not isinstance(model, bytes):
        folder = model.absolute().parent
    try:
        return observe(proto, feed, label=label, folder=folder)
    except InvalidModelError as error:
        return Unavailable(f"the sizes of its values can't be seen on this machine's CPU: {error.reason}")


def _of(shapes: Shapes | Unavailable, cost: Callable[[Shapes], int]) -> int | Unavailable:
    if isinstance(shapes, Unavailable):
        return shapes
    try:
        return cost(shapes)
    except UnknownShapeError as error:
        return Unavailable(str(error))


def energy_of(
    model: Path | bytes, device: Device, inputs: Mapping[str, np.ndarray] | None = None
) -> float | Unavailable:
    """The energy of one inference in mJ above idle, from the device's counter over loops of seconds."""
    counter = energy_counter(device)
    if isinstance(counter, Unavailable):
        return counter
    with runner_for(model, device, inputs) as runner:
        return energy_per_run_mj(runner.run, counter)


def gpu_memory_of(
    model: Path | bytes, device: Device, inputs: Mapping[str, np.ndarray] | None = None
) -> int | Unavailable:
    """The growth of the GPU's memory in bytes when `model` is loaded and run."""
    if not is_gpu(device):
        return Unavailable(f"device {device.name!r} is no NVIDIA GPU of this machine")
    # The runtime's own libraries and context, which every model needs, are on the GPU before the first reading.
    with runner_for(smallest_model(), replace(device, batch_size=1)):
        return memory_growth_bytes(lambda: runner_for(model, device, inputs), read=lambda: read_gpu(gpu_index(device)))


def runner_for(model: Path | bytes, device: Device, inputs: Mapping[str, np.ndarray] | None = None) -> Runner:
    """The runner that fits a device, with the model loaded."""
    if device.runtime == TORCH:
        from latency_models.runners.torch_runner import TorchRunner

        return TorchRunner(model, device, inputs)
    return OnnxRuntimeRunner(model, device, inputs)
