"""Fresh sessions of one or more models, timed in one rotation with the references that they are held against."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.timing.interleaving import Rounds, StopRule, burst_runs, interleave, warm_up
from latency_models.timing.reference_mix import ReferenceMix, working_set_bytes
from latency_models.timing.reference_models import MEMORY_PROBE
from latency_models.timing.statistics import Estimate, low_time, product_of_lows, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from latency_models.devices.environment import Environment
    from latency_models.timing.reference_clock import ReferenceClock

_LONGEST_BURST_NS = 2_000_000
_SHORTEST_BURST_NS = 250_000
_ROUNDS_WANTED = 8
_WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class Subject:
    """A model that is timed: a file or its bytes, and what it is fed (None: made-up inputs)."""

    model: bytes | Path
    inputs: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Repetition:
    """One rotation: the rounds of each model and of each reference, as (rounds, 2, runs) arrays in ns."""

    models_ns: tuple[np.ndarray, ...]
    references_ns: dict[str, np.ndarray]
    cpu_share: float

    def over_mix(self, at: int, mix: ReferenceMix) -> Estimate:
        """The time of a model over the mix's, from the runs alone."""
        references = [self.references_ns[mark.name] for mark in mix.marks]
        exponents = [1.0, *(-share for share in mix.exponents)]
        return product_of_lows([alone(each) for each in (self.models_ns[at], *references)], exponents)

    def between(self, at: int, base: int) -> Estimate:
        """The time of one model over another's."""
        return product_of_lows([alone(self.models_ns[at]), alone(self.models_ns[base])], [1.0, -1.0])

    def slowdown(self, mix: ReferenceMix) -> tuple[float, float | None]:
        """The logarithms of the ladder's time over its stored one, and of the memory probe's beyond that."""
        ladder = [mark for mark in mix.marks if mark.name != MEMORY_PROBE.name]
        whole = sum(mark.exponent for mark in ladder)
        drift = sum(mark.exponent * self._slower(mark.name, mark.time.ms) for mark in ladder) / whole
        probe = next((mark for mark in mix.marks if mark.name == MEMORY_PROBE.name), None)
        return drift, None if probe is None else self._slower(probe.name, probe.time.ms) - drift

    def _slower(self, name: str, stored_ms: float) -> float:
        return math.log(low_time(alone(self.references_ns[name]).ravel()) / 1e6 / stored_ms)


def alone(times_ns: np.ndarray) -> np.ndarray:
    """(rounds, 2, runs) → the times without interruptions, each burst's cold first run left out."""
    return settled(times_ns[:, 1])


def walls(times_ns: np.ndarray) -> np.ndarray:
    """(rounds, 2, runs) → the times by the wall, each burst's cold first run left out."""
    return settled(times_ns[:, 0])


class Repetitions:
    """Sits with the same models again and again, each time with fresh sessions of them, within a budget.

    Loading and warming up count as spent; what a new reference takes doesn't.
    """

    def __init__(
        self, clock: ReferenceClock, subjects: Sequence[Subject], environment: Environment, budget_s: float
    ) -> None:
        self._clock = clock
        self._subjects = subjects
        self._environment = environment
        self._budget_s = budget_s
        self._left_s = budget_s
        self.longest_loading_s = 0.0
        self.mixes: tuple[ReferenceMix, ...] = ()
        self.done: list[Repetition] = []

    @property
    def left_s(self) -> float:
        """What is left of the budget."""
        return max(self._left_s, 0.0)

    def run(self, share: float, enough: Callable[[Repetition], bool] | None = None, least_runs: int = 0) -> Repetition:
        """Sit once more, with this share of what is left; `least_runs` of each model, where there is time for them."""
        timer, batch_size = self._clock.timer, self._clock.device.batch_size
        # What is loaded first finds other memory than what comes second: each is the first in turn.
        count = len(self._subjects)
        order = [(at + len(self.done)) % count for at in range(count)]
        handles: dict[int, int] = {}
        start = time.perf_counter()
        try:
            for at in order:
                handles[at] = timer.load(self._subjects[at].model, batch_size, self._subjects[at].inputs)
            self.longest_loading_s = max(self.longest_loading_s, time.perf_counter() - start)
            warm_s = share * self._budget_s * _WARM_UP_SHARE / count
            pilots_ns = {at: warm_up(timer, handles[at], warm_s) for at in order}
            self._left_s -= time.perf_counter() - start
            if not self.mixes:
                self.mixes = tuple(self._mix(at, pilots_ns[at]) for at in range(count))
            repetition = self._interleave(order, handles, pilots_ns, share * self.left_s, enough, least_runs)
        finally:
            for handle in handles.values():
                timer.unload(handle)
        self.done.append(repetition)
        return repetition

    def _mix(self, at: int, pilot_ns: float) -> ReferenceMix:
        size = working_set_bytes(self._subjects[at].model, self._clock.device.batch_size)
        return self._clock.mix(pilot_ns, size, self._environment, self._budget_s)

    def _interleave(
        self,
        order: Sequence[int],
        handles: Mapping[int, int],
        pilots_ns: Mapping[int, float],
        budget_s: float,
        enough: Callable[[Repetition], bool] | None,
        least_runs: int,
    ) -> Repetition:
        marks = {mark.name: mark for mix in self.mixes for mark in mix.marks}
        burst_ns = budget_s * 1e9 / _ROUNDS_WANTED / (len(order) + len(marks))
        burst_ns = min(max(burst_ns, _SHORTEST_BURST_NS), _LONGEST_BURST_NS)
        runs = [burst_runs(pilots_ns[at], burst_ns) for at in order]
        least_rounds = math.ceil(least_runs / max(min(runs) - 1, 1))
        cycle_ns = sum(count * pilots_ns[at] for count, at in zip(runs, order, strict=True))
        for name, mark in marks.items():
            runs.append(self._clock.runs(name, burst_ns))
            cycle_ns += runs[-1] * mark.time.ms * 1e6
        sessions = [self._clock.session(name, len(self.done)) for name in marks]

        def repetition(taken: Rounds) -> Repetition:
            models = dict(zip(order, taken.times_ns, strict=False))
            references = dict(zip(marks, taken.times_ns[len(order) :], strict=True))
            return Repetition(tuple(models[at] for at in range(len(order))), references, taken.cpu_share)

        stop_rule = StopRule(budget_s, cycle_ns / 1e9, least_rounds)
        if enough is not None:
            stop_rule = StopRule(budget_s, cycle_ns / 1e9, least_rounds, lambda taken: enough(repetition(taken)))
        taken = interleave(self._clock.timer, [*(handles[at] for at in order), *sessions], runs, stop_rule)
        self._left_s -= sum(float(times[:, 1].sum()) for times in taken.times_ns) / 1e9
        return repetition(taken)
