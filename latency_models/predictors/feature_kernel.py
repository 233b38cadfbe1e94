"""The kernel of `feature_model`: the covariance between the latencies of two architectures, and its likelihood.

Features come in named groups (counts of operators, one-hots of choices, …). The covariance is a sum of one
linear kernel for each group, weighted by how much of the latency the group explains, and one smooth
kernel over all of them for what isn't additive. Weights and scales are the model's hyper-parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# The weight of the constant: the mean of the standardised latencies is as good as unknown.
_CONSTANT = 10.0
# A floor under every noise variance, so that exact tables can be inverted.
JITTER = 1e-6
_ROUNDING = 1e-11
# Log-normal priors (median, spread of the logarithm). Few groups are expected to matter, hence the wide one.
_LINEAR, _INVERSE_SCALE, _SMOOTH, _NOISE = (0.1, 1.5), (0.5, 1.0), (0.3, 1.0), (0.1, 1.0)
# A weight that leaves a group out.
_NEGLIGIBLE = 0.03
_LOWEST, _HIGHEST = -7.0, 4.0


@dataclass(frozen=True)
class FeatureGroup:
    """Adjacent columns of a feature matrix with the same kind of meaning.

    `weight` is how much they count in the choice of networks to measure: below 1 for fine details of other groups,
    because a few networks can't cover all details anyway.
    """

    name: str
    columns: int
    weight: float = 1.0


class Scaling:
    """Scales columns to zero mean and unit variance, and each group by the inverse root of its size.

    `mean` and `deviation` are (d,).
    """

    def __init__(self, groups: Sequence[FeatureGroup], mean: np.ndarray, deviation: np.ndarray) -> None:
        self.groups, self.mean, self.deviation = tuple(groups), mean, deviation
        sizes = [group.columns for group in groups]
        self._divisor = deviation * np.sqrt(np.repeat(sizes, sizes))

    @classmethod
    def of(cls, sample: np.ndarray, groups: Sequence[FeatureGroup]) -> Scaling:
        """The scaling that fits a sample (n, d). A column that is constant there keeps its unit."""
        deviation = sample.std(axis=0)
        return cls(groups, sample.mean(axis=0), np.where(deviation > 1e-12, deviation, 1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scale features (n, d)."""
        return np.asarray((features - self.mean) / self._divisor)


@dataclass(frozen=True)
class Similarity:
    """Inner products and half squared distances between n scaled architectures, (groups, n, n) each."""

    linear: np.ndarray
    distance: np.ndarray

    @classmethod
    def of(cls, scaled: np.ndarray, groups: Sequence[FeatureGroup]) -> Similarity:
        """The similarity of the rows of (n, d) with each other."""
        blocks = np.split(scaled, np.cumsum([group.columns for group in groups])[:-1], axis=1)
        linear = np.stack([block @ block.T for block in blocks])
        squared = np.diagonal(linear, axis1=1, axis2=2) / 2
        return cls(linear, np.maximum(squared[:, :, None] + squared[:, None, :] - linear, 0.0))


class Kernel:
    """The covariance as a function of log hyper-parameters `theta`, (2 groups + 2,).

    They are a linear weight for each group, an inverse length for each group, the weight of the smooth part and the
    noise; weights and noise are standard deviations.
    """

    def __init__(self, groups: Sequence[FeatureGroup]) -> None:
        self.groups = len(groups)
        self._sizes = [group.columns for group in groups]
        priors = [_LINEAR] * self.groups + [_INVERSE_SCALE] * self.groups + [_SMOOTH, _NOISE]
        self._centre = np.log([median for median, _ in priors])
        self._spread = np.array([spread for _, spread in priors])

    @property
    def start(self) -> np.ndarray:
        """The medians of the prior."""
        return self._centre.copy()

    @property
    def starts(self) -> list[np.ndarray]:
        """Starting points of a search for the likeliest ones: `start`, and each group in turn explaining all."""
        alone = [self.start for _ in range(self.groups)]
        for group, theta in enumerate(alone):
            theta[: self.groups] = np.log(_NEGLIGIBLE)
            theta[group] = 0.0
        return [self.start, *alone]

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Lower and upper limit of each hyper-parameter."""
        return [(_LOWEST, _HIGHEST)] * len(self._centre)

    def covariance(self, theta: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Covariances (n, m) of scaled architectures (n, d) and (m, d), without noise."""
        weights, scales = self._by_column(theta)
        near = left * scales
        squared = ((near**2).sum(axis=1) / 2)[:, None] + (((right * scales) ** 2).sum(axis=1) / 2)[None, :]
        smooth = np.minimum(near @ (right * scales).T - squared, 0.0)
        smooth += 2 * theta[-2]
        np.exp(smooth, out=smooth)
        smooth += (left * weights**2) @ right.T
        return np.asarray(smooth + _CONSTANT)

    def variance(self, theta: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """Prior variances (n,) of scaled architectures (n, d): the diagonal of their covariance."""
        weights, _ = self._by_column(theta)
        return np.asarray(((scaled * weights) ** 2).sum(axis=1) + np.exp(2 * theta[-2]) + _CONSTANT)

    def _by_column(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Linear weight (d,) and inverse length (d,) of each column."""
        by_group = np.exp(theta[: 2 * self.groups])
        return np.repeat(by_group[: self.groups], self._sizes), np.repeat(by_group[self.groups :], self._sizes)

    def loss(
        self, theta: np.ndarray, similarity: Similarity, target: np.ndarray, noise: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Negative log posterior of the hyper-parameters up to a constant, and its gradient.

        `target` (n,) is standardised, `noise` (n,) multiplies the noise variance of each measurement.
        """
        weights, scales = np.exp(2 * theta[: self.groups]), np.exp(2 * theta[self.groups : 2 * self.groups])
        smooth = np.exp(2 * theta[-2] - np.tensordot(scales, similarity.distance, 1))
        own = np.exp(2 * theta[-1]) * noise
        full = np.tensordot(weights, similarity.linear, 1) + smooth + _CONSTANT
        inverse, log_determinant = invert(full + np.diag(own + JITTER))
        solved = inverse @ target
        surplus = inverse - np.outer(solved, solved)
        gradient = np.concatenate(
            [
                weights * np.tensordot(similarity.linear, surplus, 2),
                -scales * np.tensordot(similarity.distance, surplus * smooth, 2),
                [np.sum(surplus * smooth), np.sum(np.diag(surplus) * own)],
            ]
        )
        off = (theta - self._centre) / self._spread
        loss = 0.5 * float(target @ solved) + 0.5 * log_determinant + 0.5 * float(off @ off)
        return loss, gradient + off / self._spread


def invert(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Inverse and log-determinant of a covariance, with a diagonal raised by the size of rounding errors."""
    from scipy.linalg.lapack import dpotrf, dpotri

    raised = matrix + np.eye(len(matrix)) * (_ROUNDING * float(np.diag(matrix).max()))
    factor, failed = dpotrf(raised, lower=1)
    if failed:
        raise np.linalg.LinAlgError(f"leading minor {failed} of a covariance is not positive")
    inverse, _ = dpotri(factor, lower=1)
    log_determinant = 2 * float(np.log(np.diag(factor)).sum())
    # LAPACK fills in one triangle alone.
    return np.tril(inverse) + np.tril(inverse, -1).T, log_determinant
