"""Several trials at a time end in any order, and the search is the same: also again, and after a kill."""

import json
import signal
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.cli import alive, command, journal_ids, records, small_config, spawn, wait_for
from helpers.instant import InstantWorkers, config_of, search
from pipeline.engines.parallel import EndedTrial, open_trials
from pipeline.engines.trial import TrialResult
from pipeline.errors import JournalError
from pipeline.spaces.base import architecture_id
from pipeline.tables import STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal, TrialRecord

OPTIONS: dict[str, dict[str, Any]] = {"evolution": {"population": 8, "sample": 3}}
WORKERS = 4


@pytest.fixture(scope="module", params=list(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def config(name: str, trials: int = 30, **space: Any) -> Any:
    return config_of({"name": name, **OPTIONS.get(name, {})}, trials, 0, **{"stages": 2, **space})


@pytest.fixture(scope="module")
def wholes(name: str, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[TrialRecord]]:
    """Unbroken runs, four trials at a time; whether those over a limit have their result at once → thirty trials."""
    folder = tmp_path_factory.mktemp(name)
    return {
        counts: search(folder / f"{counts}", config(name), workers=WORKERS, counts=counts)[0]
        for counts in (False, True)
    }


@pytest.fixture
def whole(wholes: dict[bool, list[TrialRecord]]) -> list[TrialRecord]:
    return wholes[False]


def submitted(records: list[TrialRecord]) -> list[TrialRecord]:
    """The trials without what the clock decides, in the order of submission."""
    ordered = sorted(records, key=lambda record: record.submitted)
    return [replace(each, number=0, started="", elapsed_s=0.0, details=_lasting(each.details)) for each in ordered]


def _lasting(details: dict[str, Any]) -> dict[str, Any]:
    place = {key: value for key, value in details["submission"].items() if key != "earlier"}
    return {**details, "submission": place}


class TestEveryStrategy:
    def test_spends_the_budget_and_no_more(self, whole: list[TrialRecord]) -> None:
        assert sum(record.status != "infeasible" for record in whole) == 30
        assert len({record.id for record in whole}) == len(whole)
        assert [record.number for record in whole] == list(range(len(whole)))

    @pytest.mark.parametrize("counts", [False, True])
    def test_asks_for_the_same_whenever_trials_end(
        self, tmp_path: Path, name: str, wholes: dict[bool, list[TrialRecord]], counts: bool
    ) -> None:
        other, _ = search(tmp_path / "j", config(name), workers=WORKERS, clock="other", counts=counts)
        assert submitted(other) == submitted(wholes[counts])
        assert [record.id for record in other] != [record.id for record in wholes[counts]]  # they did end otherwise

    @pytest.mark.parametrize(
        ("killed_at", "counts"), [(0, False), (2, False), (9, False), (23, False), (29, False), (7, True), (22, True)]
    )
    def test_goes_on_after_a_kill_as_if_there_had_been_none(
        self, tmp_path: Path, name: str, wholes: dict[bool, list[TrialRecord]], killed_at: int, counts: bool
    ) -> None:
        first, _ = search(tmp_path / "j", config(name), killed_at=killed_at, workers=WORKERS, counts=counts)
        assert len(first) == killed_at
        resumed, judged = search(tmp_path / "j", config(name), workers=WORKERS, clock="other", counts=counts)
        assert resumed[:killed_at] == first
        assert submitted(resumed) == submitted(wholes[counts])
        assert sorted(judged) == sorted(record.id for record in resumed[killed_at:])

    def test_goes_on_after_kill_upon_kill_with_another_budget_each_time(self, tmp_path: Path, name: str) -> None:
        left: list[TrialRecord] = []
        for killed_at, trials in ((4, 8), (7, 40), (12, 15), (21, 40), (33, 34), (None, 40)):
            now, judged = search(
                tmp_path / "j", config(name, trials), killed_at=killed_at, workers=WORKERS, clock=str(killed_at)
            )
            assert now[: len(left)] == left
            assert [record.id for record in now[len(left) :]] == judged
            left = now
        assert sum(record.status != "infeasible" for record in left) == 40

    def test_a_longer_budget_replays_the_shorter_one(self, tmp_path: Path, name: str) -> None:
        first, _ = search(tmp_path / "j", config(name, 15), workers=WORKERS)
        both, judged = search(tmp_path / "j", config(name, 30), workers=WORKERS)
        assert both[: len(first)] == first
        assert [record.id for record in both[len(first) :]] == judged
        assert sum(record.status != "infeasible" for record in both) == 30

    @pytest.mark.parametrize("trials", [15, 30])
    def test_a_run_of_the_builds_before_goes_on(self, tmp_path: Path, name: str, trials: int) -> None:
        """They gave results as trials ended, and submitted none ahead."""
        first, _ = search(tmp_path / "j", config(name, 15), workers=WORKERS, kind=AsTheyEnd)
        assert "earlier" not in first[0].details["submission"]
        for killed_at in (trials - 1, None):
            now, _ = search(tmp_path / "j", config(name, trials), workers=WORKERS, killed_at=killed_at, clock="other")
            assert now[: len(first)] == first
        assert sum(record.status != "infeasible" for record in now) == trials

    @pytest.mark.parametrize("killed_at", [3, 7, 12])
    def test_a_killed_run_of_the_builds_before_goes_on(self, tmp_path: Path, name: str, killed_at: int) -> None:
        first, _ = search(tmp_path / "j", config(name), workers=WORKERS, kind=AsTheyEnd, killed_at=killed_at)
        now, judged = search(tmp_path / "j", config(name), workers=WORKERS, counts=True)
        assert now[:killed_at] == first
        assert [record.id for record in now[killed_at:]] == judged
        assert sum(record.status != "infeasible" for record in now) == 30

    @pytest.mark.parametrize("counts", [False, True])
    def test_ends_when_everything_breaks_a_limit(self, tmp_path: Path, name: str, counts: bool) -> None:
        """The search is given up while other trials run; whoever waits for those gets their results."""

        def over(_: object) -> TrialResult:
            return TrialResult("infeasible", {"macs": 2.0}, {"excess": {"macs": 1.0}})

        few = config(name)
        few = few.model_copy(update={"budget": few.budget.model_copy(update={"infeasible": 20})})
        found, _ = search(tmp_path / "j", few, judge=over, workers=WORKERS, counts=counts)
        at_most = 20 if counts else 20 + open_trials(WORKERS) - 1  # the cap, and what was submitted before the last one
        assert 20 <= len(found) <= at_most

    def test_one_worker_is_the_engine_that_answers_at_once(self, tmp_path: Path, name: str) -> None:
        alone, _ = search(tmp_path / "alone", config(name), workers=1)
        plain, _ = search(tmp_path / "plain", config(name))
        assert [record.id for record in alone] == [record.id for record in plain]


class AsTheyEnd(InstantWorkers):
    """As the builds before had it: results are given as trials end, and there are as many trials as workers."""

    def idle_worker_available(self) -> bool:
        while self._has_to_wait(len(self._in_flight) >= self._workers):
            self._land()
        return True

    def _next(self) -> str:
        ended = self._wait()
        self._record(ended)
        return architecture_id(ended.architecture)

    def _recorded(self, identity: str, architecture: Any, result: TrialResult, started: Any, seconds: float) -> Any:
        place = {key: value for key, value in result.details["submission"].items() if key in ("number", "after")}
        plain = replace(result, details={**result.details, "submission": place})
        return super()._recorded(identity, architecture, plain, started, seconds)


def test_only_what_waits_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NNI calls a model is a copy of the space; thousands of finished ones are too much to hold."""
    listed, own = [], InstantWorkers._wait

    def noted(engine: InstantWorkers) -> EndedTrial:
        listed.append(len(list(engine.list_models())))
        return own(engine)

    monkeypatch.setattr(InstantWorkers, "_wait", noted)
    search(tmp_path / "j", config("random"), workers=WORKERS)
    assert max(listed) == open_trials(WORKERS)
    assert min(listed) >= 1


@pytest.mark.parametrize("name", ["evolution", "local_search"])
def test_a_run_of_one_at_a_time_goes_on_with_several(tmp_path: Path, name: str) -> None:
    first, _ = search(tmp_path / "j", config(name, 15))
    both, _ = search(tmp_path / "j", config(name, 30), workers=WORKERS)
    assert both[: len(first)] == first
    assert sum(record.status != "infeasible" for record in both) == 30
    more, _ = search(tmp_path / "j", config(name, 40), workers=WORKERS)
    assert more[: len(both)] == both


def test_a_run_of_several_at_a_time_wants_its_engine(tmp_path: Path) -> None:
    search(tmp_path / "j", config("local_search", 15), workers=WORKERS)
    with pytest.raises(JournalError, match="several trials ran at a time"):
        search(tmp_path / "j", config("local_search", 30))


def test_workers_are_busy_while_the_oldest_trial_takes_its_time(tmp_path: Path) -> None:
    """All of them until the last trials: those that are submitted ahead take the place of what has ended."""
    running: list[list[int]] = []

    class Watched(InstantWorkers):
        def finish(self) -> None:
            super().finish()
            running.append(self.running)

    search(tmp_path / "j", config("random"), workers=WORKERS, judge=_fine, kind=Watched)
    (numbers,) = running
    assert max(numbers) == WORKERS
    assert statistics.fmean(numbers) > 0.75 * WORKERS  # here the oldest may be the last of all that run to end


def test_when_the_time_is_over_nothing_more_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfTime(InstantWorkers):
        def _wait(self) -> EndedTrial:
            if len(self.judged) == 10:
                monkeypatch.setattr(Budget, "time_is_over", True)
            return super()._wait()

        def _withdraw(self) -> Any:
            left, self._started = self._started[self._workers :], self._started[: self._workers]
            return left

    first, judged = search(tmp_path / "j", config("evolution"), workers=WORKERS, kind=OutOfTime)
    assert 10 < len(first) <= 11 + WORKERS  # what ended then, and what ran then
    assert len(judged) == len(first)


def test_a_journal_that_lost_trials_is_refused(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "j", config("evolution"), workers=WORKERS)
    other = Journal.create(tmp_path / "other", {})
    for number, record in enumerate([*whole[:3], whole[20]]):
        other.append(TrialRecord(**{**vars(record), "number": number}))
    other.close()
    with pytest.raises(JournalError, match=r"doesn't follow from the trials before it: .* has lost trials"):
        search(tmp_path / "other", config("evolution"), workers=WORKERS)


def test_a_journal_of_another_seed_is_refused(tmp_path: Path) -> None:
    search(tmp_path / "j", config("evolution"), workers=WORKERS, killed_at=10)
    other = config("evolution").model_copy(update={"seed": 1})
    with pytest.raises(JournalError, match="doesn't follow from config and seed"):
        search(tmp_path / "j", other, workers=WORKERS)


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
