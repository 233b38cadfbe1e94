import pytest

from helpers.driven import Choices, accuracy_of, deep, drive, flat, huge, judged, problem_of
from pipeline.config.strategy import Nsga2Options
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture
from pipeline.strategies.nsga2 import Nsga2


def search(space: Choices, seed: int = 0, **options: float | None) -> Nsga2:
    return Nsga2(Nsga2Options(name="nsga2", **options), problem_of(space, seed))  # type: ignore[arg-type]


def trade_off(architecture: Architecture) -> TrialResult:
    zeros = list(architecture.values()).count(0)
    return judged(zeros / len(architecture), float(zeros))


def test_population_keeps_the_best_and_spreads() -> None:
    """With more points on the front than places, its ends stay."""
    strategy = search(flat(12, 4), population=6)
    drive(strategy, trade_off, 250)
    assert len(strategy.population) == 6
    found = {record.objectives["accuracy"] for record in strategy.history}
    kept = {record.objectives["accuracy"] for record in strategy.population}
    assert {min(found), max(found)} <= kept
    assert len(kept) >= 4  # of equal ones some stay, as in the paper


def test_finds_what_random_search_doesnt() -> None:
    def best(strategy_population: int) -> float:
        runs = [drive(search(flat(12, 4), seed, population=strategy_population), trade_off, 200) for seed in range(5)]
        return sum(max(record.objectives["accuracy"] for record in run) for run in runs) / 5

    assert best(20) > best(200) + 0.1  # a population as large as the budget is random search


def test_feasible_ones_come_first() -> None:
    def judge(architecture: Architecture) -> TrialResult:
        wrong = sum(value != 0 for value in architecture.values())
        return judged(0.5) if wrong <= 3 else TrialResult("infeasible", {}, {"excess": {"macs": 0.1 * wrong}})

    strategy = search(flat(10, 4), population=10)
    drive(strategy, judge, 200)
    assert all(record.status == "ok" for record in strategy.population)
    drive(strategy, lambda _: TrialResult("failed", error="x"), 230)
    assert all(record.status == "ok" for record in strategy.population)


def test_children_have_their_parents_choices() -> None:
    """Without mutation nothing comes up that the first ones don't have, as long as they have new combinations."""
    strategy = search(flat(12, 4), population=5, mutation=1e-9)
    drive(strategy, lambda a: judged(accuracy_of(a)), 5)
    drawn = {label: {record.architecture[label] for record in strategy.history} for label in ("c0", "c1", "c2")}
    found = drive(strategy, lambda a: judged(accuracy_of(a)), 8)
    assert all(record.architecture[label] in drawn[label] for record in found for label in drawn)


@pytest.mark.parametrize("space", [deep(), huge()], ids=["deep", "huge"])
def test_conditional_and_large_spaces_with_four_workers(space: Choices) -> None:
    found = drive(search(space), trade_off, 100, workers=4)
    assert len({record.id for record in found}) == 100
