import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.trials.objectives import (
    FAILED_SCORE,
    as_losses,
    excess,
    hypervolume,
    infeasible_score,
    knee,
    pareto_front,
    reward,
)


def matrix(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, dtype=float)


class TestFront:
    @pytest.mark.parametrize(
        ("rows", "front"),
        [
            ([(3,), (1,), (2,), (1,)], [1]),
            ([(1, 4), (2, 2), (4, 1)], [0, 1, 2]),
            ([(1, 4), (2, 4), (1, 5)], [0]),
            ([(1, 1), (1, 1), (0, 2)], [0, 2]),
            ([(1, 2, 3), (3, 2, 1), (2, 2, 2), (3, 3, 3)], [0, 1, 2]),
            ([(1, 2, 3, 4), (1, 2, 3, 5), (4, 3, 2, 1), (0, 9, 9, 9)], [0, 2, 3]),
        ],
    )
    def test_by_hand(self, rows: list[tuple[float, ...]], front: list[int]) -> None:
        assert pareto_front(matrix(*rows)) == front

    def test_of_nothing_is_empty(self) -> None:
        assert pareto_front(as_losses([], ["accuracy", "macs"])) == []

    def test_accuracy_is_the_one_that_is_maximised(self) -> None:
        losses = as_losses([{"accuracy": 0.9, "macs": 5.0, "params": 1.0}], ["macs", "accuracy"])
        assert losses.tolist() == [[5.0, -0.9]]

    @given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 4)] * n), min_size=1, max_size=12)))
    def test_is_what_no_other_dominates(self, rows: list[tuple[int, ...]]) -> None:
        def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
            return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

        expected = [
            i for i, row in enumerate(rows) if row not in rows[:i] and not any(dominates(other, row) for other in rows)
        ]
        assert pareto_front(matrix(*rows)) == expected


class TestHypervolume:
    @pytest.mark.parametrize(
        ("rows", "reference", "volume"),
        [
            ([(3,), (1,)], (5,), 4),
            ([(1, 1)], (3, 4), 6),
            ([(1, 3), (2, 2), (3, 1)], (4, 4), 6),
            ([(1, 3), (2, 2), (3, 1), (3, 3)], (4, 4), 6),
            ([(1, 1), (1, 1)], (2, 2), 1),
            ([(4, 1)], (4, 4), 0),
            ([(5, 0)], (4, 4), 0),
            ([(1, 1, 1)], (2, 3, 4), 6),
            ([(0, 1, 1), (1, 0, 1), (1, 1, 0)], (2, 2, 2), 4),
            ([(0, 0, 1), (0, 1, 0)], (2, 2, 2), 6),
            ([(1, 1, 1, 1)], (2, 3, 2, 3), 4),
            ([(0, 1, 1, 1), (1, 0, 1, 1)], (2, 2, 2, 2), 3),
        ],
    )
    def test_by_hand(self, rows: list[tuple[float, ...]], reference: tuple[float, ...], volume: float) -> None:
        assert hypervolume(matrix(*rows), np.array(reference, dtype=float)) == pytest.approx(volume)

    def test_of_nothing_is_zero(self) -> None:
        assert hypervolume(np.empty((0, 2)), np.array([1.0, 1.0])) == 0.0

    @given(
        st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 5)] * n), min_size=1, max_size=8)),
        st.integers(1, 5),
    )
    def test_counts_the_unit_cells_that_are_dominated(self, rows: list[tuple[int, ...]], edge: int) -> None:
        dimensions = len(rows[0])
        cells = itertools.product(range(edge), repeat=dimensions)
        expected = sum(any(all(r <= c for r, c in zip(row, cell, strict=True)) for row in rows) for cell in cells)
        found = hypervolume(matrix(*rows), np.full(dimensions, float(edge)))
        assert found == pytest.approx(expected)

    @given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8))
    def test_is_that_of_the_front_in_any_order(self, rows: list[tuple[float, ...]]) -> None:
        losses, reference = matrix(*rows), np.ones(3)
        whole = hypervolume(losses, reference)
        assert hypervolume(losses[pareto_front(losses)], reference) == pytest.approx(whole)
        assert hypervolume(losses[::-1], reference) == pytest.approx(whole)
        assert hypervolume(losses[:, [2, 0, 1]], reference) == pytest.approx(whole)


class TestLimits:
    def test_tells_how_far_each_broken_limit_is_broken(self) -> None:
        values = {"macs": 150.0, "size_mb": 1.0, "params": 10.0}
        broken = excess(values, {"macs": 100.0, "size_mb": 1.0, "latency_ms": 0.5, "params": 8.0})
        assert broken == pytest.approx({"macs": 0.5, "params": 0.25})

    @given(
        st.dictionaries(st.sampled_from("abc"), st.floats(1e-300, 1e300), min_size=1),
        st.floats(1e-300, 1e300),
        st.floats(0, 1),
        st.floats(1e-9, 1e12),
        st.floats(-1, 0),
    )
    def test_every_infeasible_score_is_below_every_feasible_one(
        self, values: dict[str, float], limit: float, accuracy: float, cost: float, exponent: float
    ) -> None:
        feasible = reward({"accuracy": accuracy, "macs": cost}, ["accuracy", "macs"], exponent, {})
        assert math.isfinite(feasible)
        broken = excess(values, dict.fromkeys(values, limit))
        if broken:
            assert FAILED_SCORE < -1.0 <= infeasible_score(broken) < 0.0 <= feasible

    @given(st.floats(0, 1e6), st.floats(0, 1e6))
    def test_the_further_a_limit_is_broken_the_lower(self, one: float, other: float) -> None:
        low, high = sorted((one, other))
        assert infeasible_score({"macs": high}) <= infeasible_score({"macs": low})
        if high > low * (1 + 1e-6) + 1e-6:
            assert infeasible_score({"macs": high}) < infeasible_score({"macs": low})

    def test_infinitely_far_is_finite(self) -> None:
        assert -1.0 <= infeasible_score({"macs": math.inf}) < infeasible_score({"macs": 1e9})


class TestReward:
    def test_is_mnasnets(self) -> None:
        values = {"accuracy": 0.8, "latency_ms": 2.0}
        assert reward(values, ["accuracy", "latency_ms"], -0.07, {"latency_ms": 1.0}) == pytest.approx(0.8 * 2**-0.07)
        assert reward(values, ["accuracy", "latency_ms"], 0.0, {}) == pytest.approx(0.8)

    def test_a_cost_at_its_target_changes_nothing(self) -> None:
        values = {"accuracy": 0.5, "latency_ms": 3.0, "macs": 7.0}
        targets = {"latency_ms": 3.0, "macs": 7.0}
        assert reward(values, ["accuracy", "latency_ms", "macs"], -0.5, targets) == pytest.approx(0.5)

    def test_costs_that_are_no_objectives_dont_count(self) -> None:
        values = {"accuracy": 0.5, "latency_ms": 3.0, "macs": 7.0}
        other = {**values, "macs": 700.0}
        names = ["accuracy", "latency_ms"]
        assert reward(values, names, -0.5, {}) == reward(other, names, -0.5, {})

    def test_a_cost_of_zero_is_finite(self) -> None:
        assert math.isfinite(reward({"accuracy": 0.5, "macs": 0.0}, ["accuracy", "macs"], -0.07, {}))

    @given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(-1, 0))
    def test_better_is_not_lower(self, a: float, b: float, c: float, d: float, exponent: float) -> None:
        names = ["accuracy", "macs"]
        better = reward({"accuracy": max(a, b), "macs": min(c, d)}, names, exponent, {})
        worse = reward({"accuracy": min(a, b), "macs": max(c, d)}, names, exponent, {})
        assert better >= worse


class TestKnee:
    def test_balances(self) -> None:
        losses = matrix((0, 10), (1, 1), (10, 0), (9, 9), (9, 9), (8, 8))
        front = pareto_front(losses)
        assert front == [0, 1, 2]
        assert knee(losses, front)[0] == 1
        assert sorted(knee(losses, front)) == front

    def test_prefers_what_no_objective_has_to_be_ashamed_of(self) -> None:
        # (1.5, 6) is nearest to the ideal point on the front's own scale, but slower than the median.
        losses = matrix((0, 20), (1.5, 6), (6, 4), (20, 0), (7, 5), (7, 5), (7, 5), (7, 5), (7, 5))
        assert knee(losses, pareto_front(losses))[0] == 2

    def test_of_one_is_that_one(self) -> None:
        assert knee(matrix((1, 1), (2, 2)), [0]) == [0]

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12), st.integers(1, 1000))
    def test_is_an_order_of_the_front_whatever_the_units(self, rows: list[tuple[int, int]], factor: int) -> None:
        losses = matrix(*rows)
        front = pareto_front(losses)
        order = knee(losses, front)
        assert sorted(order) == sorted(front)
        scaled = knee(losses * np.array([1.0, 2.0**factor if factor < 20 else 2.0]), front)
        assert scaled == order
