"""The posterior of a Gaussian process over a pool of candidates that comes and goes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.strategies.cholesky import CholeskyFactor
from pipeline.strategies.features import Features

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.strategies.features import Single
    from pipeline.strategies.surrogate import Array, Surrogate

    Places = npt.NDArray[np.int64]

_ROOM = 1.25  # observations that may come before the next fit, which begins anew
_BLOCK = 512  # candidates that are computed at a time

ALL_FOLLOWED = 500
"""Up to so many observations all candidates follow every one of them."""
FOLLOWED, LEADING = 1500, 750
"""How many candidates follow later ones, and how many of the best are among them whenever they are ranked."""


class Posterior(ABC):
    """Posterior mean and variance over a pool, updated for single observations and for changes of the pool.

    An update costs O(n) a candidate: the Cholesky factor L of the n observations' covariance grows by a row, and so
    does L⁻¹ times their covariance with the candidate, which is kept.

    Args:
        model: the process; its hyper-parameters must not change afterwards.
        seen: features of the observations.
        y: (n,), the observations.

    Attributes:
        mean: (pool,), of the process without noise.
        variance: (pool,), likewise.
    """

    mean: Array
    variance: Array

    def __init__(self, model: Surrogate, seen: Features, y: Array) -> None:
        self._model, self._fantasies = model, 0
        self._factor = CholeskyFactor(model, model.scaled(seen), y)

    @staticmethod
    def of(model: Surrogate, pool: Features, seen: Features, y: Array, ranking: Places | None = None) -> Posterior:
        """Condition a model on observations.

        Args:
            model: as for the class.
            pool: features of the candidates.
            seen: as for the class.
            y: as for the class.
            ranking: rows of the pool, the best candidates first; by default as they come.
        """
        if len(y) <= ALL_FOLLOWED:
            return FullPosterior(model, pool, seen, y)
        return PartialPosterior(model, pool, seen, y, np.arange(len(pool)) if ranking is None else ranking)

    def at(self, features: Features) -> Array:
        """Posterior mean at any features, shape (…,)."""
        mean: Array = self._factor.weights @ self._factor.columns(self._model.scaled(features)).astype(np.float64)
        return mean

    def add(self, features: Features, y: float) -> None:
        """Add an observation of one architecture."""
        one = self._model.scaled(features)
        column = self._factor.columns(one)[:, 0]
        pivot = self._factor.append(one, float(self._model.prior_variance(features)[0]), column, y)
        self._update(one, column, pivot)

    @abstractmethod
    def _update(self, one: Features, column: Single, pivot: float) -> None:
        """Follow the factor's last row: scaled features, `CholeskyFactor.columns` and pivot of its observation."""

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
            self._drop_last(self._fantasies)
            self._fantasies = 0

    @abstractmethod
    def _drop_last(self, count: int) -> None:
        """Forget the last observations."""

    @abstractmethod
    def replace(self, kept: Places, pool: Features, ranking: Places) -> None:
        """Change the pool to its `kept` rows and then fresh candidates, which know of all observations so far.

        Args:
            kept: rows of the pool as it was.
            pool: features of the pool as it is now.
            ranking: rows of the pool as it is now, the best of the kept candidates first.
        """

    @abstractmethod
    def follow_best(self, ranking: Places, pool: Features) -> None:
        """Let the best candidates of a ranking know of all observations, from now on."""


class FullPosterior(Posterior):
    """A posterior of which all candidates follow every observation."""

    def __init__(self, model: Surrogate, pool: Features, seen: Features, y: Array) -> None:
        super().__init__(model, seen, y)
        self._pool, self._prior = model.scaled(pool), model.prior_variance(pool)
        self._v = np.empty((math.ceil(_ROOM * len(y)) + 64, len(pool)), dtype=np.float32)
        self._v[: len(y)] = self._factor.columns(self._pool)
        self._sum_up()

    def _sum_up(self) -> None:
        v = self._v[: len(self._factor)]
        self.mean = (self._factor.weights.astype(np.float32) @ v).astype(np.float64)
        self.variance = self._prior - np.einsum("ij,ij->j", v, v)

    def _update(self, one: Features, column: Single, pivot: float) -> None:
        n = len(column)
        if n == len(self._v):
            self._v = np.vstack([self._v, np.empty_like(self._v)])
        k = self._model.covariance(one, self._pool)[0]
        new = (k - column @ self._v[:n]) / np.float32(pivot)
        self._v[n] = new
        self.mean = self.mean + self._factor.weights[-1] * new
        self.variance = self.variance - new * new

    def _drop_last(self, count: int) -> None:
        self._factor.drop_last(count)
        self._sum_up()

    def replace(self, kept: Places, pool: Features, ranking: Places) -> None:
        n, fresh = len(self._factor), pool.take(np.arange(len(kept), len(pool)))
        scaled = self._model.scaled(fresh)
        old, self._v = self._v[:n], np.empty((len(self._v), len(pool)), dtype=np.float32)
        for row, values in enumerate(old):  # row by row: a copy of all of them would be as large again
            np.take(values, kept, out=self._v[row, : len(kept)], mode="clip")
        self._v[:n, len(kept) :] = self._factor.columns(scaled)
        self._pool = self._pool.take(kept).joined(scaled)
        self._prior = np.concatenate([self._prior[kept], self._model.prior_variance(fresh)])
        self._sum_up()

    def follow_best(self, ranking: Places, pool: Features) -> None:
        """Nothing is to do: all follow."""


class PartialPosterior(Posterior):
    """A posterior of which `FOLLOWED` candidates follow the observations, those ranked best.

    The others stay as they were, their variance as large as it was, so that none is underrated, until they are ranked
    among the best `LEADING` or the model is fitted again.
    """

    def __init__(self, model: Surrogate, pool: Features, seen: Features, y: Array, ranking: Places) -> None:
        super().__init__(model, seen, y)
        self._store = _Followed(pool, math.ceil(_ROOM * len(y)) + 64, FOLLOWED)
        self.mean, self.variance = np.empty(len(pool)), np.empty(len(pool))
        followed = ranking[:FOLLOWED]
        self._follow(followed, pool.take(followed))
        rest = np.setdiff1d(np.arange(len(pool)), followed)
        for rows in np.split(rest, range(_BLOCK, len(rest), _BLOCK)):
            self._compute(rows, pool.take(rows))

    def _compute(self, rows: Places, features: Features) -> tuple[Features, Single]:
        """Set mean and variance of some candidates; return their scaled features and columns."""
        scaled = self._model.scaled(features)
        columns = self._factor.columns(scaled)
        self.mean[rows] = self._factor.weights.astype(np.float32) @ columns
        self.variance[rows] = self._model.prior_variance(features) - np.einsum("ij,ij->j", columns, columns)
        return scaled, columns

    def _follow(self, rows: Places, features: Features) -> None:
        """Compute candidates, for which there are free places, and keep what their next updates need."""
        for part in np.split(np.arange(len(rows)), range(_BLOCK, len(rows), _BLOCK)):
            self._store.put(rows[part], *self._compute(rows[part], features.take(part)))

    def _update(self, one: Features, column: Single, pivot: float) -> None:
        k = self._model.covariance(one, self._store.features)[0]
        self._shift(self._store.append(k, column, pivot), 1.0)

    def _shift(self, step: Single, sign: float) -> None:
        rows, places = self._store.owners()
        own = step[places].astype(np.float64)
        self.mean, self.variance = self.mean.copy(), self.variance.copy()
        self.mean[rows] += sign * self._factor.weights[-1] * own
        self.variance[rows] -= sign * own * own

    def _drop_last(self, count: int) -> None:
        for _ in range(count):
            self._shift(self._store.drop_last(), -1.0)
            self._factor.drop_last(1)

    def replace(self, kept: Places, pool: Features, ranking: Places) -> None:
        fresh = np.arange(len(kept), len(pool))
        self.mean = np.concatenate([self.mean[kept], np.empty(len(fresh))])
        self.variance = np.concatenate([self.variance[kept], np.empty(len(fresh))])
        self._store.renumber(kept)
        self.follow_best(ranking, pool)
        self._store.evict(len(fresh), ranking)
        self._follow(fresh, pool.take(fresh))

    def follow_best(self, ranking: Places, pool: Features) -> None:
        late = ranking[:LEADING]
        late = late[~np.isin(late, self._store.owners()[0])]
        if len(late):
            self._store.evict(len(late), ranking)
            self._follow(late, pool.take(late))


class _Followed:
    """The parts that updates need of the candidates that follow them: features and columns, each in a place of its own.

    Attributes:
        features: scaled, of all places.
    """

    def __init__(self, like: Features, room: int, places: int) -> None:
        self._n = 0
        self._owner = np.full(places, -1, dtype=np.int64)
        widths = like.x.shape[1], like.linear.shape[1]
        self.features = Features(*(np.zeros((places, width), dtype=np.float32) for width in widths))
        self._columns = np.zeros((places, room), dtype=np.float32)

    def owners(self) -> tuple[Places, Places]:
        """Rows of the pool that have a place, and the places."""
        places = np.flatnonzero(self._owner >= 0)
        return self._owner[places], places

    def renumber(self, kept: Places) -> None:
        """Follow a change of the pool to some of its rows; the places of the others are free."""
        now = np.full(max(int(kept.max(initial=-1)), int(self._owner.max(initial=-1))) + 2, -1, dtype=np.int64)
        now[kept] = np.arange(len(kept))
        self._owner = now[self._owner]  # the last entry is for free places

    def evict(self, count: int, ranking: Places) -> None:
        """Have at least so many free places, of the candidates that come last in a ranking if need be."""
        rows, places = self.owners()
        more = count - (len(self._owner) - len(places))
        if more > 0:
            rank = np.full(int(max(rows.max(), ranking.max())) + 1, len(ranking))
            rank[ranking] = np.arange(len(ranking))
            self._owner[places[np.argsort(rank[rows], kind="stable")[-more:]]] = -1

    def put(self, rows: Places, scaled: Features, columns: Single) -> None:
        """Give candidates free places; `columns` has a row for each observation."""
        places = np.flatnonzero(self._owner < 0)[: len(rows)]
        self._n = len(columns)
        self._owner[places] = rows
        self.features.x[places], self.features.linear[places] = scaled.x, scaled.linear
        self._columns[places, : self._n] = columns.T

    def append(self, covariances: Single, column: Single, pivot: float) -> Single:
        """Follow an observation: return the new entry of each place's column."""
        n = self._n
        if n == self._columns.shape[1]:
            self._columns = np.hstack([self._columns, np.zeros_like(self._columns)])
        new: Single = covariances - self._columns[:, :n] @ column
        new /= np.float32(pivot)
        self._columns[:, n] = new
        self._n = n + 1
        return new

    def drop_last(self) -> Single:
        """Forget the last observation: return the entries that it had."""
        self._n -= 1
        return self._columns[:, self._n]
