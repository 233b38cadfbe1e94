"""A timer that runs nothing: its times are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from latency_models import timer
from latency_models.timing.reference_models import MEMORY_PROBE, REFERENCES, reference_model
from latency_models.timing.timers import Rounds, Timer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

REFERENCE_NS = {spec.name: spec.about_ms * 1e6 for spec in (*REFERENCES, MEMORY_PROBE)}


class DrawnTimer(Timer):
    """Times of `ns` a model (references: `about_ms`) with gamma noise on top of them.

    `slowdown` returns a factor on all times, `contention` is one on the memory probe's alone, and `first` one on the
    first run of each burst. `asked` holds each call's handles, runs and rounds.
    """

    def __init__(self, ns: Mapping[bytes, float], *, noise: float = 0.002, session_sd: float = 0.0) -> None:
        self.ns = {reference_model(name): value for name, value in REFERENCE_NS.items()} | dict(ns)
        self.noise, self.session_sd = noise, session_sd
        self.slowdown: Callable[[], float] = lambda: 1.0
        self.contention, self.first, self.cpu_share = 1.0, 1.3, 1.0
        self.rng = np.random.default_rng(0)
        self.loaded: dict[int, tuple[bytes, float]] = {}
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        self.loads: list[bytes] = []
        self.closed = False

    def facts(self) -> dict[str, Any]:
        return timer.facts()

    def load(self, model: bytes | Path, batch_size: int, feeds: Mapping[str, np.ndarray] | None = None) -> int:
        content = model if isinstance(model, bytes) else model.read_bytes()
        self.loads.append(content)
        handle = len(self.loads)
        self.loaded[handle] = content, self.ns[content] * float(np.exp(self.session_sd * self.rng.standard_normal()))
        return handle

    def alternate(self, handles: Sequence[int], runs: Sequence[int], rounds: int) -> Rounds:
        self.asked.append((tuple(handles), tuple(runs), rounds))
        times = []
        factors = np.array([self.slowdown() for _ in range(rounds)])
        for handle, count in zip(handles, runs, strict=True):
            content, ns = self.loaded[handle]
            contention = self.contention if content == reference_model(MEMORY_PROBE.name) else 1.0
            drawn = ns * contention * factors[:, None] * (1.0 + self.noise * self.rng.gamma(2.0, 1.0, (rounds, count)))
            drawn[:, 0] *= self.first
            times.append(np.stack([drawn, drawn], axis=1).astype(np.int64))
        return Rounds(tuple(times), self.cpu_share)

    def unload(self, handle: int) -> None:
        del self.loaded[handle]

    def close(self) -> None:
        self.closed = True
