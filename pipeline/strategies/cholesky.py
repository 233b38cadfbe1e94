"""The Cholesky factor of a Gaussian process's observations, which grows by rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

from pipeline.strategies.features import Features

if TYPE_CHECKING:
    from pipeline.strategies.features import Single
    from pipeline.strategies.surrogate import Array, Surrogate

_BLOCK = 512
_Scalar = TypeVar("_Scalar", np.float32, np.float64)


class CholeskyFactor:
    """The lower factor L of the observations' covariance K = LLᵀ, noise included, and L⁻¹y.

    It is kept in single precision, as blocks of rows that end at their diagonal: half of a square, and none of it is
    copied when a row is added. Of the first rows, corners are factored in double precision.

    Args:
        model: the process; its hyper-parameters must not change afterwards.
        seen: scaled features of the observations.
        y: (n,), the observations.
    """

    def __init__(self, model: Surrogate, seen: Features, y: Array) -> None:
        self._model, self._n = model, 0
        self._x, self._linear, self._weights = _Rows(seen.x), _Rows(seen.linear), _Rows(y)
        self._blocks: list[Single] = []
        for start in range(0, len(y), _BLOCK):
            end = min(start + _BLOCK, len(y))
            self._append_block(seen.take(np.arange(start, end)), y[start:end])

    def _append_block(self, seen: Features, y: Array) -> None:
        left, start, end = self.columns(seen).T.astype(np.float64), self._n, self._n + len(y)
        k = self._model.covariance(seen, seen).astype(np.float64)
        k[np.diag_indices(len(y))] += self._model.noise
        if start:
            k -= left @ left.T
            y = y - left @ self.weights
        corner = cholesky(k, lower=True, check_finite=False)
        block = self._new_block()
        block[: len(y), :start], block[: len(y), start:end] = left, corner
        self._n = end
        self.weights[start:] = solve_triangular(corner, y, lower=True, check_finite=False)

    def _new_block(self) -> Single:
        end = (len(self._blocks) + 1) * _BLOCK
        self._blocks.append(np.zeros((_BLOCK, end), dtype=np.float32))
        return self._blocks[-1]

    def __len__(self) -> int:
        """The number of observations."""
        return self._n

    @property
    def weights(self) -> Array:
        """L⁻¹y, shape (n,)."""
        return self._weights.first(self._n)

    def columns(self, scaled: Features) -> Single:
        """L⁻¹ times the covariances of the observations and of scaled features, shape (n, …)."""
        seen = Features(self._x.first(self._n), self._linear.first(self._n))
        solved = self._model.covariance(seen, scaled)
        for number, block in enumerate(self._blocks):
            start = number * _BLOCK
            end = min(start + _BLOCK, self._n)
            if start >= end:
                break
            if start:
                solved[start:end] -= block[: end - start, :start] @ solved[:start]
            corner = block[: end - start, start:end]
            solved[start:end] = solve_triangular(corner, solved[start:end], lower=True, check_finite=False)
        return solved

    def append(self, one: Features, prior: float, column: Single, y: float) -> float:
        """Add an observation of one architecture and return its pivot, the last entry of its row.

        Args:
            one: its scaled features.
            prior: its prior variance.
            column: (n,), its `columns`.
            y: what was observed.
        """
        exact, n = column.astype(np.float64), self._n
        pivot = math.sqrt(max(prior - float(exact @ exact), 1e-8) + self._model.noise)
        number, row = divmod(n, _BLOCK)
        block = self._blocks[number] if number < len(self._blocks) else self._new_block()
        block[row, :n], block[row, n] = column, pivot
        self._weights.put(n, (y - float(exact @ self.weights)) / pivot)
        self._x.put(n, one.x[0])
        self._linear.put(n, one.linear[0])
        self._n = n + 1
        return pivot

    def drop_last(self, count: int) -> None:
        """Forget the last observations."""
        self._n -= count


class _Rows(Generic[_Scalar]):
    """An array that grows by rows."""

    def __init__(self, values: npt.NDArray[_Scalar]) -> None:
        self._values: npt.NDArray[_Scalar] = values.copy()

    def first(self, count: int) -> npt.NDArray[_Scalar]:
        first: npt.NDArray[_Scalar] = self._values[:count]
        return first

    def put(self, row: int, value: npt.NDArray[np.floating] | float) -> None:
        if row == len(self._values):
            longer = np.empty((row + row // 8 + 16, *self._values.shape[1:]), dtype=self._values.dtype)
            longer[:row] = self._values
            self._values = longer
        self._values[row] = value
