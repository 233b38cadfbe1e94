"""A Gaussian process over architectures, and its posterior over a pool of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from pipeline.strategies.features import Features, Single

if TYPE_CHECKING:
    from pipeline.strategies.features import Rows

Array = npt.NDArray[np.float64]

_NOISE_FLOOR = 1e-3  # of the variance 1 of what is learnt: keeps factors of twins' covariances exact enough
_ROOM = 1.25  # observations that may come before the next fit, which begins anew
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
        k: Single = np.exp(-_squared_distances(first.x, second.x))
        k *= scale
        k += linear * (first.linear @ second.linear.T)
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


class Posterior:
    """Posterior mean and variance over a pool, updated for single observations and for changes of the pool.

    An update costs O(n) a candidate: the Cholesky factor L of the n observations' covariance grows by a row, and so
    does L⁻¹ times their covariance with the pool; new candidates add columns to it.

    Attributes:
        mean: (pool,), of the process without noise.
        variance: (pool,), likewise.
    """

    def __init__(self, model: Surrogate, pool: Features, seen: Features, y: Array) -> None:
        """Condition the model on observations `y` (n,); its hyper-parameters must not change afterwards."""
        self._model = model
        self._pool, self._seen = model.scaled(pool), model.scaled(seen)
        self._prior = model.prior_variance(pool)
        self._n = n = len(y)
        k = model.covariance(self._seen, self._seen).astype(np.float64)
        k[np.diag_indices(n)] += model.noise
        room = math.ceil(_ROOM * n) + 64
        self._lower = np.zeros((room, room))
        self._lower[:n, :n] = cholesky(k, lower=True, check_finite=False)
        self._weights = np.zeros(room)
        self._weights[:n] = solve_triangular(self._lower[:n, :n], y, lower=True, check_finite=False)
        self._v = np.empty((room, len(pool)), dtype=np.float32)
        self._v[:n] = self._columns(self._pool)
        self._fantasies = 0
        self._sum_up()

    def _columns(self, scaled: Features) -> Single:
        """L⁻¹ times the covariances of observations and scaled features, shape (n, …)."""
        cross = self._model.covariance(self._seen, scaled)
        lower = self._lower[: self._n, : self._n].astype(np.float32)
        solved: Single = solve_triangular(lower, cross, lower=True, check_finite=False)
        return solved

    def _sum_up(self) -> None:
        v = self._v[: self._n]
        self.mean: Array = (self._weights[: self._n].astype(np.float32) @ v).astype(np.float64)
        self.variance: Array = self._prior - np.einsum("ij,ij->j", v, v)

    def at(self, features: Features) -> Array:
        """Posterior mean at any features, shape (…,)."""
        mean: Array = self._weights[: self._n] @ self._columns(self._model.scaled(features)).astype(np.float64)
        return mean

    def add(self, features: Features, y: float) -> None:
        """Add an observation of one architecture."""
        one, n = self._model.scaled(features), self._n
        if n == len(self._lower):
            self._grow()
        column = self._columns(one)[:, 0].astype(np.float64)
        variance = float(self._model.prior_variance(features)[0] - column @ column)
        pivot = math.sqrt(max(variance, 1e-8) + self._model.noise)
        self._lower[n, :n], self._lower[n, n] = column, pivot
        self._weights[n] = (y - column @ self._weights[:n]) / pivot
        k = self._model.covariance(one, self._pool)[0]
        new = (k - column.astype(np.float32) @ self._v[:n]) / np.float32(pivot)
        self._v[n] = new
        self._seen = self._seen.joined(one)
        self._n = n + 1
        self.mean = self.mean + self._weights[n] * new
        self.variance = self.variance - new * new

    def _grow(self) -> None:
        n = self._n
        lower = np.zeros((2 * n, 2 * n))
        lower[:n, :n] = self._lower
        self._lower = lower
        self._weights = np.concatenate([self._weights, np.zeros(n)])
        self._v = np.vstack([self._v, np.empty_like(self._v)])

    def fantasize(self, features: Features) -> float:
        """Take the posterior mean of one architecture as an observation, until `drop_fantasies`; return it.

        The "kriging believer" (Ginsbourger, Le Riche & Carraro, Kriging is well-suited to parallelize optimization,
        2010): the mean stays, the uncertainty around it shrinks.
        """
        mean = float(self.at(features)[0])
        self.add(features, mean)
        self._fantasies += 1
        return mean

    def drop_fantasies(self) -> None:
        """Forget the observations of `fantasize`."""
        if self._fantasies:
            self._n -= self._fantasies
            self._fantasies = 0
            self._seen = self._seen.take(np.arange(self._n))
            self._sum_up()

    def replace(self, kept: Rows, fresh: Features) -> None:
        """Change the pool to its `kept` rows and then fresh candidates."""
        scaled = self._model.scaled(fresh)
        columns = self._columns(scaled)
        old, stay = self._v[: self._n], np.flatnonzero(kept) if kept.dtype == np.bool_ else kept
        self._v = np.empty((len(self._lower), len(stay) + len(fresh)), dtype=np.float32)
        for row, values in enumerate(old):  # row by row: a copy of all of them would be as large again
            np.take(values, stay, out=self._v[row, : len(stay)], mode="clip")
        self._v[: self._n, len(stay) :] = columns
        self._pool = self._pool.take(kept).joined(scaled)
        self._prior = np.concatenate([self._prior[kept], self._model.prior_variance(fresh)])
        self._sum_up()
