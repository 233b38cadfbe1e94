"""Building a space's cost model on a device: what is timed, in which order, for how long."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.exporter.graph_builder import cost_graph
from latency_models.predictors.operator_model import Observation
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.activation_forms import forms_of
from pipeline.costs.costs import counted_as_run
from pipeline.costs.latency_predictor import BlockwisePredictor, FeaturePredictor, cost_model_for, relative_noise
from pipeline.costs.precision import quantizer_for
from pipeline.costs.predictor_file import CostModelError, check_writable, default_file, identity_of, read, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from latency_models.timing.meter import Latency
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import Architecture, Piece, SearchSpace
    from pipeline.trials.reporter import Reporter

BLOCK_SECONDS = {"fp32": 60.0, "int8": 180.0}
"""Time for the blocks; an INT8 one also has to be quantised."""
NETS = {BlockwisePredictor.kind: 5, FeaturePredictor.kind: 60}
"""Whole networks that are measured: beside blocks a few fix what whole ones have in common; without, they are all."""
_PROBE_S = 0.04
_NET_S = 0.6
_LOOKS = 3
_FEW_NETS = 10
_ENDS_EVERY = 20
_CHAIN_EVERY = 4
_LONGEST_CHAIN = 4
_NET_POOL = 256
_CHOICES_POOL = 2000


@dataclass(frozen=True)
class Calibration:
    """What came of it.

    Attributes:
        path: of the saved cost model.
        description: which model, from how many measurements.
        held_out: relative errors, each measurement predicted from all others: median, 90th percentile; None without
            probes.
        nets: of each whole network the measured time, and the one predicted before.
        probe_seconds: spent on blocks, building and loading them included; `net_seconds` on whole networks.
    """

    path: Path
    description: str
    held_out: tuple[float, float] | None
    nets: tuple[dict[str, float], ...]
    probe_seconds: float
    net_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "file": str(self.path),
            "model": self.description,
            "held_out_median_error": self.held_out and self.held_out[0],
            "held_out_p90_error": self.held_out and self.held_out[1],
            "nets": list(self.nets),
            "probe_seconds": self.probe_seconds,
            "net_seconds": self.net_seconds,
        }


class Calibrator:
    """Times pieces and networks of one space on one device.

    Args:
        config: its space, device and seed are used.
        data: gives the input's shape and the number of classes.
        space: of the config.
        reporter: told the progress.
    """

    def __init__(self, config: RunConfig, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
        self._config, self._data, self._space, self._reporter = config, data, space, reporter
        self._device = device_of(config.device)
        self._prepare = quantizer_for(self._device.precision)
        self._forms: dict[str, str] = {}
        self._random = random.Random(config.seed)  # noqa: S311 - a sample, no secret

    def run(self, *, seconds: float | None = None, nets: int | None = None, output: Path | None = None) -> Calibration:
        """Time blocks for `seconds`, then `nets` whole networks; save the model.

        Raises:
            CostError: the device can't time a network of this space.
            CostModelError: the file can't be written; that is found out first.
        """
        model = cost_model_for(self._space)
        with LatencyMeter(self._device) as meter, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            self._forms = forms_of(self._space, self._device, meter)
            identity, environment = identity_of(self._config, self._data), meter.environment()
            path = output or default_file(identity, self._device, environment)
            check_writable(path)
            probe_seconds = 0.0
            if isinstance(model, BlockwisePredictor):
                budget = seconds if seconds is not None else BLOCK_SECONDS[self._device.precision]
                began = time.monotonic()
                observations = self._timed_probes(meter, budget)
                probe_seconds = time.monotonic() - began
                model.observe_probes(observations)
            began = time.monotonic()
            found = self._timed_nets(meter, model, NETS[model.kind] if nets is None else nets)
            net_seconds = time.monotonic() - began
        save(path, model, identity, self._device, environment)
        errors = model.held_out() if isinstance(model, BlockwisePredictor) else None
        held_out = (
            None if errors is None else (float(np.median(np.abs(errors))), float(np.percentile(np.abs(errors), 90)))
        )
        return Calibration(path, model.description, held_out, found, probe_seconds, net_seconds)

    def _timed_probes(self, meter: LatencyMeter, budget_s: float) -> list[Observation]:
        end = time.monotonic() + budget_s
        found: list[Observation] = []
        for chain in self._chains():
            probe = self._space.probe(chain)
            graph, _ = cost_graph(probe.model, probe.input_shape, forms=self._forms)
            latency = meter.measure(self._prepare(graph.SerializeToString()), budget_s=_PROBE_S)
            found.append(Observation(probe.operators, latency.latency_ms, _noise(latency)))
            left = end - time.monotonic()
            self._reporter.progress(f"{len(found)} probes timed", 1.0 - max(left, 0.0) / budget_s)
            if left <= 0 and len(found) > 1:
                break
        return found

    def _chains(self) -> Iterator[tuple[Piece, ...]]:
        """Pieces to time: single blocks that weren't timed yet, now and then a chain of some, or the two ends."""
        seen: set[tuple[Piece, ...]] = set()
        repeats = 0
        for number in range(1 << 30):
            pieces = self._space.pieces(self._architecture())
            assert pieces is not None
            chain = self._chain(number, pieces)
            repeats = repeats + 1 if chain in seen else 0
            if chain not in seen or repeats > _NET_POOL:  # a small space: the same again is better than nothing
                seen.add(chain)
                yield chain

    def _chain(self, number: int, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        if number % _ENDS_EVERY == 0 or len(pieces) < 3:
            return pieces[:2] if number // _ENDS_EVERY % 2 else pieces[-2:]
        blocks = pieces[1:-1]
        length = self._random.randint(2, _LONGEST_CHAIN) if number % _CHAIN_EVERY == 0 else 1
        at = self._random.randrange(max(len(blocks) - length, 0) + 1)
        return blocks[at : at + length]

    def _timed_nets(
        self, meter: LatencyMeter, model: BlockwisePredictor | FeaturePredictor | Any, count: int
    ) -> tuple[dict[str, float], ...]:
        """Few networks are looked at in turn, again and again: memory that neighbours crowd comes and goes."""
        nets = [
            (architecture, *self._graph_and_costs(architecture)) for architecture in self._informative(model, count)
        ]
        looks = _LOOKS if count <= _FEW_NETS else 1
        latencies: list[list[Latency]] = [[] for _ in nets]
        for look in range(looks):
            for number, (_, content, _) in enumerate(nets):
                latencies[number].append(meter.measure(content, budget_s=_NET_S, target_half_width=0.004))
                share = (look * count + number + 1) / (looks * count)
                self._reporter.progress(f"{count} whole networks timed {looks} times", share)
        found = []
        for (architecture, _, costs), own in zip(nets, latencies, strict=True):
            ms, noise = _together(own)
            before = model.predict(architecture, costs)
            found.append(
                {"latency_ms": ms} if before is None else {"latency_ms": ms, "predicted_ms": before.latency_ms}
            )
            model.observe(architecture, costs, ms, noise)
        return tuple(found)

    def _graph_and_costs(self, architecture: Architecture) -> tuple[bytes, dict[str, float]]:
        network = self._space.build(architecture)
        graph, _ = cost_graph(network, self._data.input_shape, forms=self._forms)
        source = graph.SerializeToString()
        content = self._prepare(source)
        return content, counted_as_run(source, content, self._device)

    def _informative(self, model: Any, count: int) -> list[Architecture]:
        """Architectures that spread evenly over the predicted times; without a prediction, over the choices."""
        if isinstance(model, FeaturePredictor):
            pool = [self._architecture() for _ in range(_CHOICES_POOL)]
            return model.representative_subset(pool, count, seed=self._config.seed)
        pool = [self._architecture() for _ in range(max(_NET_POOL, count))]
        order = np.argsort([model.predict(each, {}).latency_ms for each in pool])
        return [pool[order[int((n + 0.5) / count * len(pool))]] for n in range(count)]

    def _architecture(self) -> Architecture:
        return self._space.at(self._random.randrange(self._space.size()))


def ensure_cost_model(config: RunConfig, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
    """Calibrate unless there is a cost model of this space on this device in the place where searches look for it."""
    device, identity = device_of(config.device), identity_of(config, data)
    with LatencyMeter(device) as meter:
        environment = meter.environment()
    try:
        read(default_file(identity, device, environment), space, identity, device, environment)
    except CostModelError as error:
        reporter.stage(f"Building a cost model ({error})")
        result = Calibrator(config, data, space, reporter).run()
        reporter.note(f"{result.description}: {result.path}")


def _together(looks: list[Latency]) -> tuple[float, float]:
    """The mean of several looks at a network, in ms, and its relative standard deviation."""
    logs = np.log([look.latency_ms for look in looks])
    own = sum(_noise(look) ** 2 for look in looks) / len(looks)
    between = float(logs.var(ddof=1)) if len(looks) > 1 else 0.0
    return math.exp(float(logs.mean())), math.sqrt((own + between) / len(looks))


def _noise(latency: Latency) -> float:
    return relative_noise(latency.low_ms, latency.latency_ms, latency.high_ms)
