"""Latency that repeats on a noisy machine: timed in alternation with a reference of about the same size.

Whatever slows the machine slows both, so that the ratio of the two hardly moves. Milliseconds are that
ratio times the reference's own time, which was taken once in this environment.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from latency_models.clock import Budget, burst, stays_in_thread
from latency_models.environment import Environment, capture
from latency_models.reference import REFERENCES, ReferenceSpec, reference_model
from latency_models.reference_store import ReferenceStore, ReferenceTime, calibrate, one_by_one
from latency_models.runner import OnnxRuntimeRunner, Runner
from latency_models.statistics import Ratio, low_time, ratio_of_repeats, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from latency_models.device import Device

__all__ = ["Latency", "LatencyMeter", "Ratio"]

_BURST_NS = 1_000_000
_LONGEST_PAIR_OF_RUNS_NS = 10_000_000
_MIN_ROUNDS = 5
_FIRST_LOOK_ROUNDS = 16
_WARM_UP_RUNS = 10
_LEAST_WARM_UP_RUNS = 2
_MOST_WARM_UP_RUNS = 200
_WARM_UP_NS = 2_000_000
_WARM_UP_SHARE = 0.1
_COMPARED_SESSIONS = 6
_SAME_SIZE = 3.0  # a reference within this factor is of about the target's size
# Fresh processes differ by this much at least (relative, 1 sd), also where the few sessions of a calibration,
# which share one process, happened to agree better.
_LEAST_SESSION_SD = 0.003
_BUSY_CPU_SHARE = 0.95
_SPREAD = 1.15
_DRIFT = 1.15


@dataclass(frozen=True)
class Latency:
    """One model's time on one device.

    `latency_ms` is the time of an undisturbed call, `low_ms` to `high_ms` its 95 % interval; `p50_ms` and
    `p99_ms` are percentiles of the calls as they came, disturbances included. `ratio` is the time over the
    reference's.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    p50_ms: float
    p99_ms: float
    ratio: float
    reference: str
    reference_ms: float
    samples_ms: tuple[float, ...] = field(repr=False)
    reference_samples_ms: tuple[float, ...] = field(repr=False)
    warnings: tuple[str, ...]
    environment: Environment

    def as_dict(self, samples: bool = False) -> dict[str, object]:
        """The fields as JSON takes them; the raw samples only where asked for."""
        document: dict[str, object] = {
            "latency_ms": self.latency_ms,
            "latency_low_ms": self.low_ms,
            "latency_high_ms": self.high_ms,
            "latency_p50_ms": self.p50_ms,
            "latency_p99_ms": self.p99_ms,
            "ratio": self.ratio,
            "reference": self.reference,
            "reference_ms": self.reference_ms,
            "n_samples": len(self.samples_ms),
            "warnings": list(self.warnings),
            "environment": self.environment.as_dict(),
        }
        if samples:
            document["samples_ms"] = list(self.samples_ms)
            document["reference_samples_ms"] = list(self.reference_samples_ms)
        return document


@dataclass(frozen=True)
class _Rounds:
    """Times in ns, (rounds, 2, runs a round) each as from `burst`, and this thread's share of a core."""

    target_ns: np.ndarray
    reference_ns: np.ndarray
    ratio: Ratio
    cpu_share: float


class LatencyMeter:
    """Times models on one device; holds the references' sessions, so that further measurements are cheap.

    `store` is the file of the references' times; by default it lies in the user's data folder.
    """

    def __init__(self, device: Device, *, store: Path | None = None) -> None:
        self.device = device
        self._in_thread = stays_in_thread(device)
        self._store = ReferenceStore(store)
        self._runners: dict[str, OnnxRuntimeRunner] = {}
        self._times: dict[str, ReferenceTime] = {}
        self._known: dict[str, ReferenceTime] | None = None

    def measure(
        self,
        model: bytes | Path,
        *,
        budget_s: float = 0.1,
        target_half_width: float = 0.01,
        min_runs: int = 0,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> Latency:
        """Time `model` until its interval is within ± `target_half_width` (relative), or `budget_s` is over.

        `min_runs` are made in any case where the budget allows: a 99th percentile needs hundreds.

        The budget includes the model's loading; a few rounds are run in any case, and the first
        use of a reference in an environment takes about half a second more.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run with these inputs.
        """
        environment = capture(self.device)
        start = time.perf_counter()
        with OnnxRuntimeRunner(model, self.device, inputs) as runner:
            loading_s = time.perf_counter() - start
            pilot_ns = _warm_up(runner, budget_s, in_thread=self._in_thread)
            name, reference_ns = self._reference_for(pilot_ns, environment)
            rounds = _alternate(
                runner,
                self._runners[name],
                pilot_ns,
                reference_ns,
                in_thread=self._in_thread,
                budget=Budget(budget_s - loading_s, in_thread=self._in_thread),
                target_half_width=target_half_width,
                min_runs=min_runs,
            )
        return self._latency(rounds, name, environment, target_half_width)

    def compare(self, a: bytes | Path, b: bytes | Path, *, budget_s: float = 1.0) -> Ratio:
        """The time of `a` over the time of `b`, the two in alternation.

        Each is loaded several times, since how fast a session runs depends a little on where its memory
        happens to lie: a model differs from itself by that much, and the interval has to say so.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run.
        """
        ratios = []
        for session in range(_COMPARED_SESSIONS):
            # What is loaded first finds other memory than what comes second: each is the first in turn.
            if session % 2 == 0:
                ratios.append(self._ratio_once(a, b, budget_s / _COMPARED_SESSIONS))
            else:
                ratios.append(1.0 / self._ratio_once(b, a, budget_s / _COMPARED_SESSIONS))
        return ratio_of_repeats(ratios)

    def _ratio_once(self, first: bytes | Path, second: bytes | Path, budget_s: float) -> float:
        """The time of `first` over that of `second` in one session of each."""
        budget = Budget(budget_s, in_thread=self._in_thread)
        with OnnxRuntimeRunner(first, self.device) as one, OnnxRuntimeRunner(second, self.device) as other:
            pilots = [_warm_up(each, budget_s / 2, in_thread=self._in_thread) for each in (one, other)]
            rounds = _alternate(one, other, *pilots, in_thread=self._in_thread, budget=budget)
        return rounds.ratio.ratio

    def _reference_for(self, pilot_ns: float, environment: Environment) -> tuple[str, float]:
        """The reference nearest to the target, loaded: its name and a quick look at its time in ns."""
        if self._known is None:
            self._known = self._store.known(environment)
        names = [spec.name for spec in REFERENCES]
        at = names.index(min(REFERENCES, key=lambda spec: _distance(pilot_ns, self._expected_ns(spec))).name)
        reference_ns = self._load(names[at], environment)
        if _distance(pilot_ns, reference_ns) > math.log(_SAME_SIZE):
            # The machine is not the one that the references were laid out on: the next one fits better.
            neighbour = at + (1 if pilot_ns > reference_ns else -1)
            if 0 <= neighbour < len(names):
                at, reference_ns = neighbour, self._load(names[neighbour], environment)
        return names[at], reference_ns

    def _expected_ns(self, spec: ReferenceSpec) -> float:
        known = self._times.get(spec.name) or (self._known or {}).get(spec.name)
        return (known.ms if known else spec.about_ms) * 1e6

    def _load(self, name: str, environment: Environment) -> float:
        if name not in self._runners:
            self._times[name] = self._store.get(name, environment, lambda: calibrate(name, self.device))
            self._runners[name] = OnnxRuntimeRunner(reference_model(name), one_by_one(self.device))
        return _warm_up(self._runners[name], 0.01, in_thread=self._in_thread)

    def _latency(self, rounds: _Rounds, name: str, environment: Environment, target_half_width: float) -> Latency:
        reference = self._times[name]
        # The target's session and the reference's are one draw each.
        session_sd = max(reference.session_sd, _LEAST_SESSION_SD)
        ratio = rounds.ratio.widened(math.sqrt(2.0) * session_sd)
        samples_ms = rounds.target_ns[:, 0].ravel() / 1e6
        reference_samples_ms = rounds.reference_ns[:, 0].ravel() / 1e6
        p50_ms, p99_ms = np.percentile(samples_ms, [50, 99])
        return Latency(
            latency_ms=ratio.ratio * reference.ms,
            low_ms=ratio.low * reference.ms,
            high_ms=ratio.high * reference.ms,
            p50_ms=float(p50_ms),
            p99_ms=float(p99_ms),
            ratio=ratio.ratio,
            reference=name,
            reference_ms=reference.ms,
            samples_ms=tuple(samples_ms.tolist()),
            reference_samples_ms=tuple(reference_samples_ms.tolist()),
            warnings=(*self._store.warnings, *_doubts(rounds, reference, self.device, target_half_width)),
            environment=environment,
        )


def _distance(a: float, b: float) -> float:
    return abs(math.log(a / b))


def _warm_up(runner: Runner, budget_s: float, *, in_thread: bool) -> float:
    """Run until warm, within a share of the budget; the fastest run in ns."""
    budget = Budget(budget_s * _WARM_UP_SHARE, in_thread=in_thread)
    runs: list[float] = []
    while len(runs) < _LEAST_WARM_UP_RUNS or (_still_cold(runs) and not budget.over):
        runs.append(float(burst(runner.run, 1, in_thread=in_thread)[1, 0]))
    return max(min(runs), 1.0)


def _still_cold(runs: list[float]) -> bool:
    """A few runs are enough, but of a model of microseconds it takes many to fill the caches."""
    return len(runs) < _WARM_UP_RUNS or (sum(runs) < _WARM_UP_NS and len(runs) < _MOST_WARM_UP_RUNS)


def _alternate(
    target: Runner,
    reference: Runner,
    target_ns: float,
    reference_ns: float,
    *,
    in_thread: bool,
    budget: Budget,
    target_half_width: float = 0.0,
    min_runs: int = 0,
) -> _Rounds:
    """Rounds of the one, then the other, of equal duration, until the ratio is settled or time is up."""
    slower = max(target_ns, reference_ns)
    burst_ns = max(_BURST_NS, slower * (2 if slower < _LONGEST_PAIR_OF_RUNS_NS else 1))
    target_runs = max(1, round(burst_ns / target_ns))
    reference_runs = max(1, round(burst_ns / reference_ns))
    targets: list[np.ndarray] = []
    references: list[np.ndarray] = []
    next_look = _FIRST_LOOK_ROUNDS
    with _no_garbage_collection():
        wall_start, cpu_start = time.perf_counter(), time.thread_time()
        while len(targets) < _MIN_ROUNDS or not budget.over:
            targets.append(burst(target.run, target_runs, in_thread=in_thread))
            references.append(burst(reference.run, reference_runs, in_thread=in_thread))
            if len(targets) >= next_look and len(targets) * target_runs >= min_runs:
                next_look = 2 * len(targets)
                if _ratio(targets, references).half_width < target_half_width:
                    break
        cpu_share = (time.thread_time() - cpu_start) / (time.perf_counter() - wall_start)
    return _Rounds(np.array(targets), np.array(references), _ratio(targets, references), cpu_share)


def _ratio(targets: list[np.ndarray], references: list[np.ndarray]) -> Ratio:
    return ratio_of_rounds(np.array(targets)[:, 1], np.array(references)[:, 1])


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a run would be timed as part of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _doubts(rounds: _Rounds, reference: ReferenceTime, device: Device, target_half_width: float) -> list[str]:
    """Reasons not to trust the number, in words."""
    doubts = []
    if stays_in_thread(device) and rounds.cpu_share < _BUSY_CPU_SHARE:
        doubts.append(f"the machine was busy: this process had a core for {rounds.cpu_share:.0%} of the time")
    target_ns = low_time(rounds.target_ns[:, 1].ravel())
    spread = float(np.median(rounds.target_ns[:, 0])) / target_ns
    if spread > _SPREAD:
        doubts.append(f"the median run took {spread - 1:.0%} longer than an undisturbed one")
    if (half_width := rounds.ratio.half_width) > target_half_width:
        doubts.append(f"the runs settle it to ±{half_width:.1%} only, not to the ±{target_half_width:.1%} asked for")
    now_ms = low_time(rounds.reference_ns[:, 1].ravel()) / 1e6
    drift = now_ms / reference.ms
    if not 1 / _DRIFT < drift < _DRIFT:
        faster = "slower" if drift > 1 else "faster"
        doubts.append(
            f"the machine is {max(drift, 1 / drift) - 1:.0%} {faster} than when its reference was timed; "
            "latency_ms is on the scale of that time"
        )
    size = target_ns / (now_ms * 1e6)
    if not 1 / _SAME_SIZE < size < _SAME_SIZE:
        doubts.append(
            f"the reference that it was timed against takes {1 / size:.2g} times its time; one of about its size "
            "would make the interval more trustworthy"
        )
    return doubts
