"""The rules that end trainings early, as functions of curves."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.config.evaluator import StoppingOptions
from pipeline.evaluators.stopping_rules import LearningCurve, halving_rule, median_rule, spaced_order, verdict

Rule = Callable[[LearningCurve, list[LearningCurve]], str | None]

MEDIAN: Rule = lambda own, peers: median_rule(own, peers, 1)  # noqa: E731
HALVING: Rule = lambda own, peers: halving_rule(own, peers, 3, 1)  # noqa: E731


def flat(*accuracies: float) -> list[LearningCurve]:
    """Curves of one epoch each, without costs."""
    return [LearningCurve((accuracy,)) for accuracy in accuracies]


def random_curves(rng: np.random.Generator, count: int, costs: int, epochs: int = 4) -> list[LearningCurve]:
    """Coarse values, so that ties happen; some of the trainings were stopped."""
    return [
        LearningCurve(
            tuple(np.sort(rng.integers(0, 12, epochs))[: rng.integers(1, epochs + 1)] / 12),
            tuple(rng.integers(1, 6, costs).astype(float)),
        )
        for _ in range(count)
    ]


class TestMedian:
    def test_is_the_published_rule_by_hand(self) -> None:
        """Running averages after two epochs: 0.3, 0.5, 0.6; the last peer didn't get that far."""
        peers = [
            LearningCurve((0.2, 0.4, 0.9)),
            LearningCurve((0.4, 0.6)),
            LearningCurve((0.5, 0.7)),
            LearningCurve((0.99,)),
        ]
        assert median_rule(LearningCurve((0.1, 0.49)), peers, 3) is not None
        assert median_rule(LearningCurve((0.1, 0.5)), peers, 3) is None  # not strictly below
        assert median_rule(LearningCurve((0.5, 0.1)), peers, 3) is None  # the best so far counts, not the last

    def test_says_why(self) -> None:
        words = median_rule(LearningCurve((0.1, 0.49)), [LearningCurve((0.4, 0.6))], 1)
        assert words == "best accuracy 0.4900, below 0.5000, the median of 1 trials before it"

    def test_of_one_objective_is_the_published_rule_whatever_the_curves(self) -> None:
        rng = np.random.default_rng(0)
        seen = set()
        for _ in range(300):
            own, *peers = random_curves(rng, 8, costs=0)
            reached = [p.accuracies[: len(own.accuracies)] for p in peers if len(p.accuracies) >= len(own.accuracies)]
            stopped = bool(reached) and max(own.accuracies) < statistics.median(sum(c) / len(c) for c in reached)
            assert (MEDIAN(own, peers) is not None) == stopped
            seen.add(stopped)
        assert seen == {True, False}

    def test_a_cheap_network_is_compared_with_cheap_ones(self) -> None:
        expensive = [LearningCurve((0.9,), (10.0,))] * 6
        cheap = [LearningCurve((accuracy,), (1.0,)) for accuracy in (0.3, 0.4, 0.5)]
        assert median_rule(LearningCurve((0.45,), (1.0,)), expensive + cheap, 3) is None
        assert median_rule(LearningCurve((0.35,), (1.0,)), expensive + cheap, 3) is not None
        assert median_rule(LearningCurve((0.45,), (10.0,)), expensive + cheap, 3) is not None
        assert (
            median_rule(LearningCurve((0.45,)), [LearningCurve(each.accuracies) for each in expensive + cheap], 3)
            is not None
        )

    def test_rounding_stops_nobody(self) -> None:
        for count in range(1, 30):
            same = LearningCurve((0.1,) * count)
            assert median_rule(same, [same] * 3, 1) is None


class TestHalving:
    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_keeps_one_in_factor(self, factor: int) -> None:
        """Of all that get to a rung, were each the last to get there."""
        accuracies = np.random.default_rng(factor).permutation(24) / 24
        curves = flat(*accuracies)
        kept = [c for n, c in enumerate(curves) if halving_rule(c, curves[:n] + curves[n + 1 :], factor, 1) is None]
        assert sorted(c.accuracies[0] for c in kept) == sorted(accuracies)[-24 // factor :]

    def test_equally_good_ones_are_treated_equally(self) -> None:
        assert HALVING(LearningCurve((0.5,)), flat(0.5, 0.5, 0.1, 0.1, 0.1)) is None
        assert HALVING(LearningCurve((0.5,)), flat(0.6, 0.6, 0.5, 0.1, 0.1)) is not None

    def test_says_why(self) -> None:
        assert (
            HALVING(LearningCurve((0.1,)), flat(0.5, 0.6)) == "accuracy 0.1000, not among the best 1 of 3 after epoch 1"
        )

    def test_the_accuracy_after_this_epoch_counts_alone(self) -> None:
        peers = [LearningCurve((0.9, 0.3, 0.95)), LearningCurve((0.8, 0.2)), LearningCurve((0.99,))]
        assert HALVING(LearningCurve((0.1, 0.4)), peers) is None
        assert HALVING(LearningCurve((0.95, 0.1)), peers) is not None

    def test_goes_by_fronts(self) -> None:
        front = [LearningCurve((0.9,), (9.0,)), LearningCurve((0.5,), (1.0,))]
        behind = [LearningCurve((0.8,), (9.5,)), LearningCurve((0.4,), (2.0,))]
        worst = [
            LearningCurve((0.1,), (9.0,)),
            LearningCurve((0.05,), (8.0,)),
            LearningCurve((0.04,), (9.9,)),
            LearningCurve((0.03,), (9.9,)),
        ]
        everyone = front + behind + worst

        def goes_on(own: LearningCurve, factor: int) -> bool:
            return halving_rule(own, [each for each in everyone if each is not own], factor, 1) is None

        assert [goes_on(each, 4) for each in everyone] == [True] * 2 + [False] * 6
        assert [goes_on(each, 2) for each in everyone] == [True] * 4 + [False] * 4

    def test_of_a_front_with_too_many_the_spread_ones_go_on(self) -> None:
        """Keep three: the best, and of the next front, which has four, the most accurate and the farthest one."""
        best = LearningCurve((1.0,), (0.5,))
        second = [
            LearningCurve((0.9,), (4.0,)),
            LearningCurve((0.89,), (3.9,)),
            LearningCurve((0.88,), (3.8,)),
            LearningCurve((0.4,), (1.0,)),
        ]
        rest = [LearningCurve((0.1,), (5.0 + n,)) for n in range(4)]
        everyone = [best, *second, *rest]
        kept = [halving_rule(c, [p for p in everyone if p is not c], 3, 1) is None for c in everyone]
        assert kept == [True, True, False, False, True] + [False] * 4


@pytest.mark.parametrize("rule", [MEDIAN, HALVING], ids=["median", "halving"])
@pytest.mark.parametrize("costs", [0, 1, 2])
class TestWhateverTheCurves:
    def test_the_most_accurate_so_far_goes_on(self, rule: Rule, costs: int) -> None:
        rng = np.random.default_rng(costs)
        for _ in range(200):
            own, *peers = random_curves(rng, 9, costs)
            epoch = len(own.accuracies)
            best = max([p.accuracies[epoch - 1] for p in peers if len(p.accuracies) >= epoch], default=0.0)
            own = LearningCurve((*own.accuracies[:-1], max(best, own.accuracies[-1])), own.costs)
            assert rule(own, peers) is None

    def test_what_nobody_dominates_goes_on(self, rule: Rule, costs: int) -> None:
        rng = np.random.default_rng(10 + costs)
        found = stopped = 0
        for _ in range(400):
            own, *peers = random_curves(rng, 9, costs)
            epoch = len(own.accuracies)
            dominated = any(
                len(p.accuracies) >= epoch
                and p.accuracies[epoch - 1] >= own.accuracies[-1]
                and all(a <= b for a, b in zip(p.costs, own.costs, strict=True))
                and (p.accuracies[epoch - 1], p.costs) != (own.accuracies[-1], own.costs)
                for p in peers
            )
            verdict = rule(own, peers)
            found += not dominated
            stopped += verdict is not None
            assert dominated or verdict is None
        assert found
        assert stopped

    def test_the_order_of_the_peers_doesnt_matter(self, rule: Rule, costs: int) -> None:
        rng = np.random.default_rng(20 + costs)
        for _ in range(50):
            own, *peers = random_curves(rng, 9, costs)
            assert rule(own, peers) == rule(own, [peers[n] for n in rng.permutation(len(peers))])

    def test_is_silent_without_peers(self, rule: Rule, costs: int) -> None:
        assert rule(LearningCurve((0.0,), (1.0,) * costs), []) is None


def options(**values: Any) -> StoppingOptions:
    return StoppingOptions(**{"min_peers": 2, **values})


class TestVerdict:
    PEERS = (LearningCurve((0.9,) * 9), LearningCurve((0.8,) * 9), LearningCurve((0.7,) * 9))

    def spoken(self, chosen: StoppingOptions) -> list[int]:
        """The epochs of nine after which a hopeless training is stopped."""
        return [n for n in range(1, 10) if verdict(chosen, LearningCurve((0.1,) * n), self.PEERS, 9) is not None]

    def test_none_stops_nothing(self) -> None:
        assert self.spoken(StoppingOptions()) == []

    def test_the_last_epoch_is_nothing_to_spare(self) -> None:
        assert self.spoken(options(rule="median")) == list(range(1, 9))

    def test_the_first_epochs_are_everybodys(self) -> None:
        assert self.spoken(options(rule="median", first=4)) == [4, 5, 6, 7, 8]

    def test_halving_speaks_at_its_rungs(self) -> None:
        assert self.spoken(options(rule="halving")) == [1, 3]
        assert self.spoken(options(rule="halving", factor=2, first=2)) == [2, 4, 8]

    def test_a_few_peers_say_nothing(self) -> None:
        assert self.spoken(options(rule="median", min_peers=4)) == []
        assert self.spoken(options(rule="halving", min_peers=4)) == []


def test_points_are_ordered_by_how_far_they_are_from_those_before() -> None:
    points = np.array([[0.0, 10.0], [1.0, 0.0], [0.1, 9.0], [0.5, 5.0]])
    assert spaced_order(points) == [0, 1, 3, 2]
    assert spaced_order(points[:1]) == [0]


@pytest.mark.parametrize(("values", "others"), [({"rule": "median", "factor": 4}, "factor"), ({"first": 2}, "first")])
def test_a_rule_takes_no_key_of_another_one(values: dict[str, Any], others: str) -> None:
    with pytest.raises(ValidationError, match=f"takes no {others}"):
        StoppingOptions(**values)
