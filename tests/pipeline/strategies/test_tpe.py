import numpy as np
import pytest

from helpers.driven import Choices, accuracy_of, deep, drive, flat, huge, judged, problem_of
from pipeline.config.strategy import TpeOptions
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture, Choice
from pipeline.strategies.tpe import Tpe


def search(space: Choices, seed: int = 0, **options: object) -> Tpe:
    return Tpe(TpeOptions(name="tpe", **options), problem_of(space, seed))  # type: ignore[arg-type]


def mean_of_late_ones(space: Choices, **options: object) -> float:
    runs = [drive(search(space, seed, **options), lambda a: judged(accuracy_of(a)), 100) for seed in range(3)]
    return float(np.mean([record.score for run in runs for record in run[-30:]]))


def test_maximises() -> None:
    space = flat(8, 4)
    assert mean_of_late_ones(space) > mean_of_late_ones(space, startup=1000) + 0.2


def test_an_inactive_choice_has_no_record() -> None:
    strategy = search(deep())
    found = drive(strategy, lambda a: judged(accuracy_of(a)), 40)
    for label, records in strategy.records.items():
        assert len(records) == sum(label in record.architecture for record in found)
    assert len(strategy.records["block4.kind"]) < 40


def test_learns_a_choice_of_a_rare_block() -> None:
    """What block 4 is matters only where the depth is 4; with that the score is highest."""

    def judge(architecture: Architecture) -> TrialResult:
        return judged(0.1 * float(architecture["depth"]) + 0.3 * (architecture.get("block4.kind") == 2))

    found = drive(search(deep(4, 4)), judge, 120)
    assert np.mean([record.architecture.get("block4.kind") == 2 for record in found[-40:]]) > 0.6


def test_what_runs_counts_as_a_result_already() -> None:
    """Of eight proposals at once after the start, the liar makes later ones differ from those without it."""

    def proposals(liar: str) -> list[Architecture]:
        strategy = search(flat(4, 6), liar=liar, startup=10)
        drive(strategy, lambda a: judged(accuracy_of(a)), 30)
        for _ in range(8):
            proposed = strategy.propose(np.random.default_rng([0, strategy.index]))
            assert proposed is not None
            strategy.index += 1
            strategy.pending.append(proposed)
        return strategy.pending

    best, worst = proposals("best"), proposals("worst")
    assert best[0] == worst[0]
    assert best != worst


def test_goes_on_at_random_when_it_only_suggests_what_is_known() -> None:
    space = Choices(Choice("a", (False, True)), Choice("b", (1, 2, 3)))
    found = drive(search(space, startup=2), lambda a: judged(accuracy_of(a)), 100)
    assert len(found) == 6


@pytest.mark.parametrize("space", [deep(), huge()], ids=["deep", "huge"])
def test_conditional_and_large_spaces_with_four_workers(space: Choices) -> None:
    found = drive(search(space), lambda a: judged(accuracy_of(a)), 60, workers=4)
    assert len({record.id for record in found}) == 60
