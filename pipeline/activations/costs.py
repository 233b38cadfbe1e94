"""The latency that the winner's activations cost: its graph against the same graph with relu in one place."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from export.activations import table as activations
from export.errors import ExportError
from export.exporter.graph_builder import quick_graph
from pipeline.activations.facts import EVERYWHERE, Costs, PlaceCost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from latency_models.timing.meter import Ratio
    from pipeline.costs.target import Target

BASELINE = "relu"
_SECONDS_EACH = 1.5
_MOST_SECONDS = 15.0
_MOST_PLACES = 16


def activation_costs(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    chosen: Mapping[str, str],
    places: Mapping[str, str],
    target: Target,
) -> Costs:
    """Time the network and its twins, each with relu in one place, in one rotation within about 15 s.

    Args:
        network: trained, on the CPU; left as it was.
        input_shape: one input's (channels, height, width).
        chosen: place → activation.
        places: path of an activation module → place.
        target: of the run.

    Raises:
        ExportError: the network's own graph can't be built.
        CostError: the device can't be used.
    """
    if not chosen:
        return Costs(None, (), missing="the space has no choice of activations")
    twins: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for place, paths in _to_time(chosen, places).items():
        try:
            twins[place] = _twin(network, paths, input_shape, target)
        except ExportError as error:
            missing[place] = f"its twin with relu can't be built: {error}"
    if not twins:
        return Costs(None, tuple(_untimed(place, chosen, places, missing) for place in chosen))
    models = [_graph(network, input_shape, target), *twins.values()]
    together = target.meter.measure_together(models, budget_s=min(_MOST_SECONDS, _SECONDS_EACH * len(models)))
    base = together.latencies[0]
    ratios = dict(zip(twins, together.ratios[1:], strict=True))
    rows = [
        _timed(place, name, base.latency_ms, ratios[place])
        if place in ratios
        else _untimed(place, chosen, places, missing)
        for place, name in chosen.items()
    ]
    if EVERYWHERE in ratios:
        rows.append(_timed(EVERYWHERE, "all of these", base.latency_ms, ratios[EVERYWHERE]))
    return Costs(base.latency_ms, tuple(rows), warnings=base.warnings)


@contextmanager
def with_relu(network: nn.Module, paths: Sequence[str]) -> Iterator[nn.Module]:
    """Put relu in place of some modules, as long as the context lasts."""
    kept = {path: network.get_submodule(path) for path in paths}
    try:
        for path in paths:
            _put(network, path, activations.create(BASELINE, 1))
        yield network
    finally:
        for path, module in kept.items():
            _put(network, path, module)


def _to_time(chosen: Mapping[str, str], places: Mapping[str, str]) -> dict[str, list[str]]:
    """Map each place that is worth a twin to its modules; with several places also `everywhere` to all."""
    of_place = {
        place: [path for path, owner in places.items() if owner == place]
        for place, name in chosen.items()
        if name != BASELINE
    }
    with_modules = {place: paths for place, paths in of_place.items() if paths}
    everywhere = [path for paths in with_modules.values() for path in paths]
    kept = dict(list(with_modules.items())[:_MOST_PLACES])
    return {**kept, EVERYWHERE: everywhere} if len(with_modules) > 1 else kept


def _untimed(place: str, chosen: Mapping[str, str], places: Mapping[str, str], missing: Mapping[str, str]) -> PlaceCost:
    if chosen[place] == BASELINE:
        reason = "relu itself"
    elif place not in places.values():
        reason = "the space doesn't tell which modules it decides"
    else:
        reason = missing.get(place, f"only {_MOST_PLACES} places are timed")
    return PlaceCost(place, chosen[place], missing=reason)


def _timed(place: str, name: str, latency_ms: float, ratio: Ratio) -> PlaceCost:
    return PlaceCost(
        place,
        name,
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        cost_ms=latency_ms * (1.0 - ratio.ratio),
        cost_low_ms=latency_ms * (1.0 - ratio.high),
        cost_high_ms=latency_ms * (1.0 - ratio.low),
    )


def _twin(network: nn.Module, paths: Sequence[str], input_shape: tuple[int, int, int], target: Target) -> bytes:
    with with_relu(network, paths):
        return _graph(network, input_shape, target)


def _graph(network: nn.Module, input_shape: tuple[int, int, int], target: Target) -> bytes:
    return target.quantize(quick_graph(network, input_shape, forms=target.forms)[0].SerializeToString())


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
