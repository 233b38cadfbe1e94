"""What a model is held against: references, each with the share that it has in the mix.

A mix's time is the product of its references' times, each to its exponent; the exponents sum to 1. Two neighbours
of the ladder share by how near in size they are, so that a model between the two doesn't flip from one to the other.
A model that doesn't stay in the inner caches slows down when neighbours crowd the outer ones, and the ladder doesn't:
the memory probe takes as much of the mix as the model's working set suggests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latency_models.errors import CostError
from latency_models.graph.memory import peak_bytes
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
_MOST_SHARE = 0.9  # the ladder's part tells the clock's speed from the memory's
MEMORY_SHARE_ERROR = 0.4
"""How far off (relative, 1 sd) the probe's share was seen to be."""


@dataclass(frozen=True)
class WeightedReference:
    """One reference of a mix: its name, its exponent, and its stored time in this environment."""

    name: str
    exponent: float
    time: ReferenceTime


@dataclass(frozen=True)
class ReferenceMix:
    """References with exponents that sum to 1."""

    marks: tuple[WeightedReference, ...]

    @property
    def name(self) -> str:
        """The reference's name; of several each with its share."""
        if len(self.marks) == 1:
            return self.marks[0].name
        return ", ".join(f"{mark.name} {mark.exponent:.0%}" for mark in self.marks)

    @property
    def ms(self) -> float:
        """Its stored time."""
        return math.exp(sum(mark.exponent * math.log(mark.time.ms) for mark in self.marks))

    @property
    def exponents(self) -> tuple[float, ...]:
        """The references' exponents."""
        return tuple(mark.exponent for mark in self.marks)


def interpolate(ns: float, expected_ns: Callable[[str], float], *, both: bool) -> dict[str, float]:
    """The neighbours of a time on the ladder and their shares; without `both` the nearer one alone.

    `expected_ns` tells each reference's time by its name.
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

    Nothing for what the inner caches hold, most for what is as large as the probe, and in proportion between them. It
    fits 25 nets that were timed beside a stream of memory, and is rough.
    """
    inner = _INNER_CACHES * (l2_cache_bytes or _USUAL_L2_BYTES)
    if working_set_bytes <= inner or inner >= PROBE_WORKING_SET_BYTES:
        return 0.0
    share = min(_MOST_SHARE, (working_set_bytes - inner) / (PROBE_WORKING_SET_BYTES - inner))
    return share if share >= _LEAST_MEMORY_SHARE else 0.0


def add_memory_probe(ladder: dict[str, float], share: float) -> dict[str, float]:
    """The ladder's shares, and the memory probe's taken off them."""
    if share == 0.0:
        return ladder
    left = {name: of_ladder * (1.0 - share) for name, of_ladder in ladder.items()}
    kept = {name: value for name, value in left.items() if value >= _LEAST_SHARE}
    return {
        **{name: value * (1.0 - share) / sum(kept.values()) for name, value in kept.items()},
        MEMORY_PROBE.name: share,
    }


def working_set_bytes(model: bytes | Path, batch_size: int) -> int | None:
    """Bytes of the weights and of the activations at their peak; None where the file doesn't tell its shapes."""
    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        else:
            proto = onnx.load_model(model, load_external_data=False)
        shapes = infer(proto, batch_size)
        weights = sum(shapes.n_bytes(name) for name in shapes.constants if name in shapes.dims)
        return weights + peak_bytes(shapes)
    except (CostError, DecodeError, ValueError, OSError):
        return None
