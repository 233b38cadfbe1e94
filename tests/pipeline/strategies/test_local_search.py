import pytest

from helpers.driven import Choices, accuracy_of, deep, drive, flat, huge, judged, problem_of
from pipeline.config.strategy import LocalSearchOptions
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture
from pipeline.strategies.local_search import LocalSearch


def search(space: Choices, seed: int = 0, starts: int = 1, objectives: tuple[str, ...] = ("accuracy",)) -> LocalSearch:
    options = LocalSearchOptions(name="local_search", starts=starts)
    return LocalSearch(options, problem_of(space, seed, objectives))


def differences(first: Architecture, second: Architecture) -> int:
    return sum(first[label] != second[label] for label in first if label in second)


@pytest.mark.parametrize("seed", range(5))
def test_climbs_a_hill_with_one_top(seed: int) -> None:
    """At most all neighbours of each of the seven architectures on the way up."""
    found = drive(search(flat(6, 4), seed), lambda a: judged(accuracy_of(a)), 7 * 18)
    assert max(record.score for record in found) == 1.0


def test_every_step_is_a_neighbour_of_the_best_so_far() -> None:
    found = drive(search(flat(6, 4)), lambda a: judged(accuracy_of(a)), 15)
    best = found[0]
    for record in found[1:]:
        assert differences(record.architecture, best.architecture) == 1
        best = max(best, record, key=lambda each: each.score)


def test_begins_again_when_the_neighbourhood_of_the_top_is_tried() -> None:
    """All other architectures are equally bad: eight neighbours, then random ones."""
    space = flat(4, 3)
    top = dict.fromkeys((choice.label for choice in space.choices), 0)
    first = drive(search(space), lambda a: judged(0.5), 1)[0].architecture
    found = drive(search(space), lambda a: judged(1.0 if a == first else 0.5), 40)
    distances = [differences(record.architecture, first) for record in found]
    assert distances[:9] == [0] + [1] * 8
    assert max(distances[9:]) > 1
    assert top.keys() == first.keys()


def test_several_objectives_explore_the_whole_front() -> None:
    """Accuracy and cost both grow with the same choices, so every level of the cost has its place on the front."""

    def judge(architecture: Architecture) -> TrialResult:
        zeros = list(architecture.values()).count(0)
        return judged(zeros / 6, float(zeros) + 0.01 * sum(architecture.values()))  # type: ignore[arg-type]

    found = drive(search(flat(6, 3), starts=5, objectives=("accuracy", "macs")), judge, 150)
    assert {round(6 * record.objectives["accuracy"]) for record in found} == set(range(7))


def test_goes_down_the_excess_of_limits_first() -> None:
    def judge(architecture: Architecture) -> TrialResult:
        wrong = sum(value != 0 for value in architecture.values())
        return judged(0.5) if wrong <= 1 else TrialResult("infeasible", {}, {"excess": {"macs": 0.1 * wrong}})

    found = drive(search(flat(8, 4)), judge, 120)  # 25 of 65,536 are feasible
    assert any(record.status == "ok" for record in found)


def test_failed_trials_are_no_place_to_go_on_from() -> None:
    found = drive(search(flat(4, 3)), lambda _: TrialResult("failed", error="x"), 20)
    assert max(differences(a.architecture, b.architecture) for a in found for b in found) > 2


@pytest.mark.parametrize("space", [deep(), huge()], ids=["deep", "huge"])
def test_conditional_and_large_spaces_with_four_workers(space: Choices) -> None:
    found = drive(search(space, starts=5), lambda a: judged(accuracy_of(a)), 80, workers=4)
    assert len({record.id for record in found}) == 80
    early, late = found[:10], found[-10:]
    assert max(record.score for record in late) > max(record.score for record in early)
