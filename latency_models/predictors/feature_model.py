"""Latency of any architecture of a space from a few whole nets, where blocks can't be timed.

A Gaussian process (Rasmussen and Williams 2006) over features of the architecture. Latencies stay in
milliseconds, because the times of operators add up; the noise is proportional to the latency, as that of timers and
busy machines is, and has Student's t distribution, so that a disturbed measurement counts for little
(Lange, Little and Taylor 1989). Hyper-parameters maximise the marginal likelihood times a prior. Intervals are
conformal: held-out residuals in units of the predicted deviation tell how wide they have to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_models.errors import CostError
from latency_models.predictors.feature_kernel import JITTER, FeatureGroup, Kernel, Scaling, Similarity, invert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1
MINIMUM = 10
"""The least number of nets: fewer leave no held-out residual beyond the 90th percentile."""

_COVERAGE = 0.90
_DEGREES = 4.0
_ROUNDS = 3
_ITERATIONS = 40
# Of the log posterior: a difference of 1e-4 in it says nothing.
_TOLERANCE = 1e-6
_FOLDS = 10
_SEED = 0
# Noise proportional to the latency ends at a tenth of the typical one: a timer has a resolution.
_LEAST_SHARE = 0.1


class FeatureModelError(CostError):
    """Measurements or a document that no model can be made of."""


@dataclass(frozen=True)
class PredictedLatency:
    """Arrays (n,) in milliseconds; the intervals hold 90 % of what would be measured."""

    latency_ms: np.ndarray
    low_ms: np.ndarray
    high_ms: np.ndarray


class FeatureModel:
    """A fitted model; make one by `fit` or `from_dict`."""

    def __init__(
        self,
        scaling: Scaling,
        features: np.ndarray,
        latency_ms: np.ndarray,
        theta: np.ndarray,
        noise: np.ndarray,
        width: float = 1.0,
    ) -> None:
        """The model at hyper-parameters `theta`.

        `noise` (n,) multiplies each measurement's noise variance; an interval reaches `width` predicted deviations.
        """
        self._scaling, self._features, self._measured_ms = scaling, features, latency_ms
        self._theta, self._noise = theta, noise
        self._kernel = Kernel(scaling.groups)
        self._units = _Units(latency_ms)
        self._scaled = scaling(features)
        covariance = self._kernel.covariance(theta, self._scaled, self._scaled)
        self._own = math.exp(2 * theta[-1]) * noise
        self._inverse, _ = invert(covariance + np.diag(self._own + JITTER))
        self._solved = self._inverse @ self._units.standard(latency_ms)
        self.width = width

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        latency_ms: np.ndarray,
        groups: Sequence[FeatureGroup] | None = None,
        space: np.ndarray | None = None,
    ) -> FeatureModel:
        """Fit to whole nets.

        Args:
            features: (n, d). Counts (MACs, operators, parameters) go in as they are, not as logarithms:
                a latency is a sum over them.
            latency_ms: (n,), above 0.
            groups: what the columns mean; by default one group holds them all.
            space: (m, d), features of a sample of the space, which the columns are scaled by; by default the n nets.

        Raises:
            FeatureModelError: fewer than 10 nets, shapes that don't fit together, a latency that is no positive
                number, a feature that is no number.
        """
        features, latency_ms = np.asarray(features, dtype=float), np.asarray(latency_ms, dtype=float)
        sample = features if space is None else np.asarray(space, dtype=float)
        columns = features.shape[-1] if features.ndim else 0
        groups = tuple(groups) if groups else (FeatureGroup("features", columns),)
        _check(features, latency_ms, groups)
        _check_features(sample, columns, "the space's features")
        scaling = Scaling.of(sample, groups)
        theta, noise = _hyper_parameters(scaling, features, latency_ms, Kernel(groups).starts)
        return cls(scaling, features, latency_ms, theta, noise, _conformal_width(scaling, features, latency_ms))

    @property
    def measurements(self) -> int:
        """How many whole nets the model knows."""
        return len(self._measured_ms)

    def predict(self, features: np.ndarray) -> PredictedLatency:
        """Latencies of (n, d) with their 90 % intervals.

        Raises:
            FeatureModelError: other columns than the model was fitted to, or a feature that is no number.
        """
        features = np.asarray(features, dtype=float)
        _check_features(features, len(self._scaling.mean), "the features")
        mean, deviation = self._standard(features)
        reach, to_ms = self.width * deviation, self._units.milliseconds
        return PredictedLatency(to_ms(mean), to_ms(mean - reach), to_ms(mean + reach))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` gives the same model back."""
        return {
            "format": FORMAT,
            "groups": [[group.name, group.columns, group.weight] for group in self._scaling.groups],
            "mean": self._scaling.mean.tolist(),
            "deviation": self._scaling.deviation.tolist(),
            "features": self._features.tolist(),
            "latency_ms": self._measured_ms.tolist(),
            "theta": self._theta.tolist(),
            "noise": self._noise.tolist(),
            "width": self.width,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FeatureModel:
        """The model that `as_dict` wrote.

        Raises:
            FeatureModelError: a document of another format, or a damaged one.
        """
        if document.get("format") != FORMAT:
            raise FeatureModelError(
                f"a feature model of format {document.get('format')!r}; this version reads {FORMAT}"
            )
        try:
            groups = tuple(
                FeatureGroup(str(name), int(columns), float(weight)) for name, columns, weight in document["groups"]
            )
            width = float(document["width"])
            names = ("mean", "deviation", "features", "latency_ms", "theta", "noise")
            mean, deviation, features, latency_ms, theta, noise = (np.array(document[name], float) for name in names)
        except (LookupError, TypeError, ValueError) as error:
            raise FeatureModelError(f"a damaged feature model ({type(error).__name__}: {error})") from error
        _check(features, latency_ms, groups)
        wanted = [(features.shape[1],), (features.shape[1],), (2 * len(groups) + 2,), latency_ms.shape]
        numbers = (mean, deviation, theta, noise)
        if [array.shape for array in numbers] != wanted or not all(np.isfinite(array).all() for array in numbers):
            raise FeatureModelError("a damaged feature model (numbers missing, too many, or none)")
        if not (deviation > 0).all() or not (noise > 0).all() or np.abs(theta).max() > 10 or not 0 < width < math.inf:
            raise FeatureModelError("a damaged feature model (a scale that is not above 0)")
        return cls(Scaling(groups, mean, deviation), features, latency_ms, theta, noise, width)

    def _standard(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, d) → mean (n,) and deviation (n,) of a new measurement, in standard units."""
        scaled = self._scaling(features)
        shared = self._kernel.covariance(self._theta, scaled, self._scaled)
        mean = shared @ self._solved
        explained = np.einsum("ij,ij->i", shared @ self._inverse, shared)
        latent = np.maximum(self._kernel.variance(self._theta, scaled) - explained, 0.0)
        return mean, np.sqrt(latent + math.exp(2 * self._theta[-1]) * self._units.proportional(mean))

    def _scores(self, features: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
        """(n,): by how many predicted deviations each measurement is off."""
        mean, deviation = self._standard(features)
        return np.asarray(np.abs(self._units.standard(latency_ms) - mean) / deviation)


def _conformal_width(scaling: Scaling, features: np.ndarray, latency_ms: np.ndarray) -> float:
    """How many predicted deviations hold 90 % of held-out measurements, corrected for their number.

    Cross-conformal (Vovk 2015) on normalised residuals of ten folds. Each fold's hyper-parameters are searched for
    anew: with few nets they are most of what is uncertain, and intervals that take them as known are too narrow.
    """
    start = Kernel(scaling.groups).start
    order = np.random.default_rng(_SEED).permutation(len(latency_ms))
    scores = []
    for held_out in np.array_split(order, _FOLDS):
        rest = np.setdiff1d(order, held_out)
        found = _hyper_parameters(scaling, features[rest], latency_ms[rest], (start,))
        model = FeatureModel(scaling, features[rest], latency_ms[rest], *found)
        scores.append(model._scores(features[held_out], latency_ms[held_out]))
    ordered = np.sort(np.concatenate(scores))
    return float(ordered[math.ceil((len(ordered) + 1) * _COVERAGE) - 1])


class _Units:
    """Milliseconds ↔ the standardised latencies that the Gaussian process sees."""

    def __init__(self, latency_ms: np.ndarray) -> None:
        self.typical = math.exp(float(np.log(latency_ms).mean()))
        relative = latency_ms / self.typical
        self._centre, self._spread = float(np.median(relative)), float(relative.std()) or 1.0
        self._floor_ms = float(latency_ms.min()) / 2

    def standard(self, latency_ms: np.ndarray) -> np.ndarray:
        return np.asarray((latency_ms / self.typical - self._centre) / self._spread)

    def milliseconds(self, standard: np.ndarray) -> np.ndarray:
        """Positive and in order: below half of the least measured latency the line bends into a hyperbola."""
        straight = (standard * self._spread + self._centre) * self.typical
        below = np.minimum(straight / self._floor_ms - 1.0, 0.0)
        return np.where(below < 0, self._floor_ms / (1.0 - below), straight)

    def proportional(self, standard: np.ndarray) -> np.ndarray:
        """What a noise that is proportional to the latency multiplies its variance by."""
        return np.maximum(self.milliseconds(standard) / self.typical, _LEAST_SHARE) ** 2


def _hyper_parameters(
    scaling: Scaling, features: np.ndarray, latency_ms: np.ndarray, starts: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest hyper-parameters and what multiplies each measurement's noise variance, in turns.

    The best of several `starts` goes on.
    """
    kernel, units = Kernel(scaling.groups), _Units(latency_ms)
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
    """(n,) and (n,): what the fit leaves of each measurement, and the variance of that."""
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
