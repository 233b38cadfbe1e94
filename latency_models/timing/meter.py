"""Latency that repeats on a noisy machine: timed in alternation with reference models of about the same size.

Whatever slows the machine slows both, so that the ratio of the two hardly moves. Milliseconds are that ratio times the
references' own time, which was calibrated once in this environment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from latency_models.errors import MixedEnvironmentsError
from latency_models.graph.model_file import check_readable
from latency_models.runners.runner import Closing
from latency_models.timing.reference_clock import ReferenceClock
from latency_models.timing.reference_mix import MEMORY_SHARE_ERROR, ReferenceMix
from latency_models.timing.repetitions import Repetitions, Subject, undisturbed, wall_times
from latency_models.timing.stability import Evidence, change_over_time, warnings_of
from latency_models.timing.statistics import NORMAL_95, Estimate, Ratio, low_time, mean_of, ratio_of_repeats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from latency_models.devices.device import Device
    from latency_models.devices.environment import Environment
    from latency_models.timing.timers import Timer

__all__ = ["Latency", "LatencyMeter", "Ratio"]

_REPETITIONS = 3
_SEVERAL_REPETITIONS_S = 0.5  # with less time than this, one repetition has to do
_LOADING_SHARE = 0.1
_JOINT_REPETITIONS = 6
_HALF_WIDTH = 0.01  # of the interval (relative) that is wanted unless the caller says otherwise
# Fresh sessions of a model differ by this much at least (relative, 1 sd), also where the few of a calibration happened
# to agree better.
_LEAST_SESSION_SD = 0.003


@dataclass(frozen=True)
class Latency:
    """One model's time on one device.

    `latency_ms` is the time of an undisturbed call, `low_ms` to `high_ms` its 95 % interval; `p50_ms` and `p99_ms`
    are percentiles of all calls, disturbances included. `ratio` is the time over the reference's, which may be a mix
    of several. The samples are of all sessions in order, without the cold first run of each burst.
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
        """The record for JSON; the raw samples only with `samples`."""
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

    def over(self, base: Latency) -> Ratio:
        """The ratio of this time to that of `base`, as two independent measurements.

        Raises:
            MixedEnvironmentsError: the two belong to different environments.
        """
        same_environment((self, base))
        reach = math.hypot(*(math.log(each.high_ms / each.low_ms) / 2.0 for each in (self, base)))
        ratio = self.latency_ms / base.latency_ms
        return Ratio(ratio, ratio * math.exp(-reach), ratio * math.exp(reach))


def same_environment(latencies: Sequence[Latency]) -> None:
    """Raise MixedEnvironmentsError unless all latencies belong to the same environment."""
    first, *others = (each.environment for each in latencies)
    for other in others:
        if other.fingerprint != first.fingerprint:
            mine, theirs = first.as_dict(), other.as_dict()
            apart = [
                f"{name} is {mine[name]!r} in one and {theirs[name]!r} in the other"
                for name in mine
                if mine[name] != theirs[name] and name not in ("fingerprint", "load_at_start", "python")
            ]
            raise MixedEnvironmentsError(
                f"the measurements are of different environments and can't be compared: {'; '.join(apart)}"
            )


@dataclass(frozen=True)
class JointLatencies:
    """Several models' latencies from one rotation, and each one's ratio to the first (1 for the first itself)."""

    latencies: tuple[Latency, ...]
    ratios: tuple[Ratio, ...]


class LatencyMeter(Closing):
    """A meter for the latency of models on one device.

    It keeps the references' sessions, so that further measurements are cheap.

    Args:
        device: the device that models run on.
        store: the file of the references' times; by default it lies in the user's data folder.
        timer: a timer in place of the device's own.
    """

    def __init__(self, device: Device, *, store: Path | None = None, timer: Timer | None = None) -> None:
        self.device = device
        self._clock = ReferenceClock(device, store, timer)

    def close(self) -> None:
        """End the device's timer; Python does it anyway when the meter is no longer referenced."""
        self._clock.close()

    def environment(self) -> Environment:
        """The environment that models run in now.

        Raises:
            DeviceError, TimerError: the device can't be used.
        """
        return self._clock.environment()

    def measure(
        self,
        model: bytes | Path,
        *,
        budget_s: float = 0.1,
        target_half_width: float = _HALF_WIDTH,
        min_runs: int = 0,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> Latency:
        """Time `model` until its interval is within ± `target_half_width` (relative), or `budget_s` is over.

        `min_runs` are made first, as far as the budget allows: a 99th percentile needs hundreds. `inputs` are input
        arrays by name; without them inputs are made up.

        The budget includes the model's loading; a few rounds are run in any case, and the first use of a reference in
        an environment takes about half a second more. With half a second or more the model is loaded up to three
        times, since a session's speed depends a little on where its memory happens to lie.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run with these inputs.
            DeviceError, TimerError: the device can't be used, or was lost on the way.
        """
        check_readable(model)
        environment = self._clock.environment()
        repetitions = Repetitions(self._clock, [Subject(model, inputs)], environment, budget_s)
        planned = _REPETITIONS if budget_s >= _SEVERAL_REPETITIONS_S else 1
        wanted = target_half_width * math.sqrt(planned)
        for at in range(planned):
            repetitions.run(
                1.0 / (planned - at),
                lambda repetition: NORMAL_95 * repetition.ratio_to_mix(0, repetitions.mixes[0]).sd < wanted,
                math.ceil(min_runs / planned),
            )
            if repetitions.longest_loading_s > _LOADING_SHARE * budget_s or repetitions.left_s == 0.0:
                break
        return self._latency(repetitions, 0, environment, target_half_width)

    def compare(
        self,
        a: bytes | Path,
        b: bytes | Path,
        *,
        budget_s: float = 1.0,
        inputs: Mapping[str, np.ndarray] | None = None,
    ) -> Ratio:
        """The ratio of `a`'s time to `b`'s, the two timed in alternation with the same inputs.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run.
        """
        return self.measure_together([b, a], budget_s=budget_s, inputs=[inputs, inputs]).ratios[1]

    def measure_together(
        self,
        models: Sequence[bytes | Path],
        *,
        budget_s: float = 1.0,
        inputs: Sequence[Mapping[str, np.ndarray] | None] | None = None,
    ) -> JointLatencies:
        """Time several models in one rotation with the references.

        `inputs` are input arrays by name, one mapping a model; where there are none, inputs are made up.

        Each is loaded several times, since a session's speed depends a little on where its memory happens to lie: a
        model differs from itself by that much, and the intervals have to say so.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run.
            DeviceError, TimerError: the device can't be used, or was lost on the way.
        """
        for model in models:
            check_readable(model)
        environment = self._clock.environment()
        arrays = inputs if inputs is not None else [None] * len(models)
        subjects = [Subject(model, each) for model, each in zip(models, arrays, strict=True)]
        repetitions = Repetitions(self._clock, subjects, environment, budget_s)
        for at in range(_JOINT_REPETITIONS):
            repetitions.run(1.0 / (_JOINT_REPETITIONS - at))
        ratios = [Ratio(1.0, 1.0, 1.0)]
        for at in range(1, len(models)):
            drawn = [repetition.ratio_between(at, 0).ratio.ratio for repetition in repetitions.done]
            ratios.append(ratio_of_repeats(drawn, math.sqrt(2.0) * _LEAST_SESSION_SD))
        latencies = (self._latency(repetitions, at, environment, _HALF_WIDTH) for at in range(len(models)))
        return JointLatencies(tuple(latencies), tuple(ratios))

    def _latency(
        self, repetitions: Repetitions, at: int, environment: Environment, target_half_width: float
    ) -> Latency:
        mix = repetitions.mixes[at]
        estimate = mean_of([repetition.ratio_to_mix(at, mix) for repetition in repetitions.done])
        drift, contention = _slowdown(repetitions, mix)
        ratio = _widened(estimate, mix, len(repetitions.done), contention).ratio
        arrays = [repetition.models_ns[at] for repetition in repetitions.done]
        samples_ms = np.concatenate([wall_times(each).ravel() for each in arrays]) / 1e6
        undisturbed_ns = np.concatenate([undisturbed(each).ravel() for each in arrays])
        nearest = max(mix.references, key=lambda reference: reference.exponent).name
        references = [repetition.references_ns[nearest] for repetition in repetitions.done]
        reference_samples_ms = np.concatenate([wall_times(each).ravel() for each in references]) / 1e6
        p50_ms, p99_ms = np.percentile(samples_ms, [50, 99])
        evidence = Evidence(
            wall_ns=samples_ms * 1e6,
            undisturbed_ns=undisturbed_ns,
            cpu_share=float(np.mean([repetition.cpu_share for repetition in repetitions.done])),
            half_width=estimate.ratio.half_width,
            drift=math.exp(drift),
            change=change_over_time(np.concatenate([undisturbed(each).min(axis=1) for each in references])),
            size=low_time(undisturbed_ns) / 1e6 / math.exp(drift) / mix.ms,
            contention=None if contention is None else math.exp(contention),
        )
        return Latency(
            latency_ms=ratio.ratio * mix.ms,
            low_ms=ratio.low * mix.ms,
            high_ms=ratio.high * mix.ms,
            p50_ms=float(p50_ms),
            p99_ms=float(p99_ms),
            ratio=ratio.ratio,
            reference=mix.name,
            reference_ms=mix.ms,
            samples_ms=tuple(samples_ms.tolist()),
            reference_samples_ms=tuple(reference_samples_ms.tolist()),
            warnings=(*self._clock.warnings, *warnings_of(evidence, self.device, target_half_width)),
            environment=environment,
        )


def _slowdown(repetitions: Repetitions, mix: ReferenceMix) -> tuple[float, float | None]:
    """The mean of `Repetition.slowdown` over the repetitions."""
    drifts, contentions = zip(*(repetition.slowdown(mix) for repetition in repetitions.done), strict=True)
    return float(np.mean(drifts)), None if contentions[0] is None else float(np.mean(contentions))


def _widened(estimate: Estimate, mix: ReferenceMix, repetitions: int, contention: float | None) -> Estimate:
    """Add the errors that more runs in the same sessions can't reduce.

    One is the spread between sessions, of the model and of each reference. The other is the memory probe's share, a
    rough guess that matters as far as memory is slower or faster than when the references were calibrated.
    """
    spreads = [(each.exponent, max(each.time.session_sd, _LEAST_SESSION_SD)) for each in mix.references]
    between = math.hypot(_LEAST_SESSION_SD, *(share * sd for share, sd in spreads)) / math.sqrt(repetitions)
    probe = mix.references[-1].exponent if contention is not None else 0.0
    return estimate.widened(between, MEMORY_SHARE_ERROR * probe * (contention or 0.0))
