"""Statistics of alternating measurements: rounds of a target's runs next to rounds of a reference's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# What disturbs a run only ever adds time, so the low end repeats; the minimum itself hangs on a single run.
LOW_PERCENTILE = 5.0

_RESAMPLES = 300
_SEED = 5
_CONFIDENCE = 95.0
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times with its 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def different(self) -> bool:
        """Whether the interval leaves out 1: the two times are not the same."""
        return self.low > 1.0 or self.high < 1.0

    @property
    def half_width(self) -> float:
        """Half of the interval's width, relative to the ratio."""
        return (self.high - self.low) / (2.0 * self.ratio)

    def widened(self, relative_sd: float) -> Ratio:
        """The interval with an independent error of standard deviation `relative_sd` added in quadrature."""
        extra = NORMAL_95 * relative_sd
        below = math.hypot((self.ratio - self.low) / self.ratio, extra)
        above = math.hypot((self.high - self.ratio) / self.ratio, extra)
        return Ratio(self.ratio, self.ratio * max(1.0 - below, 0.0), self.ratio * (1.0 + above))


def low_time(samples: np.ndarray | Sequence[float]) -> float:
    """The time of an undisturbed run: the 5th percentile, one of the samples."""
    return float(np.percentile(samples, LOW_PERCENTILE, method="inverted_cdf"))


def ratio_of_rounds(target: np.ndarray, reference: np.ndarray) -> Ratio:
    """The ratio of low times, with a percentile bootstrap over rounds (Efron 1979).

    `target` is (rounds, runs a round), `reference` (rounds, its runs a round), in any unit of time. A round
    is drawn whole and for both, so that what disturbed the two together stays together.
    """
    rounds = len(target)
    point = low_time(target.ravel()) / low_time(reference.ravel())
    drawn = np.random.default_rng(_SEED).integers(0, rounds, (_RESAMPLES, rounds))
    counts = np.zeros((_RESAMPLES, rounds), np.int32)
    np.add.at(counts, (np.arange(_RESAMPLES)[:, None], drawn), 1)
    ratios = _resampled_low_times(target, counts) / _resampled_low_times(reference, counts)
    tail = (100.0 - _CONFIDENCE) / 2.0
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    # The point can lie outside the percentiles of few rounds; an interval holds its own estimate.
    return Ratio(point, min(float(low), point), max(float(high), point))


def ratio_of_repeats(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of 2 to 10 independent ratios with Student's interval on their logarithms."""
    logs = np.log(ratios)
    mean = float(logs.mean())
    reach = _STUDENT_T[len(logs) - 1] * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def _resampled_low_times(samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`low_time` of every resample: `samples` (rounds, runs), `counts` (resamples, rounds) → (resamples,).

    The samples are sorted once; a resample only weighs them. Few of the smallest settle nearly all of its
    percentiles, so that the rest is looked at only when it has to be.
    """
    runs = samples.shape[1]
    flat = samples.ravel()
    order = np.argsort(flat, kind="stable")
    needed = math.ceil(LOW_PERCENTILE / 100.0 * flat.size)
    head = min(flat.size, 4 * needed + 2 * runs)
    weights = np.cumsum(counts[:, order[:head] // runs], axis=1)
    if head < flat.size and int(weights[:, -1].min()) < needed:
        weights = np.cumsum(counts[:, order // runs], axis=1)
    reached = np.argmax(weights >= needed, axis=1)
    return np.asarray(flat[order[reached]], dtype=float)
