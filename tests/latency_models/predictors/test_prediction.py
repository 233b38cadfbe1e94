import math
from fractions import Fraction

import numpy as np
import pytest

from latency_models.predictors.prediction import COVERAGE, interval_width


@pytest.mark.parametrize(("count", "rank"), [(9, 9), (10, 10), (18, 18), (19, 18), (28, 27), (29, 27), (99, 90)])
def test_the_width_is_the_conformal_quantile(count: int, rank: int) -> None:
    magnitudes = np.arange(1.0, count + 1)
    signs = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    shuffled = np.random.default_rng(0).permutation(magnitudes * signs)
    assert interval_width(shuffled) == rank


def test_the_rank_is_exact_for_every_count() -> None:
    share = Fraction(str(COVERAGE))
    for count in range(9, 500):
        assert interval_width(np.arange(1.0, count + 1)) == math.ceil((count + 1) * share), count


def test_few_scores_widen_the_normal_quantile() -> None:
    assert interval_width(np.array([])) == pytest.approx(1.645 * 1.25)
    # Two scores of 3 beside four pseudo-scores of 1: a spread of √((4 + 9 + 9) / 6).
    assert interval_width(np.array([3.0, -3.0])) == pytest.approx(1.645 * (1 + 1 / 6) * math.sqrt(22 / 6))
    # Small ones don't narrow it below the normal distribution's.
    assert interval_width(np.zeros(8)) == pytest.approx(1.645 * (1 + 1 / 12))


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_the_quantile_holds_nine_of_ten_whatever_the_distribution(draw: str) -> None:
    drawn = getattr(np.random.default_rng(0), draw)((20_000, 20))
    held = [abs(row[-1]) <= interval_width(row[:-1]) for row in drawn]
    # Of 19 scores the 18th: exactly 18 of 20 in the long run; 20,000 draws have a standard error of 0.2 points.
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)
