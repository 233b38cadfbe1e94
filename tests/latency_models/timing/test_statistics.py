import math

import numpy as np
import pytest

from latency_models.timing.statistics import (
    Estimate,
    Ratio,
    low_time,
    mean_of,
    product_of_lows,
    ratio_of_repeats,
    settled,
    two_modes,
)


def test_low_time_is_the_fifth_percentile_and_a_sample() -> None:
    assert low_time(range(1, 101)) == 5
    assert low_time([3.0]) == 3.0
    assert low_time([9.0, 2.0, 4.0]) == 2.0


def test_the_first_run_of_a_round_is_left_out_unless_it_is_the_only_one() -> None:
    assert settled(np.array([[9, 1, 2], [8, 3, 4]])).tolist() == [[1, 2], [3, 4]]
    assert settled(np.array([[9], [8]])).tolist() == [[9], [8]]


def test_equal_rounds_have_no_error() -> None:
    estimate = product_of_lows([np.full((6, 4), 30.0), np.full((6, 2), 20.0)], [1.0, -1.0])
    assert math.exp(estimate.log) == pytest.approx(1.5)
    assert estimate.sd == pytest.approx(0.0, abs=1e-12)


def test_a_mixture_is_a_weighted_geometric_mean() -> None:
    samples = [np.full((5, 2), value) for value in (6.0, 2.0, 8.0)]
    estimate = product_of_lows(samples, [1.0, -0.25, -0.75])
    assert math.exp(estimate.log) == pytest.approx(6.0 / (2.0**0.25 * 8.0**0.75))


def test_disturbed_rounds_do_not_move_the_ratio() -> None:
    rng = np.random.default_rng(0)
    target, reference = 20 + rng.random((40, 5)), 10 + rng.random((40, 5))
    quiet = product_of_lows([target, reference], [1.0, -1.0]).log
    target[::3] *= 5
    reference[1::4] += 100
    assert product_of_lows([target, reference], [1.0, -1.0]).log == pytest.approx(quiet, abs=0.01)


def test_the_error_is_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    target, reference = rng.gamma(4.0, 1.0, (20, 7)) + 20, rng.gamma(4.0, 1.0, (20, 3)) + 10
    # The same resampling with plain loops and numpy's own percentile.
    drawn = np.random.default_rng(5).integers(0, 20, (300, 20))
    plain = [math.log(low_time(target[rows].ravel()) / low_time(reference[rows].ravel())) for rows in drawn]
    assert product_of_lows([target, reference], [1.0, -1.0]).sd == pytest.approx(np.std(plain), rel=1e-9)


def test_what_disturbs_both_at_once_is_no_error_of_the_ratio() -> None:
    rng = np.random.default_rng(2)
    level = np.exp(0.2 * rng.standard_normal((24, 1)))
    together = product_of_lows([level * np.full((24, 3), 5.0), level * np.full((24, 3), 4.0)], [1.0, -1.0])
    apart = product_of_lows([level * np.full((24, 3), 5.0), level[::-1] * np.full((24, 3), 4.0)], [1.0, -1.0])
    assert together.sd < 1e-9 < apart.sd


def test_neighbouring_rounds_are_drawn_together() -> None:
    # A disturbance that lasts for 1/8 of the time: single rounds would show it as 960 independent ones.
    rng = np.random.default_rng(3)
    lasting = np.repeat(1.0 + 0.1 * rng.random(8), 120)[:, None] * np.ones((960, 2))
    shuffled = rng.permutation(lasting)
    steady = np.ones((960, 1))
    assert (
        product_of_lows([lasting, steady], [1.0, -1.0]).sd > 1.5 * product_of_lows([shuffled, steady], [1.0, -1.0]).sd
    )


def test_the_bootstrap_looks_further_when_the_low_end_is_not_drawn() -> None:
    # All low samples lie in one round, which many resamples leave out.
    target = np.full((5, 100), 50.0)
    target[0] = np.arange(1.0, 101.0)
    assert product_of_lows([target], [1.0]).sd > 0.1


def test_intervals_cover_what_they_say() -> None:
    rng = np.random.default_rng(4)
    truth = math.log(low_time(rng.gamma(2.0, 1.0, 400_000) + 40) / low_time(rng.gamma(2.0, 1.0, 400_000) + 20))
    held = 0
    for _ in range(300):
        estimate = product_of_lows([rng.gamma(2.0, 1.0, (30, 8)) + 40, rng.gamma(2.0, 1.0, (30, 8)) + 20], [1.0, -1.0])
        held += abs(estimate.log - truth) <= 1.96 * estimate.sd
    assert 0.88 <= held / 300 <= 0.99


def test_an_estimate_as_a_ratio() -> None:
    ratio = Estimate(math.log(2.0), 0.01).ratio
    assert ratio.ratio == pytest.approx(2.0)
    assert (ratio.low, ratio.high) == (pytest.approx(2.0 * math.exp(-0.0196)), pytest.approx(2.0 * math.exp(0.0196)))
    assert Estimate(0.5, 0.03).widened(0.04, 0.12) == Estimate(0.5, pytest.approx(0.13))


def test_the_mean_takes_the_larger_error() -> None:
    assert mean_of([Estimate(1.0, 0.3), Estimate(1.0, 0.4)]) == Estimate(1.0, pytest.approx(0.25))
    # 0 and 1: standard deviation 0.7071, of the mean 0.5.
    assert mean_of([Estimate(0.0, 0.01), Estimate(1.0, 0.01)]) == Estimate(0.5, pytest.approx(0.5))
    assert mean_of([Estimate(2.0, 0.1)]) == Estimate(2.0, pytest.approx(0.1))


def test_repeats_by_hand() -> None:
    # ln: 0 and ln 4; mean ln 2; standard error ln 2, times t(1) = 12.706.
    ratio = ratio_of_repeats([1.0, 4.0])
    assert ratio.ratio == pytest.approx(2.0)
    assert ratio.high == pytest.approx(2.0 * 2.0**12.706)
    assert ratio.low == pytest.approx(2.0 / 2.0**12.706)


def test_repeats_that_agree_by_chance_are_not_believed() -> None:
    ratio = ratio_of_repeats([1.001, 1.001, 1.001, 1.001], least_sd=0.01)
    assert ratio.high == pytest.approx(1.001 * math.exp(3.182 * 0.01 / 2))
    assert not ratio.different


def test_different_leaves_out_one() -> None:
    assert Ratio(1.2, 1.1, 1.3).different
    assert Ratio(0.8, 0.7, 0.9).different
    assert not Ratio(1.01, 0.99, 1.03).different


def test_two_kinds_of_runs_are_told_apart() -> None:
    rng = np.random.default_rng(6)
    samples = rng.permutation(np.concatenate([rng.normal(100, 0.5, 600), rng.normal(115, 0.5, 200)]))
    modes = two_modes(samples)
    assert modes is not None
    assert (modes.fast, modes.slow) == (pytest.approx(100, rel=0.005), pytest.approx(115, rel=0.005))
    assert modes.slow_share == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    "samples",
    [
        np.random.default_rng(7).normal(100, 3, 2000),
        np.random.default_rng(7).uniform(80, 120, 2000),
        100 + np.random.default_rng(7).gamma(1.0, 10.0, 2000),
        np.concatenate([np.random.default_rng(7).normal(100, 0.5, 1000), np.full(20, 500.0)]),
        np.concatenate([np.full(500, 100.0), np.full(500, 101.0)]),
        np.array([1.0, 2.0] * 10),
    ],
    ids=["normal", "uniform", "exponential", "few outliers", "close by", "too few"],
)
def test_one_kind_of_runs_is_not_cut_in_two(samples: np.ndarray) -> None:
    assert two_modes(samples) is None
