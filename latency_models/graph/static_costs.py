"""All costs of a graph that need no clock, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.devices.device import CPU_PROVIDER
from latency_models.graph import graph_cost
from latency_models.graph.memory import peak_bytes
from latency_models.graph.model_file import parse
from latency_models.graph.runtime_graph import BLOCK
from latency_models.graph.shapes import infer

if TYPE_CHECKING:
    from latency_models.devices.device import Device


@dataclass(frozen=True)
class StaticCosts:
    """Exact costs of one inference of a whole batch: multiply-accumulates, parameters, file size, peak memory."""

    macs: int
    params: int
    size_bytes: int
    peak_memory_bytes: int


def static_costs(model: bytes, device: Device) -> StaticCosts:
    """Count the costs of a serialised model, so that limits can be checked before any timing.

    Raises:
        InvalidModelError: no ONNX model, an open dimension beside the batch, or a batch fixed at another
            size.
        UnknownShapeError: a shape that a cost depends on can't be inferred.
    """
    proto = parse(model)
    shapes = infer(proto, device.batch_size)
    return StaticCosts(
        macs=graph_cost.macs(shapes),
        params=graph_cost.params(proto, shapes),
        size_bytes=len(model) + graph_cost.external_bytes(proto),
        peak_memory_bytes=peak_bytes(shapes, layout_block(device)),
    )


def layout_block(device: Device) -> int:
    """Channels of a block in the device's layout; only ONNX Runtime's CPU provider has blocks of more than 1."""
    return BLOCK if device.provider == CPU_PROVIDER else 1
