"""The device that a run's networks are for, and the graphs that stand for them there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from export.exporter.graph_builder import cost_graph
from latency_models.counted_costs import static_costs
from pipeline.costs.activation_forms import forms_of
from pipeline.costs.metrics import counted
from pipeline.costs.precision import quantizer_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from latency_models.devices.device import Device
    from latency_models.timing.meter import LatencyMeter
    from pipeline.costs.precision import Quantizer
    from pipeline.spaces.base import SearchSpace


@dataclass(frozen=True)
class CostGraph:
    """A network as an ONNX model that costs what the trained network will cost.

    Attributes:
        source: the float model.
        content: what the device runs of it; `source` itself unless it is quantised.
        built_by: `builder` or `exporter`.
    """

    source: bytes
    content: bytes
    built_by: str


@dataclass(frozen=True)
class Target:
    """A device with what decides how a network runs there.

    Attributes:
        meter: of the device.
        forms: activation family → form to prefer, as `export.lowering.lower.lower` takes them.
    """

    meter: LatencyMeter
    forms: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, space: SearchSpace, meter: LatencyMeter) -> Target:
        """The device of a meter, with the fastest form of each activation that a space may choose.

        Raises:
            CostError: the device can't be used.
        """
        return cls(meter, forms_of(space, meter))

    @property
    def device(self) -> Device:
        """The device that the meter times on."""
        return self.meter.device

    @property
    def quantize(self) -> Quantizer:
        """The step from a float model to one of the device's precision, with made-up ranges."""
        return quantizer_for(self.device.precision)

    def graph_of(self, network: nn.Module, input_shape: tuple[int, int, int]) -> CostGraph:
        """The graph of an untrained network for inputs of (channels, height, width).

        Raises:
            ExportError: the network can't be exported.
        """
        model, built_by = cost_graph(network, input_shape, forms=self.forms)
        source = model.SerializeToString()
        return CostGraph(source, self.quantize(source), built_by)

    def counted(self, graph: CostGraph, needed: Iterable[str] = ()) -> dict[str, float]:
        """The metrics that need no clock; scales and zero points of a quantised graph are no parameters.

        Raises:
            CostError: one of the `needed` metrics can't be known.
        """
        costs = static_costs(graph.content, self.device)
        if graph.content is not graph.source:
            plain = static_costs(graph.source, self.device)
            costs = replace(costs, macs=plain.macs, params=plain.params)
        return counted(costs, needed)
