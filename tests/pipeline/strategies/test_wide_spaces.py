"""Every strategy in spaces with conditions upon conditions, and in those that are far too large to list."""

from collections.abc import Hashable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from helpers.instant import InstantEngine, KilledError, config_of, space_of
from pipeline.nni_types import ModelSpace, SimplifiedModelSpace, choice
from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value, architecture_id
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.tables import STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

TRIALS = 24
OPTIONS: dict[str, dict[str, Any]] = {
    "evolution": {"population": 8, "sample": 3},
    "nsga2": {"population": 8},
    "tpe": {"startup": 8},
    "controller": {"hidden_size": 8},
}
NNI_OWN = ("random", "evolution")  # they ask for known architectures, too


class Towers(SearchSpace):
    """Numbers, names and truth values: towers that are switched on, their cells, and what a cell of a kind needs."""

    def __init__(self) -> None:
        choices = [Choice("resolution", (96, 128, 160)), Choice("dropout", (0.0, 0.25, 0.5))]
        for tower in ("a", "b", "c"):
            on = ((tower, (True,)),)
            choices += [Choice(tower, (False, True)), Choice(f"{tower}.cells", (1, 2, 3, 4), on)]
            for cell in range(4):
                present = (*on, (f"{tower}.cells", tuple(range(cell + 1, 5))))
                choices += [
                    Choice(f"{tower}{cell}", ("conv", "pool", "skip"), present),
                    Choice(f"{tower}{cell}.kernel", (1, 3, 5, 7, 9), (*present, (f"{tower}{cell}", ("conv",)))),
                    Choice(f"{tower}{cell}.mean", (False, True), (*present, (f"{tower}{cell}", ("pool",)))),
                    Choice(f"{tower}{cell}.rate", (0.5, 1.0), present),
                ]
        self.choices = tuple(choices)

    def model_space(self) -> ModelSpace:
        return Labels(self.choices)

    def build(self, architecture: Mapping[str, Value]) -> NoReturn:
        raise NotImplementedError

    def network(self, architecture: Mapping[str, Value]) -> Hashable:
        """What there is of it, without a look at the conditions."""
        made: list[Hashable] = [architecture["resolution"], architecture["dropout"]]
        for tower in ("a", "b", "c"):
            for cell in range(int(architecture[f"{tower}.cells"]) if architecture[tower] else 0):
                kind = str(architecture[f"{tower}{cell}"])
                detail = {"conv": "kernel", "pool": "mean"}.get(kind)
                setting = architecture[f"{tower}{cell}.{detail}"] if detail else None
                made.append((tower, kind, setting, architecture[f"{tower}{cell}.rate"]))
        return tuple(made)


class Labels(ModelSpace):  # type: ignore[misc]  # NNI has no types
    def __init__(self, choices: tuple[Choice, ...]) -> None:
        super().__init__()
        for each in choices:
            self.add_mutable(choice(each.label, list(each.values)))


class Listening(InstantEngine):
    asked = 0

    def submit_models(self, *models: Any) -> None:
        self.asked += len(models)
        super().submit_models(*models)


def convnet() -> Any:
    """One to four blocks a stage, each with an activation of its own."""
    return space_of(config_of({"name": "random"}, 1, stages=2, depths=[1, 2, 3, 4], activation_scope="block"))


def network_of(space: Any, architecture: Architecture) -> Hashable:
    if isinstance(space, Towers):
        return space.network(architecture)
    return tuple((block.kind, block.settings, block.input_shape) for block in space.blocks(architecture))


def judge(architecture: Architecture) -> TrialResult:
    """More choices make a network better and dearer; some fail, some are too expensive."""
    size, number = len(architecture), int(architecture_id(architecture)[:6], 16)
    if number % 11 == 0:
        return TrialResult("failed", error="unlucky")
    if size > 45:
        return TrialResult("infeasible", {"macs": float(size)}, {"excess": {"macs": size / 45 - 1}})
    return TrialResult("ok", {"accuracy": 0.01 * size + 1e-9 * number, "macs": float(size)}, {})


def run(space: SearchSpace, name: str, path: Path, killed_at: int | None = None) -> tuple[list[TrialRecord], int]:
    """The journal's trials, and how many architectures the strategy asked for."""
    config = config_of({"name": name, **OPTIONS.get(name, {})}, TRIALS)
    journal = Journal.open(path) if path.exists() else Journal.create(path, {})
    budget = Budget(config.budget, journal.trials())
    engine = Listening(config, space, journal, budget, Reporter(), judge=judge, killed_at=killed_at)
    problem = Problem(space, 0, ("accuracy", "macs"), {"macs": 45.0})
    strategy = strategy_of(config.strategy, problem)
    try:
        strategy(SimplifiedModelSpace.from_model(space.model_space()), engine)
    except KilledError:
        pass
    finally:
        records = journal.trials()
        journal.close()
    return records, engine.asked


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("kind", [convnet, Towers])
def test_every_strategy_spends_its_trials_on_networks_that_differ(tmp_path: Path, name: str, kind: Any) -> None:
    space = kind()
    found, asked = run(space, name, tmp_path / "j")
    assert sum(record.status != "infeasible" for record in found) == TRIALS
    assert len({network_of(space, record.architecture) for record in found}) == len(found)
    for record in found:
        assert space.canonical(space.complete(record.architecture)) == record.architecture
    assert asked == len(found) or name in NNI_OWN


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_numbers_names_and_truth_values_come_back_from_the_journal(tmp_path: Path, name: str) -> None:
    space = Towers()
    whole, _ = run(space, name, tmp_path / "whole")
    run(space, name, tmp_path / "broken", killed_at=len(whole) // 2)
    resumed, _ = run(space, name, tmp_path / "broken")
    assert [record.id for record in resumed] == [record.id for record in whole]
    kinds = {type(value) for record in resumed for value in record.architecture.values()}
    assert kinds == {int, float, bool, str}


def test_the_spaces_are_as_wide_as_they_are_said_to_be() -> None:
    space = Towers()
    assert space.size() > 10**12
    cells = [sum((5 + 2 + 1) ** depth * 2**depth for depth in (1, 2, 3, 4))] * 3
    assert space.size() == 9 * int(np.prod([1 + each for each in cells], dtype=object))
    assert convnet().size() > 10**12


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_grid_of_more_than_any_list_could_hold_starts_at_once(shuffle: bool) -> None:
    space = Towers()
    config = config_of({"name": "grid", "shuffle": shuffle}, TRIALS)
    grid = strategy_of(config.strategy, Problem(space, 0, ("accuracy",)))
    ids = [architecture_id(architecture) for architecture in islice(grid.architectures(), 50)]
    assert len(set(ids)) == 50
