"""What operators cost on a device, from small networks that are timed once: the data of the cost model of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.kernel_operators import operators_of
from latency_models.micro_families import FAMILIES
from latency_models.operator_model import Observation
from latency_models.optimised_graph import optimised_graph
from latency_models.timing import LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from latency_models.device import Device
    from latency_models.micro_families import Family

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
