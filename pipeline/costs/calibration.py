"""Calibration: time blocks and whole networks of a space on a device, and save the latency predictor they teach."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latency_models.channel_blocks import BUDGET_S
from latency_models.predictors.operator_model import Observation
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.latency_predictor import BlockwisePredictor, FeaturePredictor, predictor_for, relative_noise
from pipeline.costs.predictor_file import CostModelError, Scope, check_writable, read, save
from pipeline.costs.target import Target
from pipeline.costs.width_step import timed_blocks, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from latency_models.timing.meter import Latency
    from pipeline.config.run import RunConfig
    from pipeline.costs.width_step import BlocksRecord
    from pipeline.data import DataSet
    from pipeline.spaces.base import Architecture, Block, SearchSpace
    from pipeline.trials.reporter import Reporter

BLOCK_SECONDS = {"fp32": 60.0, "int8": 180.0}
"""Seconds for the blocks of a device's precision; an INT8 one also has to be quantised."""
NETS = {BlockwisePredictor.kind: 5, FeaturePredictor.kind: 60}
"""Whole networks that are measured: beside blocks a few show what whole ones have in common; without, they are all."""
NET_SECONDS = 0.6
"""For each whole network and repetition."""
_LEAST_BLOCK_SECONDS = 0.5
_PROBE_S = 0.04
_REPETITIONS = 3
_FEW_NETS = 10
_ENDS_EVERY = 20
_CHAIN_EVERY = 4
_LONGEST_CHAIN = 4
_NET_POOL = 256
_CHOICES_POOL = 2000


@dataclass(frozen=True)
class Calibration:
    """Outcome of a calibration.

    Attributes:
        path: of the saved predictor.
        description: kind of the predictor and number of its measurements.
        held_out: median and 90th percentile of the relative errors, each probe predicted from all others; None without
            probes.
        nets: of each whole network the measured time, and the one predicted before.
        probe_seconds: spent on blocks, building and loading them included; `net_seconds` on whole networks.
        channel_blocks: of the device, with the space's widths that are no multiples of them; `text` says it in words.
    """

    path: Path
    description: str
    held_out: tuple[float, float] | None
    nets: tuple[dict[str, float], ...]
    probe_seconds: float
    net_seconds: float
    channel_blocks: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return {
            "file": str(self.path),
            "model": self.description,
            "held_out_median_error": self.held_out and self.held_out[0],
            "held_out_p90_error": self.held_out and self.held_out[1],
            "nets": list(self.nets),
            "probe_seconds": self.probe_seconds,
            "net_seconds": self.net_seconds,
            "channel_blocks": self.channel_blocks,
        }


class Calibrator:
    """Times blocks and networks of one space on one device.

    Args:
        config: its space, device and seed are used.
        data: gives the input's shape and the number of classes.
        space: of the config.
        reporter: hears the progress.
    """

    def __init__(self, config: RunConfig, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
        self._config, self._data, self._space, self._reporter = config, data, space, reporter
        self._random = random.Random(config.seed)  # noqa: S311 - a sample, no secret

    def run(
        self,
        *,
        seconds: float | None = None,
        nets: int | None = None,
        output: Path | None = None,
        channel_blocks: BlocksRecord | None = None,
    ) -> Calibration:
        """Time blocks for `seconds`, then `nets` whole networks; save the predictor.

        The device's blocks of channels are timed first, unless the caller has them.

        Raises:
            CostError: the device can't time a network of this space.
            CostModelError: the file can't be written; that is found out first.
        """
        model = predictor_for(self._space)
        with LatencyMeter(device_of(self._config.device)) as meter, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            target = Target.of(self._space, meter)
            scope = Scope.of(self._config, self._data, meter)
            path = output or scope.file
            check_writable(path)
            budget = seconds if seconds is not None else BLOCK_SECONDS[target.device.precision]
            if channel_blocks is None:
                channel_blocks = timed_blocks(meter, _share_of(budget))
            channel_blocks = channel_blocks.beside(self._space)
            probe_seconds = 0.0
            if isinstance(model, BlockwisePredictor):
                began = time.monotonic()
                observations = self._timed_probes(target, budget)
                probe_seconds = time.monotonic() - began
                model.observe_probes(observations)
            began = time.monotonic()
            timed = self._timed_nets(target, model, NETS[model.kind] if nets is None else nets)
            net_seconds = time.monotonic() - began
        save(path, model, scope, channel_blocks.as_dict())
        errors = model.held_out() if isinstance(model, BlockwisePredictor) else None
        held_out = (
            None if errors is None else (float(np.median(np.abs(errors))), float(np.percentile(np.abs(errors), 90)))
        )
        return Calibration(
            path,
            model.description,
            held_out,
            timed,
            probe_seconds,
            net_seconds,
            {**channel_blocks.as_dict(), "text": words(channel_blocks, self._config)},
        )

    def _timed_probes(self, target: Target, budget_s: float) -> list[Observation]:
        end = time.monotonic() + budget_s
        timed: list[Observation] = []
        for blocks in self._chains():
            chain = self._space.chain(blocks)
            graph = target.graph_of(chain.model, chain.input_shape)
            latency = target.meter.measure(graph.content, budget_s=_PROBE_S)
            timed.append(Observation(chain.operators, latency.latency_ms, _noise(latency)))
            left = end - time.monotonic()
            self._reporter.progress(f"{len(timed)} probes timed", 1.0 - max(left, 0.0) / budget_s)
            if left <= 0 and len(timed) > 1:
                break
        return timed

    def _chains(self) -> Iterator[tuple[Block, ...]]:
        """Chains to time: single blocks that weren't timed yet, now and then a chain of some, or the two ends."""
        seen: set[tuple[Block, ...]] = set()
        repeats = 0
        for number in range(1 << 30):
            blocks = self._space.blocks(self._architecture())
            assert blocks is not None
            chain = self._chain(number, blocks)
            repeats = repeats + 1 if chain in seen else 0
            if chain not in seen or repeats > _NET_POOL:  # a small space: the same again is better than nothing
                seen.add(chain)
                yield chain

    def _chain(self, number: int, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        if number % _ENDS_EVERY == 0 or len(blocks) < 3:
            return blocks[:2] if number // _ENDS_EVERY % 2 else blocks[-2:]
        inner = blocks[1:-1]
        length = self._random.randint(2, _LONGEST_CHAIN) if number % _CHAIN_EVERY == 0 else 1
        at = self._random.randrange(max(len(inner) - length, 0) + 1)
        return inner[at : at + length]

    def _timed_nets(
        self, target: Target, model: BlockwisePredictor | FeaturePredictor | Any, count: int
    ) -> tuple[dict[str, float], ...]:
        """Measure whole networks; a few take turns in several repetitions, since load on the memory comes and goes."""
        architectures = self._informative(model, count)
        graphs = [target.graph_of(self._space.build(each), self._data.input_shape) for each in architectures]
        repetitions = _REPETITIONS if count <= _FEW_NETS else 1
        latencies: list[list[Latency]] = [[] for _ in graphs]
        for repetition in range(repetitions):
            for number, graph in enumerate(graphs):
                latency = target.meter.measure(graph.content, budget_s=NET_SECONDS, target_half_width=0.004)
                latencies[number].append(latency)
                share = (repetition * count + number + 1) / (repetitions * count)
                self._reporter.progress(f"{count} whole networks timed {repetitions} times", share)
        rows = []
        for architecture, graph, own in zip(architectures, graphs, latencies, strict=True):
            costs, (ms, noise) = target.counted(graph), _pooled(own)
            before = model.predict(architecture, costs)
            rows.append({"latency_ms": ms} if before is None else {"latency_ms": ms, "predicted_ms": before.latency_ms})
            model.observe(architecture, costs, ms, noise)
        return tuple(rows)

    def _informative(self, model: Any, count: int) -> list[Architecture]:
        """Architectures that spread evenly over the predicted times or, without a prediction, over the choices."""
        if isinstance(model, FeaturePredictor):
            pool = [self._architecture() for _ in range(_CHOICES_POOL)]
            return model.representative_subset(pool, count, seed=self._config.seed)
        pool = [self._architecture() for _ in range(max(_NET_POOL, count))]
        order = np.argsort([model.predict(each, {}).latency_ms for each in pool])
        return [pool[order[int((n + 0.5) / count * len(pool))]] for n in range(count)]

    def _architecture(self) -> Architecture:
        return self._space.at(self._random.randrange(self._space.size()))


def _share_of(seconds: float) -> float:
    """The time for the blocks of channels, less where there is little for the space's own blocks."""
    return min(BUDGET_S, max(_LEAST_BLOCK_SECONDS, seconds / 10.0))


def ensure_cost_model(
    config: RunConfig,
    data: DataSet,
    space: SearchSpace,
    reporter: Reporter,
    channel_blocks: BlocksRecord | None = None,
) -> None:
    """Calibrate, unless a predictor of this space on this device lies where searches look for it."""
    scope = Scope.today(config, data)
    try:
        read(scope.file, space, scope)
    except CostModelError as error:
        reporter.stage(f"Building a cost model ({error})")
        result = Calibrator(config, data, space, reporter).run(channel_blocks=channel_blocks)
        reporter.note(f"{result.description}: {result.path}")
        if channel_blocks is None:  # else it was said before
            reporter.note(result.channel_blocks["text"])


def _pooled(repetitions: list[Latency]) -> tuple[float, float]:
    """The geometric mean of a network's latencies, in ms, and its relative standard deviation."""
    logs = np.log([each.latency_ms for each in repetitions])
    own = sum(_noise(each) ** 2 for each in repetitions) / len(repetitions)
    between = float(logs.var(ddof=1)) if len(repetitions) > 1 else 0.0
    return math.exp(float(logs.mean())), math.sqrt((own + between) / len(repetitions))


def _noise(latency: Latency) -> float:
    return relative_noise(latency.low_ms, latency.latency_ms, latency.high_ms)
