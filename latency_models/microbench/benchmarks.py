"""Micro-benchmarks: short chains of operators as they occur in networks, of random sizes, and their timing.

Each family draws one graph from a random generator. Chains are long enough for the call itself to be a small part of
their time; each link has weights of its own, so that they are read from as far away as in a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.kernels.operators import operators_of
from latency_models.kernels.optimised_graph import optimised_graph
from latency_models.microbench import convolutions, number_types, others, sequences, transformers, whole_networks
from latency_models.predictors.operator_model import Observation
from latency_models.timing.meter import LatencyMeter
from latency_models.timing.statistics import NORMAL_95

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from latency_models.devices.device import Device


Family = Callable[[np.random.Generator], bytes]

FAMILIES: tuple[tuple[Family, int], ...] = (
    (convolutions.convolutions, 80),
    (convolutions.pointwise, 65),
    (convolutions.separable, 60),
    (convolutions.first, 30),
    (convolutions.few_channels, 28),
    (convolutions.excitation, 25),
    (convolutions.activations, 45),
    (others.elementwise, 44),
    (convolutions.residual, 25),
    (convolutions.branches, 25),
    (convolutions.dense, 15),
    (convolutions.affine, 15),
    (convolutions.shuffled, 20),
    (convolutions.grouped, 40),
    (convolutions.open_convolutions, 45),
    (others.heads, 15),
    (others.layouts, 15),
    (transformers.vectors, 40),
    (transformers.rows, 40),
    (transformers.batched, 25),
    (transformers.attention, 40),
    (transformers.windows, 25),
    (transformers.normalised, 20),
    (sequences.recurrent, 44),
    (sequences.unrolled, 10),
    (sequences.texts, 25),
    (sequences.signals, 20),
    (number_types.doubles, 28),
    (number_types.halves, 15),
    (number_types.whole_numbers, 25),
    (number_types.eight_bit_products, 25),
    (number_types.bookkeeping, 8),
    (whole_networks.image_networks, 40),
    (whole_networks.token_networks, 12),
    (others.pools, 30),
    (others.powers, 8),
    (others.others, 33),
    (others.resized, 32),
    (others.transposed, 24),
    (others.rarer, 40),
    (convolutions.eight_bits, 40),
    (convolutions.heavy, 32),
    (others.tiny, 40),
)
"""Each family with the number of graphs to draw from it."""

WHOLE: frozenset[Family] = frozenset({whole_networks.image_networks, whole_networks.token_networks})
"""Families of whole networks: what these take beyond the sum of their parts is learnt from them."""

SEED = 1
_BUDGET_S = 0.05
_LEAST_NOISE = 0.005
_INTERVAL_SDS = 2 * NORMAL_95


@dataclass(frozen=True)
class MicroBenchmark:
    """One network to time; `whole` says that it is a whole one, no part."""

    model: bytes
    whole: bool


def benchmarks(families: Sequence[tuple[Family, int]] = FAMILIES, seed: int = SEED) -> Iterator[MicroBenchmark]:
    """Draw the networks, the same for a seed; families alternate, so that each is spread over the time of the run."""
    turns = [((at + 0.5) / count, family, at) for family, count in families for at in range(count)]
    for _, family, at in sorted(turns, key=lambda turn: (turn[0], turn[1].__name__)):
        yield MicroBenchmark(family(np.random.default_rng([seed, at])), family in WHOLE)


def observe(
    device: Device,
    progress: Callable[[int, int], None] = lambda done, of: None,
    *,
    families: Sequence[tuple[Family, int]] = FAMILIES,
    meter: LatencyMeter | None = None,
) -> list[Observation]:
    """Time all networks on `device`, about a tenth of a second each.

    Args:
        device: of any kind that `optimised_graph` knows.
        progress: called with the number of networks that are done, and of all.
        families: with their numbers of networks.
        meter: the meter to time with; by default one of its own.

    Raises:
        DeviceError, TimerError: the device can't be used, or was lost during the run.
    """
    count = sum(number for _, number in families)
    found = []
    own = meter if meter is not None else LatencyMeter(device)
    try:
        for done, each in enumerate(benchmarks(families)):
            progress(done, count)
            operators = tuple(operators_of(optimised_graph(each.model, device)))
            latency = own.measure(each.model, budget_s=_BUDGET_S)
            noise = (latency.high_ms - latency.low_ms) / _INTERVAL_SDS / latency.latency_ms
            found.append(Observation(operators, latency.latency_ms, max(_LEAST_NOISE, noise), each.whole))
        progress(count, count)
    finally:
        if meter is None:
            own.close()
    return found
