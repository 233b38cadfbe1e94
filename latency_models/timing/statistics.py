"""Statistics of interleaved measurements: low percentiles, bootstrap errors, intervals, two modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# Disturbances only ever add time, so the low end repeats; the minimum itself hangs on a single run.
LOW_PERCENTILE = 5.0

_RESAMPLES = 300
_SEED = 5
_BLOCKS = 24
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
NORMAL_95 = 1.96
"""The two-sided 95 % quantile of the normal distribution."""

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
        """Whether the interval leaves out 1, so that the two times differ."""
        return self.low > 1.0 or self.high < 1.0

    @property
    def half_width(self) -> float:
        """Half the interval's width, relative to the ratio."""
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
        """The estimate with independent errors of these standard deviations (relative) added."""
        return Estimate(self.log, math.hypot(self.sd, *sds))


def settled(samples: np.ndarray) -> np.ndarray:
    """The samples (rounds, runs) without each round's first run, which finds the caches full of another model."""
    return samples[:, 1:] if samples.shape[1] > 1 else samples


def low_time(samples: np.ndarray | Sequence[float]) -> float:
    """The time of an undisturbed run: the 5th percentile, one of the samples."""
    return float(np.percentile(samples, LOW_PERCENTILE, method="inverted_cdf"))


def product_of_lows(samples: Sequence[np.ndarray], exponents: Sequence[float]) -> Estimate:
    """The product of each model's low time to its exponent, with a bootstrap's standard error (Efron 1979).

    `samples` is one array (rounds, runs) a model, with as many rounds each; exponents 1 and -1 make a ratio.
    Resampling draws up to 24 blocks of neighbouring rounds (Carlstein 1986), for all models alike, so that a
    disturbance that lasts stays in one piece.
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
    """The mean of independent estimates; its error is the larger of the claimed one and that of their spread."""
    logs = np.array([each.log for each in estimates])
    claimed = math.hypot(*(each.sd for each in estimates)) / len(logs)
    shown = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return Estimate(float(logs.mean()), max(claimed, shown))


def ratio_of_repeats(ratios: Sequence[float], least_sd: float = 0.0) -> Ratio:
    """The geometric mean of 2 to 10 independent ratios with Student's interval on their logarithms.

    `least_sd` is the least standard deviation (relative) to assume, where the ratios happen to agree better.
    """
    logs = np.log(ratios)
    mean = float(logs.mean())
    sd = max(float(logs.std(ddof=1)), least_sd)
    reach = _STUDENT_T[len(logs) - 1] * sd / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


@dataclass(frozen=True)
class TwoModes:
    """Two groups of times: the geometric mean of each, and the slower one's share of the samples."""

    fast: float
    slow: float
    slow_share: float


def two_modes(samples: np.ndarray) -> TwoModes | None:
    """The two groups that the times (ns) fall into; None where there is no clear gap.

    The logarithms without their outer twentieths are cut where the variance between the two parts is greatest (Otsu
    1979). They count as two groups if these lie further apart than the halves of any one usual distribution.
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
    """Blocks of neighbouring rounds, (rounds, runs) → (blocks, runs); a remainder that fills no block is dropped."""
    rounds, runs = samples.shape
    size = max(1, rounds // _BLOCKS)
    blocks = rounds // size
    return samples[: blocks * size].reshape(blocks, size * runs)


def _resampled_low_times(samples: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The `low_time` of each resample: `samples` (blocks, runs), `counts` (resamples, blocks) → (resamples,).

    The samples are sorted once, and a resample only weighs them. A few of the smallest settle nearly all percentiles,
    so the rest is used only where these don't.
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
