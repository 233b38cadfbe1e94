"""What a calibrated cost model tells a strategy beforehand, and that a run keeps it."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latency_models.devices.device import Device
from latency_models.devices.environment import capture
from latency_models.predictors.operator_model import Observation
from pipeline.config.file import parse_config
from pipeline.costs.known_costs import known_costs
from pipeline.costs.latency_predictor import BlockwisePredictor, FeaturePredictor
from pipeline.costs.predictor_file import CostModelError, Scope, identity_of, save
from pipeline.data import load_data
from pipeline.run import RunDirectory
from pipeline.spaces.make import make_space
from pipeline.strategies.guided import Guided
from pipeline.strategies.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.spaces.base import SearchSpace

CONVNET = {"name": "convnet", "width": 8, "stages": 2, "depths": [1, 2]}


@pytest.fixture(autouse=True)
def _own_place_of_cost_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


class Case:
    """A run without trials, and the place where its searches look for a cost model."""

    def __init__(self, path: Path, **changes: Any) -> None:
        sections: dict[str, Any] = {"data": {"name": "digits"}, "space": CONVNET}
        self.run = RunDirectory.create(path, parse_config(sections | changes, "the test's config"))
        self.data = load_data(self.run.config.data)
        self.space: SearchSpace = make_space(self.run.config, self.data)
        self.scope = Scope(identity_of(self.run.config, self.data), Device(), capture(Device()))
        self.file = self.scope.file

    def known(self, *, begun: bool = False) -> Any:
        return known_costs(self.run, self.data, self.space, begun=begun)

    def calibrate(self, factor: float = 1.0) -> BlockwisePredictor:
        model, rng = BlockwisePredictor(self.space), random.Random(0)
        found = []
        for _ in range(20):
            operators = model.operators(self.space.at(rng.randrange(self.space.size())))
            ms = factor * sum(0.001 + 1e-7 * sum(operator.work) for operator in operators)
            found.append(Observation(operators, ms, 0.01))
        model.observe_probes(found)
        save(self.file, model, self.scope)
        return model


def test_without_a_calibration_nothing_is_known(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    assert case.known() is None
    assert not case.run.cost_model.exists()


def test_latencies_are_those_of_the_cost_model(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    model = case.calibrate()
    some = [case.space.at(rank) for rank in range(0, case.space.size(), case.space.size() // 50)]
    predictions = [model.predict(each, {}) for each in some]
    known = case.known()
    assert known.metrics == ("latency_ms",)
    assert known.costs(some)[:, 0] == pytest.approx([each.latency_ms for each in predictions if each is not None])
    assert known.costs([]).shape == (0, 1)


def test_a_run_keeps_what_it_began_with(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    case.calibrate()
    some = [case.space.at(rank) for rank in range(10)]
    before = case.known().costs(some)
    case.calibrate(factor=2.0)
    assert np.array_equal(case.known().costs(some), before)
    case.file.unlink()
    moved = case.run.path.rename(tmp_path / "moved")
    case.run = RunDirectory.open(moved)
    assert np.array_equal(case.known(begun=True).costs(some), before)


def test_a_calibration_after_the_first_trial_changes_no_proposal(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    case.calibrate()
    assert case.known(begun=True) is None


def test_who_wants_measurements_alone_gets_no_predictions(tmp_path: Path) -> None:
    case = Case(tmp_path / "run", cost_model="measure")
    case.calibrate()
    assert case.known() is None


def test_a_named_file_is_known(tmp_path: Path) -> None:
    first = Case(tmp_path / "first")
    first.calibrate()
    case = Case(tmp_path / "run", cost_model=str(first.file))
    assert case.known().metrics == ("latency_ms",)


def test_networks_that_have_to_be_built_are_not_known_beforehand(tmp_path: Path) -> None:
    case = Case(tmp_path / "run", space={"name": "nasbench201", "width": 8})
    save(case.file, FeaturePredictor(case.space), case.scope)
    assert case.known() is None


def test_a_damaged_copy_is_told(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    case.calibrate()
    case.known()
    document = json.loads(case.run.cost_model.read_text())
    case.run.cost_model.write_text(json.dumps({**document, "model": {"operators": 3}}))
    with pytest.raises(CostModelError, match="a damaged cost model"):
        case.known(begun=True)


def test_guided_asks_for_nothing_that_is_known_to_break_the_limit(tmp_path: Path) -> None:
    case = Case(tmp_path / "run")
    case.calibrate()
    known = case.known()
    every = known.costs([case.space.at(rank) for rank in range(0, case.space.size(), 101)])[:, 0]
    limit = float(np.quantile(every, 0.1))
    problem = Problem(case.space, 0, ("accuracy", "latency_ms"), {"latency_ms": limit}, known)
    strategy = Guided(case.run.config.strategy, problem)  # type: ignore[arg-type]  # the default's options
    proposed = []
    for index in range(6):
        found = strategy.propose(np.random.default_rng(index))
        assert found is not None
        strategy.index += 1
        strategy.pending.append(found)
        proposed.append(found)
    assert (known.costs(proposed)[:, 0] <= limit).all()
    assert np.quantile(every, 0.5) > limit
