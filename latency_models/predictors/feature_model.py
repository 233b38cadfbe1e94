"""The latency of any architecture of a space, predicted from a few whole networks where blocks can't be timed.

A Gaussian process (Rasmussen and Williams 2006) over features of the architecture. Latencies stay in
milliseconds, because the times of operators add up; the noise is proportional to the latency, as that of timers and
busy machines is, and has Student's t distribution, so that a disturbed measurement counts for little
(Lange, Little and Taylor 1989). Hyper-parameters maximise the marginal likelihood times a prior. Intervals are
conformal: their width follows from held-out residuals in units of the predicted deviation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.errors import CostError
from latency_models.predictors.feature_kernel import JITTER, FeatureGroup, Kernel, Scaling, Similarity, invert
from latency_models.predictors.prediction import interval_width

if TYPE_CHECKING:
    from collections.abc import Sequence

MINIMUM = 10
"""The least number of networks: fewer leave no held-out residual beyond the 90th percentile."""

_DEGREES = 4.0
_ROUNDS = 3
_ITERATIONS = 40
_TOLERANCE = 1e-6  # of the log posterior, where a difference of 1e-4 means nothing
_FOLDS = 10
_SEED = 0
# Noise proportional to the latency ends at a tenth of the typical one: a timer has a resolution.
_LEAST_SHARE = 0.1


class FeatureModelError(CostError):
    """The measurements don't make a model."""


@dataclass(frozen=True)
class PredictedLatency:
    """Predicted latencies with their 90 % intervals, arrays (n,) in milliseconds."""

    latency_ms: np.ndarray
    low_ms: np.ndarray
    high_ms: np.ndarray


class FeatureModel:
    """A fitted model, made by `fit`; `width` is half of an interval in predicted deviations."""

    def __init__(
        self,
        scaling: Scaling,
        features: np.ndarray,
        latency_ms: np.ndarray,
        theta: np.ndarray,
        noise: np.ndarray,
        width: float = 1.0,
    ) -> None:
        """The model at hyper-parameters `theta`; `noise` (n,) multiplies each measurement's noise variance."""
        self.scaling, self.theta, self.noise = scaling, theta, noise
        self._kernel = Kernel(scaling.groups)
        self._units = LatencyUnits(latency_ms)
        self._scaled = scaling(features)
        covariance = self._kernel.covariance(theta, self._scaled, self._scaled)
        own = math.exp(2 * theta[-1]) * noise
        self._inverse, _ = invert(covariance + np.diag(own + JITTER))
        self._solved = self._inverse @ self._units.standard(latency_ms)
        self.width = width

    @classmethod
    def fit(
        cls, features: np.ndarray, latency_ms: np.ndarray, groups: Sequence[FeatureGroup] | None = None
    ) -> FeatureModel:
        """Fit to whole networks.

        Args:
            features: (n, d). Counts (MACs, operators, parameters) go in as they are, not as logarithms:
                a latency is a sum over them.
            latency_ms: (n,), above 0.
            groups: what the columns mean; by default one group holds them all.

        Raises:
            FeatureModelError: fewer than 10 networks, shapes that don't fit together, a latency that is no positive
                number, a feature that is no number.
        """
        features, latency_ms = np.asarray(features, dtype=float), np.asarray(latency_ms, dtype=float)
        columns = features.shape[-1] if features.ndim else 0
        groups = tuple(groups) if groups else (FeatureGroup("features", columns),)
        _check(features, latency_ms, groups)
        scaling = Scaling.of(features, groups)
        theta, noise = _hyper_parameters(scaling, features, latency_ms, Kernel(groups).starts)
        return cls(scaling, features, latency_ms, theta, noise, _conformal_width(scaling, features, latency_ms))

    def predict(self, features: np.ndarray) -> PredictedLatency:
        """Predict the latencies of architectures with features (n, d).

        Raises:
            FeatureModelError: another number of columns than in `fit`, or a feature that is no number.
        """
        features = np.asarray(features, dtype=float)
        _check_features(features, len(self.scaling.mean), "the features")
        mean, deviation = self._standard(features)
        reach, to_ms = self.width * deviation, self._units.milliseconds
        return PredictedLatency(to_ms(mean), to_ms(mean - reach), to_ms(mean + reach))

    def _standard(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and deviation (n,) of new measurements at features (n, d), in standard units."""
        scaled = self.scaling(features)
        shared = self._kernel.covariance(self.theta, scaled, self._scaled)
        mean = shared @ self._solved
        explained = np.einsum("ij,ij->i", shared @ self._inverse, shared)
        latent = np.maximum(self._kernel.variance(self.theta, scaled) - explained, 0.0)
        return mean, np.sqrt(latent + math.exp(2 * self.theta[-1]) * self._units.proportional(mean))

    def _scores(self, features: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
        """Residuals (n,) of new measurements in predicted deviations."""
        mean, deviation = self._standard(features)
        return np.asarray(np.abs(self._units.standard(latency_ms) - mean) / deviation)


def _conformal_width(scaling: Scaling, features: np.ndarray, latency_ms: np.ndarray) -> float:
    """Half of the 90 % interval, in predicted deviations, from the residuals of ten folds.

    Cross-conformal (Vovk 2015). Each fold searches for hyper-parameters of its own: with few networks they are most of
    the uncertainty, and intervals that take them as known are too narrow.
    """
    start = Kernel(scaling.groups).start
    order = np.random.default_rng(_SEED).permutation(len(latency_ms))
    scores = []
    for held_out in np.array_split(order, _FOLDS):
        rest = np.setdiff1d(order, held_out)
        found = _hyper_parameters(scaling, features[rest], latency_ms[rest], (start,))
        model = FeatureModel(scaling, features[rest], latency_ms[rest], *found)
        scores.append(model._scores(features[held_out], latency_ms[held_out]))
    return interval_width(np.concatenate(scores))


class LatencyUnits:
    """Converts milliseconds to the standardised latencies of the Gaussian process, and back."""

    def __init__(self, latency_ms: np.ndarray) -> None:
        self.typical = math.exp(float(np.log(latency_ms).mean()))
        relative = latency_ms / self.typical
        self._centre, self._spread = float(np.median(relative)), float(relative.std()) or 1.0
        self._floor_ms = float(latency_ms.min()) / 2

    def standard(self, latency_ms: np.ndarray) -> np.ndarray:
        """Standardised latencies (n,)."""
        return np.asarray((latency_ms / self.typical - self._centre) / self._spread)

    def milliseconds(self, standard: np.ndarray) -> np.ndarray:
        """Latencies (n,), always positive: below half of the least measured one the line bends into a hyperbola."""
        straight = (standard * self._spread + self._centre) * self.typical
        below = np.minimum(straight / self._floor_ms - 1.0, 0.0)
        return np.where(below < 0, self._floor_ms / (1.0 - below), straight)

    def proportional(self, standard: np.ndarray) -> np.ndarray:
        """Factors (n,) of a noise variance that is proportional to the squared latency."""
        return np.maximum(self.milliseconds(standard) / self.typical, _LEAST_SHARE) ** 2


def _hyper_parameters(
    scaling: Scaling, features: np.ndarray, latency_ms: np.ndarray, starts: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest hyper-parameters, and a factor (n,) of each measurement's noise variance; fitted in turns."""
    kernel, units = Kernel(scaling.groups), LatencyUnits(latency_ms)
    scaled, target = scaling(features), units.standard(latency_ms)
    similarity = Similarity.of(scaled, scaling.groups)
    noise = units.proportional(target)
    for _ in range(_ROUNDS):
        found = [_descended(kernel, start, similarity, target, noise) for start in starts]
        theta = min(found, key=lambda pair: pair[0])[1]
        starts = (theta,)
        residual, uncertainty = _residuals(kernel, theta, scaled, target, noise)
        proportional = units.proportional(target - residual)
        surprise = (residual**2 + uncertainty) / (math.exp(2 * theta[-1]) * proportional)
        noise = proportional * (_DEGREES + surprise) / (_DEGREES + 1)
    return theta, noise


def _descended(
    kernel: Kernel, start: np.ndarray, similarity: Similarity, target: np.ndarray, noise: np.ndarray
) -> tuple[float, np.ndarray]:
    """Loss and hyper-parameters of the minimum near `start`."""
    from scipy.optimize import minimize

    found = minimize(
        kernel.loss,
        start,
        (similarity, target, noise),
        method="L-BFGS-B",
        jac=True,
        bounds=kernel.bounds,
        options={"maxiter": _ITERATIONS, "ftol": _TOLERANCE},
    )
    return float(found.fun), np.asarray(found.x)


def _residuals(
    kernel: Kernel, theta: np.ndarray, scaled: np.ndarray, target: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (n,) of the fit, and their variances (n,)."""
    own = math.exp(2 * theta[-1]) * noise
    inverse, _ = invert(kernel.covariance(theta, scaled, scaled) + np.diag(own + JITTER))
    return own * (inverse @ target), np.maximum(own - own**2 * np.diag(inverse), 0.0)


def _check(features: np.ndarray, latency_ms: np.ndarray, groups: Sequence[FeatureGroup]) -> None:
    columns = sum(group.columns for group in groups)
    _check_features(features, columns, "the features")
    if latency_ms.shape != features.shape[:1]:
        raise FeatureModelError(f"latencies of shape {latency_ms.shape} for {len(features)} nets")
    if len(features) < MINIMUM:
        raise FeatureModelError(f"{len(features)} measured nets; a feature model needs at least {MINIMUM}")
    if not (np.isfinite(latency_ms) & (latency_ms > 0)).all():
        raise FeatureModelError("a latency that is not a number above 0")


def _check_features(features: np.ndarray, columns: int, what: str) -> None:
    if features.ndim != 2 or features.shape[1] != columns or not columns:
        raise FeatureModelError(f"{what} have the shape {features.shape}; a row of {columns} for each net is needed")
    if not np.isfinite(features).all():
        raise FeatureModelError(f"{what} hold a value that is not a number")
