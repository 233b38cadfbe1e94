import numpy as np

from helpers.driven import judged, record_of
from pipeline.engines.trial import TrialResult
from pipeline.strategies.dominance import DominanceRanks
from pipeline.trials.objectives import as_losses, pareto_front

NAMES = ("accuracy", "macs")


def dominance_of(*results: TrialResult) -> DominanceRanks:
    return DominanceRanks([record_of({"n": n}, result, n) for n, result in enumerate(results)], NAMES)


def over(excess: float) -> TrialResult:
    return TrialResult("infeasible", {"macs": 1.0}, {"excess": {"macs": excess}})


def test_limits_come_before_objectives_and_failures_last() -> None:
    found = dominance_of(judged(0.1, 9.0), over(0.5), over(0.2), TrialResult("failed", error="x"), over(0.0))
    assert found.ranks().tolist() == [0, 3, 2, 4, 1]


def test_fronts_are_peeled_one_by_one() -> None:
    rows = [(0.9, 3.0), (0.8, 1.0), (0.7, 2.0), (0.6, 3.0), (0.85, 2.0), (0.9, 3.0)]
    found = dominance_of(*(judged(*row) for row in rows))
    assert found.ranks().tolist() == [0, 0, 1, 2, 0, 0]
    assert found.has_duplicate(0)
    assert not found.has_duplicate(1)


def test_first_front_is_the_pareto_front() -> None:
    numbers = np.random.default_rng(0).random((60, 2))
    found = dominance_of(*(judged(*row) for row in numbers.tolist()))
    losses = as_losses([{"accuracy": a, "macs": b} for a, b in numbers], NAMES)
    assert np.flatnonzero(found.ranks() == 0).tolist() == sorted(pareto_front(losses))


def test_crowding_by_hand() -> None:
    """Costs 0, 1, 4 and accuracies 0, .5, 1: the middle one's neighbours span all of both ranges."""
    found = dominance_of(judged(0.0, 0.0), judged(0.5, 1.0), judged(1.0, 4.0), judged(0.75, 2.0))
    assert found.crowding(found.ranks()).tolist() == [np.inf, 0.75 + 0.5, np.inf, 0.5 + 0.75]


def test_crowding_of_what_was_never_trained_is_none() -> None:
    found = dominance_of(over(0.2), over(0.2))
    assert found.ranks().tolist() == [0, 0]
    assert found.crowding(found.ranks()).tolist() == [0, 0]
