"""How alike two rankings of networks are, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_RESAMPLES = 2000
_COVERAGE = (2.5, 97.5)
FEWEST = 5
"""Networks below which no rank correlation is told."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, from networks drawn again with replacement."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of scores with accuracies, each from -1 to 1."""

    spearman: Estimate
    kendall: Estimate


def agreement(scores: npt.NDArray[np.float64], accuracies: npt.NDArray[np.float64], seed: int) -> Agreement | None:
    """Spearman's rho and Kendall's tau-b of scores with accuracies.

    Args:
        scores: (networks,).
        accuracies: (networks,).
        seed: of the resampling.

    Returns:
        None where there are too few networks, or all are alike.
    """
    if len(scores) < FEWEST or np.ptp(scores) == 0 or np.ptp(accuracies) == 0:
        return None
    return Agreement(
        _estimate(lambda rows: _rho(scores[rows], accuracies[rows]), len(scores), seed),
        _estimate(lambda rows: _tau(scores[rows], accuracies[rows]), len(scores), seed),
    )


def advantage(
    scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64], accuracies: npt.NDArray[np.float64], seed: int
) -> Estimate | None:
    """The difference between Spearman's rho of the scores and that of other scores of the networks; None as above."""
    if len(scores) < FEWEST or min(np.ptp(scores), np.ptp(others), np.ptp(accuracies)) == 0:
        return None
    return _estimate(
        lambda rows: _rho(scores[rows], accuracies[rows]) - _rho(others[rows], accuracies[rows]), len(scores), seed
    )


def _estimate(of: Callable[[npt.NDArray[np.intp]], float], count: int, seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    again = [of(rng.integers(0, count, count)) for _ in range(_RESAMPLES)]
    low, high = np.nanpercentile(again, _COVERAGE)  # a resample of one network alone has no ranks
    return Estimate(of(np.arange(count)), float(low), float(high))


def _rho(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def _tau(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.kendalltau(one, other).statistic)
