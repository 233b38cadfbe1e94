"""Several trials at a time: results in any order, and the same search again after a kill."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.cli import alive, command, journal_ids, records, small_config, spawn, wait_for
from helpers.instant import InstantWorkers, config_of, search
from pipeline.engines.parallel import EndedTrial
from pipeline.engines.trial import TrialResult
from pipeline.errors import JournalError
from pipeline.tables import STRATEGIES
from pipeline.trials.journal import Journal, TrialRecord

OPTIONS: dict[str, dict[str, Any]] = {"evolution": {"population": 8, "sample": 3}}
WORKERS = 4


@pytest.fixture(scope="module", params=list(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def config(name: str, trials: int = 30, **space: Any) -> Any:
    return config_of({"name": name, **OPTIONS.get(name, {})}, trials, 0, **{"stages": 2, **space})


@pytest.fixture(scope="module")
def whole(name: str, tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """An unbroken run of thirty trials, four at a time."""
    return search(tmp_path_factory.mktemp(name) / "j", config(name), workers=WORKERS)[0]


class TestEveryStrategy:
    def test_spends_the_budget_and_no_more(self, whole: list[TrialRecord]) -> None:
        assert sum(record.status != "infeasible" for record in whole) == 30
        assert len({record.id for record in whole}) == len(whole)
        assert [record.number for record in whole] == list(range(len(whole)))

    @pytest.mark.parametrize("killed_at", [0, 2, 9, 23, 29])
    def test_goes_on_after_a_kill_as_if_there_had_been_none(
        self, tmp_path: Path, name: str, whole: list[TrialRecord], killed_at: int
    ) -> None:
        first, _ = search(tmp_path / "j", config(name), killed_at=killed_at, workers=WORKERS)
        assert len(first) == killed_at
        resumed, judged = search(tmp_path / "j", config(name), workers=WORKERS)
        assert [record.id for record in resumed] == [record.id for record in whole]
        assert judged == [record.id for record in whole[killed_at:]]

    def test_a_longer_budget_replays_the_shorter_one(self, tmp_path: Path, name: str) -> None:
        first, _ = search(tmp_path / "j", config(name, 15), workers=WORKERS)
        both, judged = search(tmp_path / "j", config(name, 30), workers=WORKERS)
        assert both[: len(first)] == first
        assert [record.id for record in both[len(first) :]] == judged
        assert sum(record.status != "infeasible" for record in both) == 30

    def test_ends_when_everything_breaks_a_limit(self, tmp_path: Path, name: str) -> None:
        """The search is given up while other trials run; whoever waits for those gets their results."""

        def over(_: object) -> TrialResult:
            return TrialResult("infeasible", {"macs": 2.0}, {"excess": {"macs": 1.0}})

        few = config(name)
        few = few.model_copy(update={"budget": few.budget.model_copy(update={"infeasible": 20})})
        found, _ = search(tmp_path / "j", few, judge=over, workers=WORKERS)
        assert 20 <= len(found) < 20 + WORKERS  # the cap, and what ran beside the last one

    def test_one_worker_is_the_engine_that_answers_at_once(self, tmp_path: Path, name: str) -> None:
        alone, _ = search(tmp_path / "alone", config(name), workers=1)
        plain, _ = search(tmp_path / "plain", config(name))
        assert [record.id for record in alone] == [record.id for record in plain]


def test_only_what_runs_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NNI calls a model is a copy of the space; thousands of finished ones are too much to hold."""
    listed, own = [], InstantWorkers._wait

    def noted(engine: InstantWorkers) -> EndedTrial:
        listed.append(len(list(engine.list_models())))
        return own(engine)

    monkeypatch.setattr(InstantWorkers, "_wait", noted)
    search(tmp_path / "j", config("random"), workers=WORKERS)
    assert max(listed) == WORKERS
    assert listed[-1] == 1


@pytest.mark.parametrize("name", ["evolution", "local_search"])
def test_a_run_of_one_at_a_time_goes_on_with_several(tmp_path: Path, name: str) -> None:
    first, _ = search(tmp_path / "j", config(name, 15))
    both, _ = search(tmp_path / "j", config(name, 30), workers=WORKERS)
    assert both[: len(first)] == first
    assert sum(record.status != "infeasible" for record in both) == 30


def test_a_run_of_several_at_a_time_wants_its_engine(tmp_path: Path) -> None:
    search(tmp_path / "j", config("local_search", 15), workers=WORKERS)
    with pytest.raises(JournalError, match="several trials ran at a time"):
        search(tmp_path / "j", config("local_search", 30))


def test_all_workers_are_busy_until_the_budget_ends(tmp_path: Path) -> None:
    running: list[int] = []
    from helpers.instant import InstantWorkers

    original = InstantWorkers._wait

    def watched(self: InstantWorkers) -> Any:
        running.append(len(self._running))
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InstantWorkers, "_wait", watched)
        search(tmp_path / "j", config("random"), workers=WORKERS, judge=_fine)
    assert running == [WORKERS] * (30 - WORKERS + 1) + [3, 2, 1]


def test_a_journal_of_another_order_is_refused(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "j", config("evolution"), workers=WORKERS)
    other = Journal.create(tmp_path / "other", {})
    for number, record in enumerate([*whole[:3], whole[20]]):
        other.append(TrialRecord(**{**vars(record), "number": number}))
    other.close()
    with pytest.raises(JournalError, match="doesn't follow from config and seed"):
        search(tmp_path / "other", config("evolution"), workers=WORKERS)


def _fine(architecture: Any) -> TrialResult:
    return TrialResult("ok", {"accuracy": 0.5, "macs": 1e6}, {})


def test_the_engine_processes_runs_a_whole_search(tmp_path: Path) -> None:
    """Two real children at a time; none is left behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    path = small_config(tmp_path / "config.yaml", engine={"name": "processes", "workers": 2}, budget={"trials": 4})
    done = command("search", str(path), "--run-dir", str(tmp_path / "run"), "--json")
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    assert Path(document["bundle_dir"], "model.onnx").is_file()
    trials = json.loads(command("trials", str(tmp_path / "run"), "--json").stdout)
    assert sum(trial["status"] == "ok" for trial in trials) == 4
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_engine_processes_goes_on_after_it_was_stopped(tmp_path: Path, how: signal.Signals) -> None:
    run = tmp_path / "run"
    path = small_config(
        tmp_path / "config.yaml",
        engine={"name": "processes", "workers": 2},
        evaluator={"name": "stub_evaluators:SlowHash"},
        strategy={"name": "local_search", "starts": 3},
        budget={"trials": 8},
        final={"epochs": 1},
    )
    process = spawn("search", str(path), "--run-dir", str(run), cwd=tmp_path)
    try:
        wait_for(lambda: len(journal_ids(run)) >= 2)
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    finally:
        process.send_signal(how)
        process.communicate(timeout=60)
    assert len(children) >= 2
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    wait_for(lambda: not any(alive(child) for child in children), 20)
    left = journal_ids(run)
    result = command("resume", str(run), "--json", cwd=tmp_path)
    assert result.code == 0, result.stderr
    assert journal_ids(run)[: len(left)] == left
    ended = [trial for trial in records(run) if trial.status != "infeasible"]
    assert len(ended) == 8
