"""What a cost model answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERAGE = 0.9
"""The share of what would be measured that a prediction's interval holds."""

# Two-sided 90 % quantile of the standard normal distribution.
_NORMAL_90 = 1.645
_PRIOR_SCORES = 4.0


@dataclass(frozen=True)
class Prediction:
    """A predicted latency with its 90 % interval."""

    latency_ms: float
    low_ms: float
    high_ms: float


def interval_width(scores: NDArray[np.float64]) -> float:
    """How many predicted standard deviations hold 90 % of what would be measured.

    Args:
        scores: (n,) held-out residuals in units of their predicted standard deviations.

    From 9 residuals on it is their conformal quantile (Vovk et al., Algorithmic learning in a random world, 2005; on
    normalised leave-one-out residuals: Barber et al., Predictive inference with the jackknife+, 2021). Fewer leave no
    residual beyond the 90th percentile: then the normal distribution's, widened as far as they ask for it.
    """
    count = len(scores)
    rank = math.ceil((count + 1) * COVERAGE)
    if rank <= count:
        return float(np.sort(np.abs(scores))[rank - 1])
    spread = math.sqrt((_PRIOR_SCORES + float((scores**2).sum())) / (_PRIOR_SCORES + count))
    return _NORMAL_90 * (1.0 + 1.0 / (_PRIOR_SCORES + count)) * max(spread, 1.0)
