"""Expected gain in hypervolume against brute force and Monte Carlo."""

import math

import numpy as np
import pytest

from pipeline.strategies.acquisition import Box, Front, even_points, expected_hypervolume_improvement, first_best
from pipeline.trials.objectives import hypervolume

WORST = 0.9


def box(costs: int) -> Box:
    return Box(WORST, np.zeros(costs), np.full(costs, 0.95))


def trials(costs: int, count: int = 15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, costs])
    return rng.random(count), rng.random((count, costs))


def gain_of(front: Front, errors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Of candidates whose errors are certain."""
    return np.asarray((front.weights(costs) * np.maximum(front.levels - errors[:, None], 0)).sum(axis=1))


def brute_force(errors: np.ndarray, costs: np.ndarray, error: float, cost: np.ndarray) -> float:
    reference = np.array([WORST, *box(costs.shape[1]).high])
    before = np.column_stack([errors, costs])
    after = np.vstack([before, [error, *cost]])
    return hypervolume(after, reference) - hypervolume(before, reference)


class TestGain:
    @pytest.mark.parametrize("seed", range(3))
    def test_one_cost_is_exact(self, seed: int) -> None:
        errors, costs = trials(1, seed=seed)
        new_errors, new_costs = trials(1, 60, seed + 10)
        expected = [brute_force(errors, costs, e, c) for e, c in zip(new_errors, new_costs, strict=True)]
        assert sum(gain > 0 for gain in expected) > 2
        assert gain_of(Front(errors, costs, box(1), np.empty((0, 1))), new_errors, new_costs) == pytest.approx(expected)

    @pytest.mark.parametrize("costs", [2, 3])
    def test_more_costs_are_sampled(self, costs: int) -> None:
        errors, spent = trials(costs, 12)
        new_errors, new_costs = trials(costs, 20, 5)
        expected = np.array([brute_force(errors, spent, e, c) for e, c in zip(new_errors, new_costs, strict=True)])
        points = even_points(20_000, np.zeros(costs))
        found = gain_of(Front(errors, spent, box(costs), points), new_errors, new_costs)
        assert found == pytest.approx(expected, abs=2e-3)
        assert expected.max() > 0.004

    def test_no_cost_is_improvement_on_the_best(self) -> None:
        errors = np.array([0.5, 0.3, 0.8])
        front = Front(errors, np.empty((3, 0)), box(0), np.empty((0, 0)))
        found = gain_of(front, np.array([0.1, 0.4]), np.empty((2, 0)))
        assert found == pytest.approx([0.2, 0.0])

    @pytest.mark.parametrize("costs", [0, 1, 2])
    def test_before_the_first_result_everything_gains(self, costs: int) -> None:
        front = Front(np.empty(0), np.empty((0, costs)), box(costs), even_points(2000, np.zeros(costs)))
        found = gain_of(front, np.array([0.4]), np.full((1, costs), 0.2))
        assert found == pytest.approx([(WORST - 0.4) * 0.75**costs], rel=0.02)

    def test_unknown_costs_gain_nothing(self) -> None:
        for costs in (1, 2):
            errors, spent = trials(costs)
            front = Front(errors, spent, box(costs), even_points(500, np.zeros(costs)))
            unknown = np.full((1, costs), np.nan)
            gain = expected_hypervolume_improvement(
                np.array([-3.0]), np.array([0.5]), front.levels, front.weights(unknown), -0.1
            )
            assert gain.tolist() == [0.0]

    @pytest.mark.parametrize("sd", [0.02, 0.2, 0.8])
    def test_expectation_by_monte_carlo(self, sd: float) -> None:
        errors, costs = trials(1)
        medians, new_costs = trials(1, 40, 1)
        shift = -0.1
        front = Front(errors, costs, box(1), np.empty((0, 1)))
        logs = np.log(medians - shift)
        drawn = shift + np.exp(logs[:, None] + sd * np.random.default_rng(0).standard_normal((40, 4000)))
        gains = [gain_of(front, column, new_costs) for column in drawn.T]
        found = expected_hypervolume_improvement(logs, np.full(40, sd), front.levels, front.weights(new_costs), shift)
        error = np.std(gains, axis=0) / math.sqrt(len(gains))
        assert (np.abs(found - np.mean(gains, axis=0)) < 4.5 * error + 2e-5).all()
        assert found.max() > 0.02

    def test_certain_errors_in_the_limit(self) -> None:
        errors, costs = trials(1)
        new_errors, new_costs = trials(1, 40, 1)
        front = Front(errors, costs, box(1), np.empty((0, 1)))
        found = expected_hypervolume_improvement(
            np.log(new_errors + 0.1), np.full(40, 1e-7), front.levels, front.weights(new_costs), -0.1
        )
        assert found == pytest.approx(gain_of(front, new_errors, new_costs), abs=1e-6)


def test_even_points_are_evener_than_random_ones() -> None:
    even, random = even_points(512, np.array([0.3, 0.8])), np.random.default_rng(0).random((512, 2))
    corners = np.random.default_rng(1).random((200, 2))

    def worst(points: np.ndarray) -> float:
        shares = [(points <= corner).all(axis=1).mean() - corner.prod() for corner in corners]
        return float(np.abs(shares).max())

    assert worst(even) < 0.4 * worst(random)
    assert ((even >= 0) & (even < 1)).all()


def test_of_twins_the_first_is_taken_whatever_the_rounding() -> None:
    values = np.array([0.1, 0.5 - 1e-6, 0.5, 0.5 - 1e-6, 0.7])
    assert first_best(values, np.array([0, 1, 2, 3])) == 1
    assert first_best(values, np.array([3, 2])) == 3
    assert first_best(values, np.array([0, 3, 4])) == 4
    assert first_best(np.zeros(3), np.array([1, 2])) == 1
