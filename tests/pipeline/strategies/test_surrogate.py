"""The Gaussian process, and what pool surrogates make of its posterior."""

import math

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import norm
from threadpoolctl import threadpool_info

from helpers.processes import CODES, ENCODER, POOL, model_of, truth
from pipeline.strategies.features import Features
from pipeline.strategies.pool_surrogate import (
    PoolSurrogate,
    Scale,
    distances_to_best,
    distances_without_outliers,
    one_blas_thread,
    ratios,
)
from pipeline.strategies.posterior import Posterior
from pipeline.strategies.surrogate import Surrogate


class TestSurrogate:
    @pytest.mark.parametrize("seed", range(3))
    def test_gradient_of_the_marginal_likelihood(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        model = Surrogate((3, 2))
        x, linear, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 4)), rng.normal(size=20)
        parts = (x[:, :3], x[:, 3:])
        distances = np.array([((p[:, None] - p[None]) ** 2).sum(axis=2) for p in parts])
        given = (distances, linear @ linear.T, y)
        at = model.values + rng.normal(0, 0.5, 5)
        off = check_grad(lambda v: model.loss(v, *given)[0], lambda v: model.loss(v, *given)[1], at)
        assert off < 1e-4 * np.linalg.norm(model.loss(at, *given)[1])

    def test_the_loss_is_the_density_of_a_normal_distribution(self) -> None:
        model = Surrogate((2,))
        x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
        points, y = Features(x, x), np.array([0.3, -1.0, 0.5, 0.9])
        scaled = model.scaled(points)
        k = model.covariance(scaled, scaled).astype(float) + model.noise * np.eye(4)
        expected = 0.5 * y @ np.linalg.solve(k, y) + 0.5 * np.linalg.slogdet(k)[1]
        distances = ((x[:, None] - x[None]) ** 2).sum(axis=2)[None].astype(float)
        assert model.loss(model.values, distances, (x @ x.T).astype(float), y)[0] == pytest.approx(expected, rel=1e-5)

    def test_a_fit_predicts_what_was_not_seen(self) -> None:
        rows = np.random.default_rng(0).choice(len(CODES), 60, replace=False)
        rest = np.setdiff1d(np.arange(len(CODES)), rows)
        posterior = Posterior.of(model_of(rows, truth(rows)), POOL, POOL.take(rows), truth(rows))
        errors = posterior.mean[rest] - truth(rest)
        assert np.sqrt((errors**2).mean()) < 0.2 * truth(rest).std()
        sd = np.sqrt(posterior.variance[rest])
        assert (np.abs(errors) < 3 * sd).mean() > 0.95

    def test_a_fit_of_many_uses_some(self) -> None:
        """1,000 observations are fitted within the time and memory of 400, and come to similar values."""
        rng = np.random.default_rng(0)
        rows = rng.integers(0, len(CODES), 1000)
        many, few = model_of(rows, truth(rows)), model_of(rows[:400], truth(rows[:400]))
        assert np.abs(many.values - few.values).max() < 1.0


class TestScale:
    def test_there_and_back(self) -> None:
        errors = np.array([0.05, 0.07, 0.1, 0.3])
        scale = distances_to_best(errors)
        assert scale.shift == pytest.approx(0.05 - 0.035)
        assert scale.values(scale(errors)) == pytest.approx(errors)
        assert scale(errors).mean() == pytest.approx(0)
        assert scale(errors).std() == pytest.approx(1)

    @pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
    def test_units_make_no_difference(self, factor: float) -> None:
        errors = np.array([0.05, 0.07, 0.1, 0.3])
        for of in (distances_to_best, ratios):
            assert of(factor * errors)(factor * errors) == pytest.approx(of(errors)(errors), abs=1e-6)

    def test_values_that_are_all_alike_and_one_that_is_not(self) -> None:
        for of in (distances_to_best, distances_without_outliers, ratios):
            scale = of(np.full(5, 0.25))
            assert scale(np.full(5, 0.25)) == pytest.approx(np.zeros(5), abs=1e-6)
            assert np.isfinite(scale(np.array([0.0, 0.24, 0.26, 9.0]))).all()

    def test_a_record_far_below_is_finite(self) -> None:
        scale = distances_to_best(np.array([0.3, 0.31, 0.33]))
        assert np.isfinite(scale(np.array([0.01]))).all()
        assert scale(np.array([0.01])) < scale(np.array([0.3]))

    def test_failures_do_not_press_the_others_together(self) -> None:
        losses = np.array([-0.9, -0.91, -0.92, -0.93, -0.94, 2.0, 2.0])
        capped, plain = distances_without_outliers(losses), distances_to_best(losses)
        assert np.ptp(capped(losses[:5])) > 1.2 * np.ptp(plain(losses[:5]))
        assert capped(losses)[-1] > capped(losses[:5]).max()


def test_linear_algebra_in_one_thread() -> None:
    with one_blas_thread():
        used = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    assert used
    assert set(used) == {1}


class TestLearner:
    def test_extends_and_refits(self) -> None:
        rows = np.random.default_rng(3).permutation(len(CODES))[:40]
        values = np.exp(truth(rows))
        learner = PoolSurrogate(ENCODER.sizes, ratios)
        assert not learner.ready
        refits = [n for n in range(8, 41) if learner.learn(POOL, POOL.take(rows[:n]), values[:n])]
        assert refits == [8, 10, 13, 17, 22, 28, 35]
        rest = np.setdiff1d(np.arange(len(CODES)), rows)
        assert np.corrcoef(np.log(learner.medians()[rest]), truth(rest))[0, 1] > 0.9

    def test_restarts(self) -> None:
        learner = PoolSurrogate(ENCODER.sizes, ratios)
        learner.learn(POOL, POOL.take(np.arange(10)), np.arange(1.0, 11.0))
        learner.restart()
        assert learner.learn(POOL, POOL.take(np.arange(5)), np.arange(5.0, 10.0))

    def test_probability_below(self) -> None:
        learner = PoolSurrogate(ENCODER.sizes, ratios)
        rows = np.arange(0, len(CODES), 9)
        learner.learn(POOL, POOL.take(rows), np.exp(truth(rows)))
        mean, sd = learner.logs()
        expected = norm.cdf((math.log(1.5 - learner.scale.shift) - mean) / sd)
        assert learner.probability_below(1.5) == pytest.approx(expected)
        assert learner.probability_below(0.0) == pytest.approx(np.zeros(len(CODES)), abs=1e-6)

    def test_a_scale_without_spread(self) -> None:
        assert Scale.of(np.full(3, 2.0), 0.0).spread > 0
