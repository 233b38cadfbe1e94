"""Trials that are stopped early: by real trainings, in both engines, resumed, shown, picked and learnt from."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from helpers.cli import SMALL, check_message, merged, small_config
from helpers.driven import drive, flat, record_of
from pipeline.cli.console import TerminalReporter
from pipeline.cli.trial_text import as_table
from pipeline.commands import runs as commands
from pipeline.commands.trials import trial_reader
from pipeline.config.evaluator import StoppingOptions
from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.config.strategy import GuidedOptions
from pipeline.engines.trial import TrialRunner
from pipeline.errors import ConfigError, EvaluatorError
from pipeline.evaluators.learning_curve import CurveMonitor, curves_of, expected_errors, peers_of
from pipeline.evaluators.stopping_rules import LearningCurve, verdict
from pipeline.run import RunDirectory
from pipeline.search import load_inputs, run_search
from pipeline.spaces.base import Architecture
from pipeline.strategies.guided import Guided
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord
from pipeline.trials.result import TrialResult
from pipeline.winner.pick import RULES, ranked

CURVED = "stub_evaluators:Curved"
MEDIAN = {"rule": "median", "min_peers": 2}
HALVING = {"rule": "halving", "min_peers": 2}


def config(**changes: Any) -> RunConfig:
    return parse_config(merged(SMALL, changes), "the test's config")


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestWatch:
    def test_keeps_the_curve_and_the_words(self) -> None:
        told: list[tuple[int, int, float]] = []
        watch = CurveMonitor(
            lambda curve, epochs: "enough" if len(curve) == 2 else None, lambda *each: told.append(each)
        )
        assert [watch(1, 4, 0.5), watch(2, 4, np.float32(0.75))] == [False, True]  # type: ignore[arg-type]
        assert watch.details() == {"curve": [0.5, 0.75], "stopped_after": 2, "epochs": 4, "stopped_by": "enough"}
        assert json.loads(json.dumps(watch.details())) == watch.details()
        assert [each[:2] for each in told] == [(1, 4), (2, 4)]

    def test_whoever_goes_on_wasnt_stopped(self) -> None:
        watch = CurveMonitor(lambda curve, epochs: "enough" if len(curve) == 1 else None)
        assert [watch(1, 2, 0.5), watch(2, 2, 0.6)] == [True, False]
        assert watch.details() == {"curve": [0.5, 0.6]}

    @pytest.mark.parametrize("calls", [[(2, 0.5)], [(1, 0.5), (1, 0.5)], [(1, float("nan"))], [(1, 97.3)], []])
    def test_what_is_no_curve_is_none_and_stops_nothing(self, calls: list[tuple[int, float]]) -> None:
        watch = CurveMonitor(lambda curve, epochs: "enough" if len(curve) == 2 else None)
        assert not any([watch(epoch, 3, accuracy) for epoch, accuracy in [*calls, (2, 0.5), (3, 0.5)]][:-1])
        assert "stopped_after" not in watch.details()


class TestRealTraining:
    """The evaluator `train` on the digits."""

    SETTINGS: ClassVar[Any] = {
        "evaluator": {"epochs": 3, "stopping": {"rule": "median", "min_peers": 1}},
        "constraints": {},
    }
    PERFECT: ClassVar[Any] = {"curve": [1.0] * 3, "objectives": {"accuracy": 1.0, "macs": 1.0}}

    def run(self, runner: TrialRunner) -> TrialResult:
        return runner.run(runner.space.canonical(runner.space.at(5)), None)

    def test_is_stopped_where_it_is_and_changed_nothing_before(self, one_thread: None) -> None:
        whole = self.run(TrialRunner(config(**self.SETTINGS)))
        assert len(whole.details["curve"]) == 3
        assert whole.objectives["accuracy"] == whole.details["curve"][-1]
        runner = TrialRunner(config(**self.SETTINGS))
        runner.add_peers([self.PERFECT])
        stopped = self.run(runner)
        assert stopped.status == "ok"
        assert stopped.details["curve"] == whole.details["curve"][:1]
        assert stopped.objectives["accuracy"] == whole.details["curve"][0]
        assert (stopped.details["stopped_after"], stopped.details["epochs"]) == (1, 3)
        assert "median of 1 trials" in stopped.details["stopped_by"]

    def test_a_dearer_peer_stops_nothing_but_where_accuracy_alone_counts(self, one_thread: None) -> None:
        expensive = {**self.PERFECT, "objectives": {"accuracy": 1.0, "macs": 1e12}}
        found = []
        for aim in ("front", "accuracy"):
            stopping = {"rule": "median", "min_peers": 1, "aim": aim}
            runner = TrialRunner(config(evaluator={"epochs": 2, "stopping": stopping}, constraints={}))
            runner.add_peers([expensive])
            found.append("stopped_after" in self.run(runner).details)
        assert found == [False, True]

    def test_without_a_rule_and_a_listener_only_the_end_is_evaluated(
        self, one_thread: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline.evaluators.device_data import DeviceData

        calls: list[int] = []
        original = DeviceData.accuracy
        monkeypatch.setattr(DeviceData, "accuracy", lambda *args: calls.append(1) or original(*args))
        runner = TrialRunner(config(evaluator={"epochs": 3}, constraints={}))
        result = self.run(runner)
        assert len(calls) == 1
        assert "curve" not in result.details
        heard: list[int] = []
        listened = runner.run(runner.space.canonical(runner.space.at(5)), lambda epoch, *_: heard.append(epoch))
        assert len(listened.details["curve"]) == len(heard) == 3
        assert listened.objectives["accuracy"] == result.objectives["accuracy"]

    def test_a_stopped_one_is_quantised_like_others(self, one_thread: None) -> None:
        runner = TrialRunner(config(**self.SETTINGS, device={"precision": "int8"}, cost_model="measure"))
        runner.add_peers([self.PERFECT])
        result = self.run(runner)
        assert result.details["stopped_after"] == 1
        assert result.details["accuracy_fp32"] == result.details["curve"][-1]
        assert 0 < result.objectives["accuracy"] <= 1


def expected_stop(settings: dict[str, Any], record: TrialRecord, before: list[TrialRecord]) -> int | None:
    """After which epoch the rule ends a trial's training, by what its record and those before tell."""
    names = ["macs"]
    peers = curves_of(peers_of(before), names)
    curve = record.details["curve"]
    for epoch in range(1, len(curve) + 1):
        own = LearningCurve(tuple(curve[:epoch]), (record.objectives["macs"],))
        if verdict(StoppingOptions(**settings), own, peers, 4) is not None:
            return epoch
    return None


def searched(path: Path, trials: int, **changes: Any) -> tuple[RunDirectory, list[TrialRecord]]:
    """A search without what comes after it; one that is there is gone on with."""
    if path.exists():
        saved = path / "config.yaml"
        values = yaml.safe_load(saved.read_text(encoding="utf-8"))
        values["budget"]["trials"] = trials
        saved.write_text(yaml.safe_dump(values), encoding="utf-8")
        run = RunDirectory.open(path)
    else:
        run = RunDirectory.create(path, config(budget={"trials": trials}, constraints={}, **changes))
    data, space = load_inputs(run.config, "the test's config")
    journal = run.open_journal()
    try:
        run_search(run, journal, data, space, TerminalReporter())
        return run, journal.trials()
    finally:
        journal.close()


@pytest.mark.parametrize(("engine", "settings"), [("inline", MEDIAN), ("processes", HALVING)])
def test_engines_decide_by_all_trials_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    engine: str,
    settings: dict[str, Any],
) -> None:
    """Also after the child died and another one took over; and everybody is told."""
    monkeypatch.chdir(tmp_path)
    workers = {"workers": 2} if engine == "processes" else {}
    evaluator = {"name": CURVED, "stopping": settings, "crash_at": 6}
    run, found = searched(tmp_path / "run", 16, engine={"name": engine, **workers}, evaluator=evaluator)
    assert sum(record.status == "failed" for record in found) == 1
    trained = [record for record in found if record.status == "ok"]
    assert len(trained) == 15
    for record in trained:
        known = record.details["submission"]["after"] if engine == "processes" else record.number
        assert record.details.get("stopped_after") == expected_stop(settings, record, found[:known])
        assert record.objectives["accuracy"] == record.details["curve"][-1]
    stopped = [record for record in trained if "stopped_after" in record.details]
    assert stopped
    assert len(stopped) < len(trained)
    rows = [trial.as_dict() for trial in commands.load_run(run.path).trials]
    assert {row["id"]: row["details"] for row in rows}[stopped[0].id] == stopped[0].details
    mark = f"stopped after {stopped[0].details['stopped_after']} of 4 epochs"
    with trial_reader(run.path) as reader:
        shown = "".join(as_table(reader))
    assert mark in shown
    assert f"; of them {len(stopped)} stopped early" in shown
    assert mark in commands.report(run.path).read_text(encoding="utf-8")
    assert mark in capfd.readouterr().err


def test_a_resumed_run_stops_what_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluator = {"name": CURVED, "stopping": MEDIAN}
    _, whole = searched(tmp_path / "whole", 14, evaluator=evaluator)
    searched(tmp_path / "parts", 7, evaluator=evaluator)
    _, parts = searched(tmp_path / "parts", 14)
    assert [_told(record) for record in parts] == [_told(record) for record in whole]
    assert any("stopped_after" in record.details for record in whole[7:])


def _told(record: TrialRecord) -> tuple[Any, ...]:
    return record.id, record.details.get("stopped_after"), record.details["curve"], record.objectives["accuracy"]


class TestThirdParties:
    def test_one_that_doesnt_take_part_is_never_asked_to_stop(self) -> None:
        section = {"name": "stub_evaluators:Deaf", "stopping": {"rule": "median", "min_peers": 1}}
        runner = TrialRunner(config(evaluator=section, constraints={}))
        runner.add_peers([{"curve": [1.0] * 4, "objectives": {"accuracy": 1.0, "macs": 1.0}}])
        result = runner.run(runner.space.canonical(runner.space.at(3)), lambda *_: None)
        assert len(result.details["curve"]) == 4
        assert "stopped_after" not in result.details

    @pytest.mark.parametrize("stopping", [{"rule": "medain"}, {"rule": "median", "frist": 1}, "median"])
    def test_ones_mistakes_are_told(self, stopping: Any) -> None:
        with pytest.raises(EvaluatorError, match=r"evaluator\.stopping.*keys: rule, first, min_peers, factor, aim"):
            TrialRunner(config(evaluator={"name": CURVED, "stopping": stopping}))

    def test_ones_mistakes_reach_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hwnas: Any) -> None:
        monkeypatch.chdir(tmp_path)
        path = small_config(tmp_path / "c.yaml", evaluator={"name": CURVED, "stopping": {"rule": "medain"}})
        check_message(hwnas("search", path, "--run-dir", tmp_path / "r"), 2, "evaluator.stopping.rule", "medain")


@pytest.mark.parametrize(
    ("stopping", "words"),
    [
        ({"rule": "medain"}, ("evaluator.stopping.rule", "'medain'", "did you mean 'median'")),
        ({"rule": "median", "frist": 2}, ("evaluator.stopping.frist", "unknown key", "did you mean 'first'")),
        ({"rule": "halving", "factor": 1}, ("evaluator.stopping.factor", "greater than or equal to 2")),
        ({"rule": "median", "first": 0}, ("evaluator.stopping.first",)),
        ({"rule": "median", "first": 3}, ("evaluator", "stopping.first is 3", "of 3 epochs", "valid: 1 to 2")),
        ({"rule": "median", "aim": "latency"}, ("evaluator.stopping.aim", "'latency'")),
        ("median", ("evaluator.stopping", "'median'")),
    ],
)
def test_mistakes_in_the_config_are_told(stopping: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        config(evaluator={"name": "train", "epochs": 3, "stopping": stopping})
    assert not [word for word in words if word not in str(raised.value)], raised.value


def test_a_config_without_a_rule_is_written_as_before() -> None:
    """So that runs that were begun before there were rules can be gone on with."""
    plain = config(evaluator={"name": "train", "epochs": 3})
    assert json.loads(plain.model_dump_json())["evaluator"] == {"name": "train", "epochs": 3}
    ruled = config(evaluator={"name": "train", "epochs": 3, "stopping": MEDIAN})
    assert parse_config(json.loads(ruled.model_dump_json()), "again") == ruled


def trial(number: int, curve: list[float], macs: float = 1.0, *, stopped: bool = False) -> TrialRecord:
    details: dict[str, Any] = {"curve": curve}
    if stopped:
        details |= {"stopped_after": len(curve), "epochs": 4, "stopped_by": "a rule"}
    objectives = {"accuracy": curve[-1], "macs": macs, "latency_ms": macs}
    return record_of({"c0": number}, TrialResult("ok", objectives, details), number)


class TestPicks:
    RECORDS = (
        trial(0, [0.3, 0.9], 5.0),
        trial(1, [0.95], 4.0, stopped=True),
        trial(2, [0.2, 0.6], 2.0),
        trial(3, [0.5], 1.0, stopped=True),
    )

    def ranked(self, tmp_path: Path, found: list[TrialRecord], pick: str) -> list[int]:
        return [record.number for record in ranked(RunDirectory(tmp_path, config()), found, pick)]

    @pytest.mark.parametrize("rule", list(RULES))
    def test_those_trained_to_the_end_come_first(self, tmp_path: Path, rule: str) -> None:
        order = self.ranked(tmp_path, list(self.RECORDS), rule)
        assert set(order[:2]) == {0, 2}
        assert set(order[2:]) == {1, 3}

    @pytest.mark.parametrize("rule", list(RULES))
    def test_where_all_were_stopped_they_have_to_do(self, tmp_path: Path, rule: str) -> None:
        found = [record for record in self.RECORDS if "stopped_after" in record.details]
        assert set(self.ranked(tmp_path, found, rule)) == {1, 3}

    def test_by_its_id_each_can_be_had(self, tmp_path: Path) -> None:
        assert self.ranked(tmp_path, list(self.RECORDS), self.RECORDS[1].id) == [1]


class TestExpectedErrors:
    WHOLE = tuple(trial(n, [0.2, 0.5, last]) for n, last in enumerate((0.6, 0.75, 0.9)))

    def test_by_hand(self) -> None:
        """Last errors over those after epoch 2: 0.8, 0.5, 0.2; after epoch 1: 0.5, 0.3125, 0.125."""
        found = [*self.WHOLE, trial(3, [0.1, 0.4], stopped=True), trial(4, [0.2], stopped=True)]
        np.testing.assert_allclose(expected_errors(found), [0.4, 0.25, 0.1, 0.6 * 0.5, 0.8 * 0.3125])

    def test_few_say_nothing(self) -> None:
        found = [*self.WHOLE[:2], trial(3, [0.1, 0.4], stopped=True)]
        np.testing.assert_allclose(expected_errors(found), [0.4, 0.25, 0.6])

    def test_failed_ones_have_none_and_perfect_ones_no_ratio(self) -> None:
        failed = record_of({"c0": 9}, TrialResult("failed", error="x"), 9)
        perfect = trial(8, [0.2, 1.0, 1.0])
        found = expected_errors([*self.WHOLE, failed, perfect, trial(3, [0.1, 0.4], stopped=True)])
        np.testing.assert_allclose(found, [0.4, 0.25, 0.1, np.nan, 0.0, 0.3])

    def test_guided_learns_from_them_and_keeps_its_front(self) -> None:
        """Each fourth trial is stopped at an error of which a quarter would have been left."""

        def judge(architecture: Architecture) -> TrialResult:
            final = 0.9 - 0.05 * sum(int(value) for value in architecture.values()) / 18
            curve = [1 - 4 * (1 - final), final]
            stopped = sum(int(value) for value in architecture.values()) % 4 == 0
            details = {"curve": curve[:1], "stopped_after": 1, "epochs": 2} if stopped else {"curve": curve}
            objectives = {"accuracy": details["curve"][-1], "macs": 1.0 + list(architecture.values()).count(0)}
            return TrialResult("ok", objectives, details)

        strategy = Guided(GuidedOptions(name="guided"), Problem(flat(), 0, ("accuracy", "macs")))
        history = drive(strategy, judge, 20)
        stopped = [row for row, record in enumerate(history) if "stopped_after" in record.details]
        assert 0 < len(stopped) < 17
        errors = strategy._errors()
        recorded = np.array([1 - record.objectives["accuracy"] for record in history])
        assert errors.shape == (20,)
        np.testing.assert_allclose(errors[stopped], recorded[stopped] / 4)
        others = np.setdiff1d(np.arange(20), stopped)
        np.testing.assert_array_equal(errors[others], recorded[others])
        np.testing.assert_array_equal(strategy._losses(range(20))[:, 0], recorded)
