"""Repetitions of a measurement: each loads the models afresh and times them in one rotation with their references."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.timing.interleaving import StopRule, burst_runs, interleave, warm_up
from latency_models.timing.reference_mix import ReferenceMix, working_set_bytes
from latency_models.timing.reference_models import MEMORY_PROBE
from latency_models.timing.statistics import Estimate, low_time, product_of_lows, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from latency_models.devices.environment import Environment
    from latency_models.timing.reference_clock import ReferenceClock
    from latency_models.timing.timers import Rounds

_LONGEST_BURST_NS = 2_000_000
_SHORTEST_BURST_NS = 250_000
_ROUNDS_WANTED = 8
_WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class Subject:
    """A model under test: a file or its bytes, and its input arrays by name (None: made-up inputs)."""

    model: bytes | Path
    inputs: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Repetition:
    """One rotation of fresh sessions: the times of each model and each reference, arrays (rounds, 2, runs) in ns."""

    models_ns: tuple[np.ndarray, ...]
    references_ns: dict[str, np.ndarray]
    cpu_share: float

    def ratio_to_mix(self, at: int, mix: ReferenceMix) -> Estimate:
        """The time of model `at` over the mix's; its error holds the scatter of the runs alone."""
        times = [self.models_ns[at], *(self.references_ns[reference.name] for reference in mix.references)]
        exponents = [1.0, *(-reference.exponent for reference in mix.references)]
        return product_of_lows([undisturbed(each) for each in times], exponents)

    def ratio_between(self, at: int, base: int) -> Estimate:
        """The time of model `at` over that of model `base`."""
        return product_of_lows([undisturbed(self.models_ns[at]), undisturbed(self.models_ns[base])], [1.0, -1.0])

    def slowdown(self, mix: ReferenceMix) -> tuple[float, float | None]:
        """The machine's slowdown since the references were calibrated, as two logarithms: the clock's and the memory's.

        The memory's is what the memory probe slowed down beyond the other references; None where it has no part.
        """
        sized = [each for each in mix.references if each.name != MEMORY_PROBE.name]
        whole = sum(each.exponent for each in sized)
        drift = sum(each.exponent * self._slower(each.name, each.time.ms) for each in sized) / whole
        probe = next((each for each in mix.references if each.name == MEMORY_PROBE.name), None)
        return drift, None if probe is None else self._slower(probe.name, probe.time.ms) - drift

    def _slower(self, name: str, stored_ms: float) -> float:
        return math.log(low_time(undisturbed(self.references_ns[name]).ravel()) / 1e6 / stored_ms)


def undisturbed(times_ns: np.ndarray) -> np.ndarray:
    """The times without interruptions, (rounds, 2, runs) → (rounds, runs), without each burst's cold first run."""
    return settled(times_ns[:, 1])


def wall_times(times_ns: np.ndarray) -> np.ndarray:
    """The times by the wall, (rounds, 2, runs) → (rounds, runs), without each burst's cold first run."""
    return settled(times_ns[:, 0])


class Repetitions:
    """A series of repetitions within a budget, each with fresh sessions of the same models.

    Loading and warming up count as spent; the calibration of a new reference doesn't.
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
        """The seconds that are left of the budget."""
        return max(self._left_s, 0.0)

    def run(self, share: float, enough: Callable[[Repetition], bool] | None = None, least_runs: int = 0) -> None:
        """Add a repetition to `done`, with this share of the time that is left.

        `enough` may end it early; `least_runs` of each model are made first, as far as the time allows.
        """
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
            self.done.append(self._interleave(order, handles, pilots_ns, share * self.left_s, enough, least_runs))
        finally:
            for handle in handles.values():
                timer.unload(handle)

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
        references = {reference.name: reference for mix in self.mixes for reference in mix.references}
        burst_ns = budget_s * 1e9 / _ROUNDS_WANTED / (len(order) + len(references))
        burst_ns = min(max(burst_ns, _SHORTEST_BURST_NS), _LONGEST_BURST_NS)
        runs = [burst_runs(pilots_ns[at], burst_ns) for at in order]
        least_rounds = math.ceil(least_runs / max(min(runs) - 1, 1))
        cycle_ns = sum(count * pilots_ns[at] for count, at in zip(runs, order, strict=True))
        for name, reference in references.items():
            runs.append(self._clock.runs(name, burst_ns))
            cycle_ns += runs[-1] * reference.time.ms * 1e6
        sessions = [self._clock.session(name, len(self.done)) for name in references]

        def repetition(rounds: Rounds) -> Repetition:
            models = dict(zip(order, rounds.times_ns, strict=False))
            references_ns = dict(zip(references, rounds.times_ns[len(order) :], strict=True))
            return Repetition(tuple(models[at] for at in range(len(order))), references_ns, rounds.cpu_share)

        stop_rule = StopRule(budget_s, cycle_ns / 1e9, least_rounds)
        if enough is not None:
            stop_rule = replace(stop_rule, enough=lambda rounds: enough(repetition(rounds)))
        rounds = interleave(self._clock.timer, [*(handles[at] for at in order), *sessions], runs, stop_rule)
        self._left_s -= sum(float(times[:, 1].sum()) for times in rounds.times_ns) / 1e9
        return repetition(rounds)
