"""A posterior over a pool that changes, against the textbook's formulas."""

import numpy as np
import pytest

from helpers.driven import flat
from helpers.processes import CODES, POOL, exact, model_of, truth
from pipeline.strategies.features import Features, Featurizer
from pipeline.strategies.integer_codes import IntegerEncoder
from pipeline.strategies.posterior import ALL_FOLLOWED, FOLLOWED, LEADING, Posterior
from pipeline.strategies.surrogate import Surrogate


class TestPosterior:
    rows = np.random.default_rng(1).choice(len(CODES), 150, replace=False)
    y = truth(rows) + np.random.default_rng(2).normal(0, 0.1, 150)
    model = model_of(rows[:10], y[:10])

    def begun(self, count: int = 10) -> Posterior:
        return Posterior.of(self.model, POOL, POOL.take(self.rows[:count]), self.y[:count])

    def check(self, posterior: Posterior, count: int, pool: Features = POOL) -> None:
        mean, variance = exact(self.model, POOL.take(self.rows[:count]), self.y[:count], pool)
        assert posterior.mean == pytest.approx(mean, abs=2e-4)
        assert posterior.variance == pytest.approx(variance, abs=2e-4)

    def test_is_the_textbooks(self) -> None:
        self.check(self.begun(), 10)
        assert self.begun().at(POOL.take(np.arange(7))) == pytest.approx(self.begun().mean[:7], abs=1e-5)

    def test_grows_far_beyond_its_first_room(self) -> None:
        posterior = self.begun()
        for row, y in zip(self.rows[10:], self.y[10:], strict=True):
            posterior.add(POOL.take(np.array([row])), y)
        self.check(posterior, 150)

    def test_a_point_outside_of_the_pool(self) -> None:
        half = POOL.take(np.arange(0, len(CODES), 2))
        posterior = Posterior.of(self.model, half, POOL.take(self.rows[:10]), self.y[:10])
        for place in range(10, 40):
            posterior.add(POOL.take(self.rows[place : place + 1]), self.y[place])
        self.check(posterior, 40, half)

    def test_pools_come_and_go(self) -> None:
        posterior = self.begun(30)
        kept, fresh = np.arange(5, 50, 3), POOL.take(np.arange(100, 160))
        posterior.replace(kept, POOL.take(kept).joined(fresh), np.arange(len(kept)))
        self.check(posterior, 30, POOL.take(kept).joined(fresh))
        posterior.add(POOL.take(self.rows[30:31]), self.y[30])
        self.check(posterior, 31, POOL.take(kept).joined(fresh))

    def test_beliefs_keep_the_mean_and_are_forgotten(self) -> None:
        posterior = self.begun(30)
        mean, variance = posterior.mean, posterior.variance
        other = np.setdiff1d(np.arange(len(CODES)), self.rows)[:3]
        believed = [posterior.fantasize(POOL.take(np.array([row]))) for row in other]
        assert believed == pytest.approx(mean[other], abs=1e-4)
        assert posterior.mean == pytest.approx(mean, abs=1e-4)
        assert (posterior.variance[other] < 0.6 * variance[other]).all()
        posterior.drop_fantasies()
        self.check(posterior, 30)
        posterior.add(POOL.take(self.rows[30:31]), self.y[30])
        self.check(posterior, 31)

    def test_the_same_point_again_and_again(self) -> None:
        """Twins make a covariance singular but for the noise."""
        posterior = self.begun(10)
        for _ in range(80):
            posterior.add(POOL.take(self.rows[:1]), 0.7)
        assert np.isfinite(posterior.mean).all()
        assert posterior.mean[self.rows[0]] == pytest.approx(0.7, abs=0.05)
        assert (posterior.variance > -1e-3).all()


class TestManyObservations:
    """From so many on, not all candidates follow every observation."""

    codes_of = IntegerEncoder(flat(8, 3).choices)
    codes = codes_of.every()[np.random.default_rng(0).permutation(3**8)[:5000]]
    features_of = Featurizer(flat(8, 3), codes_of, codes[:3000])
    pool, fresh, seen = map(features_of.features, np.split(codes, [3000, 3300]))
    y = np.sin(codes[3300:] @ np.arange(1.0, 9.0)) + np.random.default_rng(1).normal(0, 0.1, 1700)
    ranking = np.random.default_rng(2).permutation(3000)
    model = Surrogate(features_of.sizes)
    count = ALL_FOLLOWED + 100

    def begun(self, count: int, later: int, ranking: np.ndarray | None = None) -> Posterior:
        posterior = Posterior.of(self.model, self.pool, *self.first(count), ranking)
        for place in range(count, count + later):
            posterior.add(self.seen.take(np.array([place])), self.y[place])
        return posterior

    def first(self, count: int) -> tuple[Features, np.ndarray]:
        return self.seen.take(np.arange(count)), self.y[:count]

    def check(self, posterior: Posterior, count: int, pool: Features, rows: np.ndarray) -> None:
        """These rows of the pool have the mean and variance that so many observations give."""
        mean, variance = exact(self.model, *self.first(count), pool.take(rows))
        assert posterior.mean[rows] == pytest.approx(mean, abs=5e-4)
        assert posterior.variance[rows] == pytest.approx(variance, abs=5e-4)

    def test_all_follow_what_was_begun_with_few(self) -> None:
        posterior = self.begun(ALL_FOLLOWED - 50, later=150)
        self.check(posterior, self.count, self.pool, np.arange(3000))

    def test_the_best_follow_and_the_others_stay(self) -> None:
        posterior = self.begun(self.count, later=40, ranking=self.ranking)
        self.check(posterior, self.count + 40, self.pool, self.ranking[:FOLLOWED])
        self.check(posterior, self.count, self.pool, self.ranking[FOLLOWED:])

    def test_what_becomes_one_of_the_best_follows(self) -> None:
        posterior = self.begun(self.count, later=40, ranking=self.ranking)
        other_way_round = self.ranking[::-1].copy()
        posterior.follow_best(other_way_round, self.pool)
        self.check(posterior, self.count + 40, self.pool, other_way_round[:LEADING])
        last, value = self.seen.take(np.array([self.count + 40])), self.y[self.count + 40]
        posterior.add(last, value)
        self.check(posterior, self.count + 41, self.pool, other_way_round[:LEADING])

    def test_others_are_never_underrated(self) -> None:
        """Their variance is at least what all observations would leave."""
        posterior = self.begun(self.count, later=100, ranking=self.ranking)
        _, variance = exact(self.model, *self.first(self.count + 100), self.pool)
        assert (posterior.variance > variance - 5e-4).all()

    def test_pools_come_and_go(self) -> None:
        posterior = self.begun(self.count, later=20, ranking=self.ranking)
        kept = np.sort(np.random.default_rng(3).permutation(3000)[:2700])
        pool, ranking = self.pool.take(kept).joined(self.fresh), np.random.default_rng(4).permutation(2700)
        posterior.replace(kept, pool, ranking)
        now_exact = np.append(ranking[:LEADING], np.arange(2700, 3000))
        self.check(posterior, self.count + 20, pool, now_exact)
        posterior.add(self.seen.take(np.array([self.count + 20])), self.y[self.count + 20])
        self.check(posterior, self.count + 21, pool, now_exact)

    def test_beliefs_are_forgotten(self) -> None:
        posterior = self.begun(self.count, later=0, ranking=self.ranking)
        mean, variance = posterior.mean, posterior.variance
        for place in range(3):
            posterior.fantasize(self.fresh.take(np.array([place])))
        assert posterior.variance[self.ranking[:FOLLOWED]].sum() < variance[self.ranking[:FOLLOWED]].sum() - 0.1
        posterior.drop_fantasies()
        assert posterior.mean == pytest.approx(mean, abs=1e-9)
        assert posterior.variance == pytest.approx(variance, abs=1e-9)
        posterior.add(self.seen.take(np.array([self.count])), self.y[self.count])
        self.check(posterior, self.count + 1, self.pool, self.ranking[:FOLLOWED])
