"""A predicted latency, and how wide its interval has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERAGE = 0.9
"""The share of measurements that a prediction's interval is to hold."""

NORMAL_90 = 1.645
"""The two-sided 90 % quantile of the standard normal distribution."""
_PRIOR_SCORES = 4.0


@dataclass(frozen=True)
class Prediction:
    """A predicted latency with its 90 % interval."""

    latency_ms: float
    low_ms: float
    high_ms: float


def interval_width(scores: NDArray[np.float64]) -> float:
    """Half of the 90 % interval, in predicted standard deviations.

    From 9 residuals on it is their conformal quantile (Vovk et al., Algorithmic learning in a random world, 2005; on
    normalised leave-one-out residuals: Barber et al., Predictive inference with the jackknife+, 2021). Fewer leave no
    residual beyond the 90th percentile: then it is the normal distribution's, widened where they are large.

    Args:
        scores: (n,) held-out residuals in units of their predicted standard deviations.
    """
    count = len(scores)
    rank = math.ceil((count + 1) * COVERAGE)
    if rank <= count:
        return float(np.sort(np.abs(scores))[rank - 1])
    spread = math.sqrt((_PRIOR_SCORES + float((scores**2).sum())) / (_PRIOR_SCORES + count))
    return NORMAL_90 * (1.0 + 1.0 / (_PRIOR_SCORES + count)) * max(spread, 1.0)
