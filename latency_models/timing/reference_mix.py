"""Mixes of reference models that a model is timed against: a weighted geometric mean of their times.

The weights are exponents that sum to 1. Two references of neighbouring sizes share by how near they are, so that a
model between the two doesn't flip from one to the other. A model that leaves the inner caches slows down where others
use the outer ones, and the small references don't: the memory probe takes as much of the mix as the model's working
set suggests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.errors import CostError
from latency_models.graph.memory import peak_bytes
from latency_models.graph.model_file import parse
from latency_models.graph.shapes import infer
from latency_models.timing.reference_models import MEMORY_PROBE, PROBE_WORKING_SET_BYTES, REFERENCES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from latency_models.timing.reference_store import ReferenceTime

# Working sets of up to this many second-level caches were seen to hardly feel a stream of memory beside them.
_INNER_CACHES = 1.75
_USUAL_L2_BYTES = 1 << 20
_LEAST_SHARE = 0.03
_LEAST_MEMORY_SHARE = 0.01
_MOST_SHARE = 0.9  # the part of the other references tells the clock's speed from the memory's
MEMORY_SHARE_ERROR = 0.4
"""The error of the probe's share, as it was seen (relative, 1 sd)."""


@dataclass(frozen=True)
class WeightedReference:
    """One reference of a mix: its name, its exponent, and its stored time in this environment."""

    name: str
    exponent: float
    time: ReferenceTime


@dataclass(frozen=True)
class ReferenceMix:
    """A weighted geometric mean of references, whose exponents sum to 1."""

    references: tuple[WeightedReference, ...]

    @property
    def name(self) -> str:
        """The reference's name, or each one's name and share where there are several."""
        if len(self.references) == 1:
            return self.references[0].name
        return ", ".join(f"{each.name} {each.exponent:.0%}" for each in self.references)

    @property
    def ms(self) -> float:
        """The mix's stored time, from those of its references."""
        return math.exp(sum(each.exponent * math.log(each.time.ms) for each in self.references))


def interpolate(ns: float, expected_ns: Callable[[str], float], *, both: bool) -> dict[str, float]:
    """The reference models whose times bracket `ns`, with interpolation weights that sum to 1.

    Without `both` it is only the nearest, with weight 1. `expected_ns` gives a reference's time by its name.
    """
    at = math.log(ns)
    logs = {spec.name: math.log(expected_ns(spec.name)) for spec in REFERENCES}
    nearest = min(logs, key=lambda name: abs(logs[name] - at))
    below = [name for name in logs if logs[name] <= at]
    above = [name for name in logs if logs[name] > at]
    if not both or not below or not above:
        return {nearest: 1.0}
    lower, upper = max(below, key=logs.__getitem__), min(above, key=logs.__getitem__)
    upper_share = (at - logs[lower]) / (logs[upper] - logs[lower])
    shares = {lower: 1.0 - upper_share, upper: upper_share}
    return shares if min(shares.values()) >= _LEAST_SHARE else {nearest: 1.0}


def memory_share(working_set_bytes: int, l2_cache_bytes: int | None) -> float:
    """The memory probe's share in the mix of a model, 0 to 0.9.

    It is 0 where the inner caches hold the working set, 0.9 where that is as large as the probe's, and linear between
    them: a rough fit to 25 nets that were timed beside another process that streams memory.
    """
    inner = _INNER_CACHES * (l2_cache_bytes or _USUAL_L2_BYTES)
    if working_set_bytes <= inner or inner >= PROBE_WORKING_SET_BYTES:
        return 0.0
    share = min(_MOST_SHARE, (working_set_bytes - inner) / (PROBE_WORKING_SET_BYTES - inner))
    return share if share >= _LEAST_MEMORY_SHARE else 0.0


def add_memory_probe(weights: dict[str, float], share: float) -> dict[str, float]:
    """The weights with the memory probe's `share` among them; those that become tiny are dropped."""
    if share == 0.0:
        return weights
    left = {name: weight * (1.0 - share) for name, weight in weights.items()}
    kept = {name: value for name, value in left.items() if value >= _LEAST_SHARE}
    return {
        **{name: value * (1.0 - share) / sum(kept.values()) for name, value in kept.items()},
        MEMORY_PROBE.name: share,
    }


def working_set_bytes(model: bytes | Path, batch_size: int) -> int | None:
    """The bytes of a model's weights and of its activations at their peak; None where the file leaves shapes open."""
    try:
        shapes = infer(parse(model), batch_size)
        weights = sum(shapes.n_bytes(name) for name in shapes.constants if name in shapes.dims)
        return weights + peak_bytes(shapes)
    except (CostError, ValueError, LookupError, RuntimeError):  # a strange file: no matter here
        return None
