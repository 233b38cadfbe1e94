"""All costs of a graph that need no clock, in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import CPU_PROVIDER
from latency_models.errors import UnknownShapeError
from latency_models.graph.external_data import external_bytes
from latency_models.graph.macs import macs
from latency_models.graph.memory import peak_bytes
from latency_models.graph.model_file import parse
from latency_models.graph.model_inputs import model_inputs
from latency_models.graph.observed_shapes import observe
from latency_models.graph.planned import is_inferable, is_planned
from latency_models.graph.runtime_graph import BLOCK
from latency_models.graph.shapes import Shapes, infer
from latency_models.graph.weights import params

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.devices.device import Device


@dataclass(frozen=True)
class StaticCosts:
    """Costs of one inference of a whole batch: multiply-accumulates, parameters, file size, peak memory.

    What can't be known is `Unavailable`, with the reason.
    """

    macs: int | Unavailable
    params: int
    size_bytes: int
    peak_memory_bytes: int | Unavailable


def static_costs(model: bytes, device: Device) -> StaticCosts:
    """Count the costs of a serialised model, so that limits can be checked before any timing.

    A graph of the operators that candidates are usually made of is counted without running it, in a millisecond or
    two. Any other is run on this machine's CPU with made-up inputs; a quantised candidate once, for its memory.

    Raises:
        InvalidModelError: no ONNX model, an open dimension beside the batch, a batch fixed at another size, or a
            model that can't be run.
    """
    proto = parse(model)
    size_bytes = len(model) + external_bytes(proto)
    if is_inferable(proto):
        feed = None
        shapes = infer(proto, device.batch_size)
    else:
        feed = model_inputs(proto, "model", device.batch_size).arrays()
        shapes = observe(proto, feed)
    if is_planned(proto):
        block = layout_block(device)
        peak = _known(lambda known: peak_bytes(known, block), shapes)
    else:
        peak = counted_peak_bytes(model, replace(device, host=None), feed)
    return StaticCosts(
        macs=_known(macs, shapes),
        params=params(proto, shapes.dims),
        size_bytes=size_bytes,
        peak_memory_bytes=peak,
    )


def layout_block(device: Device) -> int:
    """Channels of a block in the device's layout; only ONNX Runtime's CPU provider has blocks of more than 1."""
    return BLOCK if device.provider == CPU_PROVIDER else 1


def _known(cost: Callable[[Shapes], int], shapes: Shapes) -> int | Unavailable:
    try:
        return cost(shapes)
    except UnknownShapeError as error:
        return Unavailable(str(error))
