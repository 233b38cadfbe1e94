"""A device's timer with the reference models that others are timed against, loaded once and used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.devices.device import CPU_PROVIDER, ONNXRUNTIME
from latency_models.devices.environment import environment_of
from latency_models.timing.interleaving import burst_runs, warm_up
from latency_models.timing.reference_mix import (
    ReferenceMix,
    WeightedReference,
    add_memory_probe,
    interpolate,
    memory_share,
)
from latency_models.timing.reference_models import ANCHOR, MEMORY_PROBE, reference_model, spec_of
from latency_models.timing.reference_store import ReferenceStore, ReferenceTime, calibrate
from latency_models.timing.timer_for import timer_for

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models.devices.device import Device
    from latency_models.devices.environment import Environment
    from latency_models.timing.timers import Timer

_WARM_UP_S = 0.02
_BOTH_NEIGHBOURS_S = 0.3  # with less time than this, one reference leaves more of it to the model
_MOST_OF_BUDGET = 0.15  # that a burst of the memory probe may take


class ReferenceClock:
    """A device's timer, its environment, and the references' sessions and calibrated times.

    `timer` replaces the device's own and is closed with the clock.
    """

    def __init__(self, device: Device, store: Path | None, timer: Timer | None = None) -> None:
        self.device = device
        self.timer = timer if timer is not None else timer_for(device)
        self._store = ReferenceStore(store)
        self._times: dict[str, ReferenceTime] = {}
        self._sessions: dict[str, list[int]] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems with the file of reference times."""
        return self._store.warnings

    def environment(self) -> Environment:
        """The environment that models run in now."""
        return environment_of(self.timer.facts(), self.device)

    def mix(
        self, pilot_ns: float, working_set_bytes: int | None, environment: Environment, budget_s: float
    ) -> ReferenceMix:
        """The mix of references for a model of about this time and working set; new ones are calibrated first."""
        self._time(ANCHOR, environment)
        both = budget_s >= _BOTH_NEIGHBOURS_S
        # The times of new references are guesses; a calibrated one may put the model between two others.
        while new := set(weights := interpolate(pilot_ns, self._expected_ns, both=both)) - set(self._times):
            for name in sorted(new):
                self._time(name, environment)
        if working_set_bytes is not None and self._probes_memory(budget_s):
            weights = add_memory_probe(weights, memory_share(working_set_bytes, environment.l2_cache_bytes))
        return ReferenceMix(
            tuple(WeightedReference(name, weight, self._time(name, environment)) for name, weight in weights.items())
        )

    def session(self, name: str, at: int) -> int:
        """The handle of a reference's `at`th session, loaded and warm."""
        sessions = self._sessions.setdefault(name, [])
        while len(sessions) <= at:
            sessions.append(self.timer.load(reference_model(name), 1))
            warm_up(self.timer, sessions[-1], _WARM_UP_S)
        return sessions[at]

    def runs(self, name: str, burst_ns: float) -> int:
        """The number of a reference's runs in a burst."""
        return burst_runs(self._times[name].ms * 1e6, burst_ns)

    def close(self) -> None:
        """End the timer."""
        self._sessions.clear()
        self.timer.close()

    def _probes_memory(self, budget_s: float) -> bool:
        """Whether the memory probe applies to this device and fits into the budget."""
        if self.device.runtime != ONNXRUNTIME or self.device.provider != CPU_PROVIDER:
            return False
        probe_ns = self._expected_ns(MEMORY_PROBE.name)
        return burst_runs(probe_ns, 0.0) * probe_ns / 1e9 <= _MOST_OF_BUDGET * budget_s

    def _expected_ns(self, name: str) -> float:
        """A reference's calibrated time, or a guess from the anchor's."""
        if name in self._times:
            return self._times[name].ms * 1e6
        return spec_of(name).about_ms * 1e6 * self._times[ANCHOR].ms / spec_of(ANCHOR).about_ms

    def _time(self, name: str, environment: Environment) -> ReferenceTime:
        if name not in self._times:
            anchor = None if name == ANCHOR else self._time(ANCHOR, environment)
            self._times[name] = self._store.get(name, environment, lambda: calibrate(name, self.timer, anchor))
        return self._times[name]
