"""Interleaved bursts of several models under a timer's clock: warm-up, runs a burst, and the stop rule."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.timing.timers import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from latency_models.timing.timers import Timer

_BURST_NS = 2_000_000
_FAST_NS = 5_000_000
_SLOW_NS = 200_000_000
_MOST_RUNS = 400
_LEAST_ROUNDS = 5
_FIRST_CHECK_ROUNDS = 16
_REQUEST_S = 0.2
_PATIENCE = 4.0

_WARM_CHUNK_NS = 300_000
_WARM_CHUNKS = 3
_STILL_FASTER = 0.99


@dataclass(frozen=True)
class StopRule:
    """A budget, and a condition under which less is enough.

    Attributes:
        budget_s: seconds of undisturbed running. Wall time may reach four times as much, so that a busy machine
            costs patience and not precision.
        cycle_s: the estimated time of one round.
        least_rounds: rounds to run in any case, as far as the budget allows.
        enough: the condition, checked after 16 rounds, 32, 64 and so on.
    """

    budget_s: float
    cycle_s: float
    least_rounds: int = 0
    enough: Callable[[Rounds], bool] = lambda rounds: False


def burst_runs(pilot_ns: float, burst_ns: float = _BURST_NS) -> int:
    """The number of runs in a row that take about `burst_ns`: three or more, fewer of slow models.

    Slow models take fewer because the cold first run hardly moves them.
    """
    least = 3 if pilot_ns < _FAST_NS else 2 if pilot_ns < _SLOW_NS else 1
    return min(_MOST_RUNS, max(least, math.ceil(burst_ns / pilot_ns)))


def warm_up(timer: Timer, handle: int, budget_s: float) -> float:
    """Run a model until it gets no faster or `budget_s` is over; return the undisturbed time of a run in ns."""
    end = time.perf_counter() + budget_s
    before = _fastest_ns(timer, handle, runs=2)
    runs = min(_MOST_RUNS, max(2, math.ceil(_WARM_CHUNK_NS / before)))
    while time.perf_counter() < end:
        rounds = min(_WARM_CHUNKS, max(1, int((end - time.perf_counter()) * 1e9 / (runs * before))))
        now = _fastest_ns(timer, handle, runs, rounds)
        if now >= _STILL_FASTER * before:
            return max(min(now, before), 1.0)
        before = now
    return max(before, 1.0)


def _fastest_ns(timer: Timer, handle: int, runs: int, rounds: int = 1) -> float:
    (times,) = timer.alternate([handle], [runs], rounds).times_ns
    return max(float(times[:, 1].min()), 1.0)


def interleave(timer: Timer, handles: Sequence[int], runs: Sequence[int], stop_rule: StopRule) -> Rounds:
    """Run bursts of the models in turn until `stop_rule` ends it, at least five rounds; `runs` is one count a model."""
    parts: list[tuple[np.ndarray, ...]] = []
    shares: list[tuple[float, float]] = []
    start = time.perf_counter()
    rounds, spent_s, next_check, cycle_s = 0, 0.0, _FIRST_CHECK_ROUNDS, max(stop_rule.cycle_s, 1e-9)
    while rounds < _LEAST_ROUNDS or not _over(stop_rule, spent_s, start):
        left_s = max(stop_rule.budget_s - spent_s, 0.0)
        asked = max(1, _LEAST_ROUNDS - rounds, min(int(min(left_s, _REQUEST_S) / cycle_s), next_check - rounds))
        before = time.perf_counter()
        got = timer.alternate(handles, runs, asked)
        shares.append((time.perf_counter() - before, got.cpu_share))
        parts.append(got.times_ns)
        rounds += asked
        spent_s += sum(float(times[:, 1].sum()) for times in got.times_ns) / 1e9
        cycle_s = spent_s / rounds
        if rounds >= next_check:
            next_check = 2 * rounds
            if rounds >= stop_rule.least_rounds and stop_rule.enough(_joined(parts, shares)):
                break
    return _joined(parts, shares)


def _over(stop_rule: StopRule, spent_s: float, start: float) -> bool:
    return spent_s >= stop_rule.budget_s or time.perf_counter() - start >= _PATIENCE * stop_rule.budget_s


def _joined(parts: Sequence[tuple[np.ndarray, ...]], shares: Sequence[tuple[float, float]]) -> Rounds:
    times = tuple(np.concatenate(each) for each in zip(*parts, strict=True))
    seconds, cpu_shares = np.array(shares).T
    return Rounds(times, float(np.average(cpu_shares, weights=np.maximum(seconds, 1e-9))))
