"""Families of micro-benchmarks: short chains of operators as they occur in networks, of random sizes.

Each family draws one graph from a random generator. Chains are so long that the call itself is a small part of their
time; each link has weights of its own, so that they come from as far away as they do in a network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from latency_models.kernels.operators import operators_of
from latency_models.kernels.optimised_graph import optimised_graph
from latency_models.microbench import convolutions as micro_convolutions
from latency_models.microbench import others as micro_others
from latency_models.predictors.operator_model import Observation
from latency_models.timing.meter import LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from latency_models.devices.device import Device


Family = Callable[[np.random.Generator], bytes]

FAMILIES: tuple[tuple[Family, int], ...] = (
    (micro_convolutions.convolutions, 80),
    (micro_convolutions.pointwise, 80),
    (micro_convolutions.separable, 70),
    (micro_convolutions.first, 30),
    (micro_convolutions.few_channels, 20),
    (micro_convolutions.excitation, 25),
    (micro_convolutions.activations, 50),
    (micro_others.elementwise, 60),
    (micro_convolutions.residual, 25),
    (micro_convolutions.branches, 25),
    (micro_convolutions.dense, 15),
    (micro_convolutions.affine, 15),
    (micro_convolutions.shuffled, 20),
    (micro_convolutions.grouped, 40),
    (micro_convolutions.open_convolutions, 45),
    (micro_others.heads, 15),
    (micro_others.layouts, 15),
    (micro_others.vectors, 25),
    (micro_others.matrices, 25),
    (micro_others.pools, 30),
    (micro_others.others, 45),
    (micro_convolutions.eight_bits, 40),
    (micro_convolutions.heavy, 20),
    (micro_others.tiny, 10),
)
"""Each family with the number of graphs that are drawn from it."""


SEED = 1
_BUDGET_S = 0.05
_LEAST_NOISE = 0.005
_INTERVAL_SDS = 2 * 1.96


def benchmarks(families: Sequence[tuple[Family, int]] = FAMILIES, seed: int = SEED) -> Iterator[bytes]:
    """The networks, the same for the same seed; families take turns, so that each is spread over the whole time."""
    turns = [((at + 0.5) / count, family, at) for family, count in families for at in range(count)]
    for _, family, at in sorted(turns, key=lambda turn: (turn[0], turn[1].__name__)):
        yield family(np.random.default_rng([seed, at]))


def observe(
    device: Device,
    progress: Callable[[int, int], None] = lambda done, of: None,
    *,
    families: Sequence[tuple[Family, int]] = FAMILIES,
    meter: LatencyMeter | None = None,
) -> list[Observation]:
    """Time all of them on `device`, about a tenth of a second each; `progress` hears of how many are done, of how many.

    Raises:
        DeviceError, TimerError: the device can't be used, or was lost on the way.
    """
    count = sum(number for _, number in families)
    found = []
    own = meter if meter is not None else LatencyMeter(device)
    try:
        for done, model in enumerate(benchmarks(families)):
            progress(done, count)
            operators = tuple(operators_of(optimised_graph(model, device)))
            latency = own.measure(model, budget_s=_BUDGET_S)
            noise = (latency.high_ms - latency.low_ms) / _INTERVAL_SDS / latency.latency_ms
            found.append(Observation(operators, latency.latency_ms, max(_LEAST_NOISE, noise)))
        progress(count, count)
    finally:
        if meter is None:
            own.close()
    return found
