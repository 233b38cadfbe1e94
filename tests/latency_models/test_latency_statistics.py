from __future__ import annotations

import numpy as np
import pytest

from latency_models.statistics import Ratio, low_time, ratio_of_repeats, ratio_of_rounds


def test_low_time_is_the_fifth_percentile_and_a_sample() -> None:
    assert low_time(range(1, 101)) == 5
    assert low_time([3.0]) == 3.0
    assert low_time([9.0, 2.0, 4.0]) == 2.0


def test_equal_rounds_have_an_interval_of_no_width() -> None:
    ratio = ratio_of_rounds(np.full((6, 4), 30.0), np.full((6, 2), 20.0))
    assert (ratio.ratio, ratio.low, ratio.high) == (1.5, 1.5, 1.5)


def test_disturbed_rounds_do_not_move_the_ratio() -> None:
    rng = np.random.default_rng(0)
    target, reference = 20 + rng.random((40, 5)), 10 + rng.random((40, 5))
    quiet = ratio_of_rounds(target, reference).ratio
    target[::3] *= 5
    reference[1::4] += 100
    assert ratio_of_rounds(target, reference).ratio == pytest.approx(quiet, rel=0.01)


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    target, reference = rng.gamma(4.0, 1.0, (30, 7)) + 20, rng.gamma(4.0, 1.0, (30, 3)) + 10
    ratio = ratio_of_rounds(target, reference)
    # The same resampling with plain loops and numpy's own percentile.
    drawn = np.random.default_rng(5).integers(0, 30, (300, 30))
    plain = [low_time(target[rows].ravel()) / low_time(reference[rows].ravel()) for rows in drawn]
    assert ratio.low == pytest.approx(np.percentile(plain, 2.5), rel=1e-12)
    assert ratio.high == pytest.approx(np.percentile(plain, 97.5), rel=1e-12)
    assert ratio.low <= ratio.ratio <= ratio.high


def test_the_bootstrap_looks_further_when_the_low_end_is_not_drawn() -> None:
    # All low samples lie in one round, which many resamples leave out.
    target = np.full((5, 100), 50.0)
    target[0] = np.arange(1.0, 101.0)
    ratio = ratio_of_rounds(target, np.full((5, 1), 1.0))
    assert ratio.low < 50.0
    assert ratio.high == 50.0


def test_widening_adds_in_quadrature() -> None:
    wide = Ratio(2.0, 1.94, 2.06).widened(0.04 / 1.96)
    assert (wide.low, wide.high) == (pytest.approx(1.9), pytest.approx(2.1))
    assert Ratio(2.0, 1.94, 2.06).widened(0.0) == Ratio(2.0, 1.94, 2.06)


def test_repeats_by_hand() -> None:
    # ln: 0 and ln 4; mean ln 2; standard error ln 2, times t(1) = 12.706.
    ratio = ratio_of_repeats([1.0, 4.0])
    assert ratio.ratio == pytest.approx(2.0)
    assert ratio.high == pytest.approx(2.0 * 2.0**12.706)
    assert ratio.low == pytest.approx(2.0 / 2.0**12.706)


def test_different_leaves_out_one() -> None:
    assert Ratio(1.2, 1.1, 1.3).different
    assert Ratio(0.8, 0.7, 0.9).different
    assert not Ratio(1.01, 0.99, 1.03).different
