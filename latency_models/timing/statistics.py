"""Statistics of alternating measurements: rounds of a few models' runs, one next to the other."""

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
_BLOCKS = 24
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
NORMAL_95 = 1.96

_MODES_LEAST_SAMPLES = 40
_MODES_LEAST_SHARE = 0.1
_MODES_LEAST_GAP = 0.03
# Ashman, Bird & Zepf (1994) call two normal components apart from 2 on. Cutting one uniform distribution in two
# halves gives 3.5, a normal one 2.7.
_MODES_LEAST_DISTANCE = 4.0


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


@dataclass(frozen=True)
class Estimate:
    """The logarithm of a time or of a ratio of times, and its standard error."""

    log: float
    sd: float

    @property
    def ratio(self) -> Ratio:
        """The ratio, with the normal 95 % interval on its logarithm."""
        reach = NORMAL_95 * self.sd
        return Ratio(math.exp(self.log), math.exp(self.log - reach), math.exp(self.log + reach))

    def widened(self, *sds: float) -> Estimate:
        """With independent errors of these standard deviations (relative) added."""
        return Estimate(self.log, math.hypot(self.sd, *sds))


def settled(samples: np.ndarray) -> np.ndarray:
    """The runs (rounds, runs a round) without each round's first: it finds the caches full of another model."""
    return samples[:, 1:] if samples.shape[1] > 1 else samples


def low_time(samples: np.ndarray | Sequence[float]) -> float:
    """The time of an undisturbed run: the 5th percentile, one of the samples."""
    return float(np.percentile(samples, LOW_PERCENTILE, method="inverted_cdf"))


def product_of_lows(samples: Sequence[np.ndarray], exponents: Sequence[float]) -> Estimate:
    """The product of each model's low time to its exponent, with a bootstrap's standard error (Efron 1979).

    `samples` are (rounds, runs a round), of as many rounds each, in any unit of time; exponents 1 and -1 make a ratio.
    Up to 24 blocks of neighbouring rounds are drawn (Carlstein 1986), each whole and for all models: what disturbs a
    stretch of time stays together.
    """
    blocks = [_in_blocks(each) for each in samples]
    count = len(blocks[0])
    drawn = np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, count))
    counts = np.zeros((_RESAMPLES, count), np.int32)
    np.add.at(counts, (np.arange(_RESAMPLES)[:, None], drawn), 1)
    log, resampled = 0.0, np.zeros(_RESAMPLES)
    for each, exponent in zip(blocks, exponents, strict=True):
        log += exponent * math.log(low_time(each.ravel()))
        resampled += exponent * np.log(_resampled_low_times(each, counts))
    return Estimate(log, float(resampled.std()))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates; its error is what they claim, or what their spread shows if that is more."""
    logs = np.array([each.log for each in estimates])
    claimed = math.hypot(*(each.sd for each in estimates)) / len(logs)
    shown = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return Estimate(float(logs.mean()), max(claimed, shown))


def ratio_of_repeats(ratios: Sequence[float], least_sd: float = 0.0) -> Ratio:
    """The geometric mean of 2 to 10 independent ratios with Student's interval on their logarithms.

    `least_sd` is what single ratios are known to differ by (relative), where these happen to agree better.
    """
    logs = np.log(ratios)
    mean = float(logs.mean())
    sd = max(float(logs.std(ddof=1)), least_sd)
    reach = _STUDENT_T[len(logs) - 1] * sd / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


@dataclass(frozen=True)
class TwoModes:
    """Times that come in two kinds: the mean of each, and the share of the slower."""

    fast: float
    slow: float
    slow_share: float


def two_modes(samples: np.ndarray) -> TwoModes | None:
    """Whether the times fall into two groups with a gap between them.

    The logarithms without their outer twentieths are cut where the variance between the two parts is greatest (Otsu
    1979); they are two groups if those lie further apart than the halves of any one usual distribution.
    """
    if len(samples) < _MODES_LEAST_SAMPLES:
        return None
    logs = np.sort(np.log(np.maximum(samples, 1.0)))  # ns; a coarse clock may say 0
    logs = logs[len(logs) // 20 : len(logs) - len(logs) // 20]
    below = np.arange(1, len(logs))
    sums = np.cumsum(logs)
    low_means, high_means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(logs) - below)
    cut = int(np.argmax(below * (len(logs) - below) * (high_means - low_means) ** 2)) + 1
    low, high = logs[:cut], logs[cut:]
    gap = float(high.mean() - low.mean())
    within = math.hypot(float(low.std()), float(high.std()))
    if min(len(low), len(high)) < _MODES_LEAST_SHARE * len(logs) or gap < _MODES_LEAST_GAP:
        return None
    if math.sqrt(2.0) * gap < _MODES_LEAST_DISTANCE * within:
        return None
    return TwoModes(math.exp(low.mean()), math.exp(high.mean()), len(high) / len(logs))


def _in_blocks(samples: np.ndarray) -> np.ndarray:
    """(rounds, runs) → (blocks, runs of neighbouring rounds); the rounds that fill no block are left out."""
    rounds, runs = samples.shape
    together = max(1, rounds // _BLOCKS)
    blocks = rounds // together
    return samples[: blocks * together].reshape(blocks, together * runs)


def _resampled_low_times(samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`low_time` of every resample: `samples` (blocks, runs), `counts` (resamples, blocks) → (resamples,).

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
