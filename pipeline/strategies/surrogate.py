"""A Gaussian process over architectures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from pipeline.strategies.features import Features, Single

Array = npt.NDArray[np.float64]

_NOISE_FLOOR = 1e-3  # of the variance 1 of what is learnt: keeps factors of twins' covariances exact enough
_FIT_STEPS = 15
_FIT_MOST = 400  # observations that hyper-parameters are fitted to: their cost grows with the cube
_LINEAR_PRIOR, _NOISE_PRIOR = 0.1, 0.05


class Surrogate:
    """A Gaussian process with the kernel s·exp(−Σ_g θ_g |x_g − x′_g|²) + l·x·x′ + noise over groups g of features.

    Hyper-parameters are maximum-a-posteriori estimates. Their priors are log-normal, with a factor e (scale s: √e) as
    standard deviation. A priori a group's weight θ is one over the number of groups, so that architectures that differ
    in half of everything have a correlation of about 1/e. With eight trials the prior decides.

    *Rasmussen & Williams, Gaussian processes for machine learning, 2006, chapters 2 and 5.*

    Attributes:
        values: logarithms of the groups' weights, the scale, the linear part's weight and the noise variance.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes, self._ends = sizes, np.cumsum(sizes)
        groups = len(sizes)
        weights = [-math.log(groups)] * groups
        self._prior_mean = np.array([*weights, 0.0, math.log(_LINEAR_PRIOR), math.log(_NOISE_PRIOR)])
        self._prior_sd = np.array([1.0] * groups + [0.5, 1.0, 1.0])
        self.values: Array = self._prior_mean.copy()

    def fit(self, seen: Features, y: Array) -> None:
        """Fit the hyper-parameters to observations `y` (n,) of mean 0 and variance 1, from the present ones on."""
        if len(y) > _FIT_MOST:
            rows = np.linspace(0, len(y) - 1, _FIT_MOST).astype(np.int64)
            seen, y = seen.take(rows), y[rows]
        x, linear = seen.x.astype(np.float64), seen.linear.astype(np.float64)
        distances = np.array([_squared_distances(part, part) for part in np.split(x, self._ends[:-1], axis=1)])
        low, high = self._prior_mean - 4 * self._prior_sd, self._prior_mean + 4 * self._prior_sd
        found = minimize(
            self.loss,
            self.values,
            args=(distances, linear @ linear.T, y),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": _FIT_STEPS},
        )
        self.values = found.x

    def loss(self, values: Array, distances: Array, products: Array, y: Array) -> tuple[float, Array]:
        """Negative log posterior density of hyper-parameters, up to a constant, and its gradient.

        Args:
            values: hyper-parameters as in the attribute.
            distances: (groups, n, n), squared.
            products: (n, n), of the linear part's inputs.
            y: (n,), observations.
        """
        groups, n = len(self._sizes), len(y)
        theta, (scale, linear, noise) = np.exp(values[:groups]), np.exp(values[groups:])
        correlation = np.exp(-np.tensordot(theta, distances, 1))
        k = scale * correlation + linear * products
        k[np.diag_indices(n)] += noise + _NOISE_FLOOR
        try:
            lower = cholesky(k, lower=True, check_finite=False)
        except np.linalg.LinAlgError:  # the search steps back from such values
            return 1e10, np.zeros_like(values)
        inverse = cho_solve((lower, True), np.eye(n), check_finite=False)
        alpha = inverse @ y
        w = inverse - np.outer(alpha, alpha)
        gradient = np.empty_like(values)
        gradient[:groups] = -theta * (distances.reshape(groups, -1) @ (scale * correlation * w).ravel())
        gradient[groups:] = scale * np.vdot(w, correlation), linear * np.vdot(w, products), noise * np.trace(w)
        z = (values - self._prior_mean) / self._prior_sd
        loss = 0.5 * y @ alpha + np.log(np.diag(lower)).sum() + 0.5 * z @ z
        return float(loss), 0.5 * gradient + z / self._prior_sd

    def scaled(self, features: Features) -> Features:
        """Features times the roots of their groups' weights, so that one product gives all distances."""
        theta = np.exp(0.5 * self.values[: len(self._sizes)]).astype(np.float32)
        return Features(features.x * np.repeat(theta, self._sizes), features.linear)

    def covariance(self, first: Features, second: Features) -> Single:
        """Covariances of scaled features, shape (n, m), without noise."""
        scale, linear = np.exp(self.values[len(self._sizes) : -1]).astype(np.float32)
        k: Single = _squared_distances(first.x, second.x)
        np.negative(k, out=k)
        np.exp(k, out=k)
        k *= scale
        products = first.linear @ second.linear.T
        products *= linear
        k += products
        return k

    def prior_variance(self, features: Features) -> Array:
        """Prior variances, shape (n,), without noise."""
        scale, linear = np.exp(self.values[len(self._sizes) : -1])
        own: Array = scale + linear * np.einsum("ij,ij->i", features.linear, features.linear, dtype=np.float64)
        return own

    @property
    def noise(self) -> float:
        """Variance of the observations' noise."""
        return float(np.exp(self.values[-1])) + _NOISE_FLOOR


def _squared_distances(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    d = a @ b.T
    d *= -2
    d += np.einsum("ij,ij->i", a, a)[:, None]
    d += np.einsum("ij,ij->i", b, b)[None]
    return np.maximum(d, 0, out=d)
