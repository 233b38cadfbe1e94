"""The engine that decides how many trainings run at a time."""

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import records, small_config
from latency_models.timer import usable_cores
from pipeline.config.file import load_config
from pipeline.engines import auto
from pipeline.engines.auto import Parallelism, choose_parallelism
from pipeline.run import RunDirectory
from pipeline.search import load_inputs, run_search
from pipeline.trials.journal import TrialRecord
from pipeline.trials.reporter import Reporter


class Client:
    """A worker whose training steps at a known rate by its number of threads."""

    def __init__(self, rates: dict[int, float | None]) -> None:
        self.rates, self.begun = rates, False

    def start(self) -> None:
        self.begun = True

    def steps_per_second(self, architecture: object, seconds: float, threads: int) -> float | None:
        assert self.begun
        return self.rates[threads]


@pytest.mark.parametrize(
    ("rates", "parallelism", "gain"),
    [
        ({1: 10.0, 2: 12.5}, Parallelism(2, 1), 1.6),
        ({1: 5.0, 2: 12.5}, Parallelism(1, 2), 0.8),
        ({1: None, 2: 12.5}, Parallelism(1, 2), None),
        ({1: 10.0, 2: None}, Parallelism(1, 2), None),
    ],
)
def test_side_by_side_where_that_trains_more(
    rates: dict[int, float | None], parallelism: Parallelism, gain: float | None
) -> None:
    clients: Any = [Client(rates), Client(rates)]
    assert choose_parallelism(clients, {}) == (parallelism, gain)


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_resumed_run_goes_on_as_it_began(tmp_path: Path, hwnas: Any) -> None:
    config = small_config(
        tmp_path / "c.yaml", budget={"trials": 2, "minutes": 5}, engine={"name": "auto"}, final={"epochs": 1}
    )
    run = tmp_path / "run"
    begun = hwnas("search", config, "--run-dir", run)
    assert begun.code == 0
    (said,) = re.findall(r"(.*): side by side trains \d", begun.stderr)
    told = {(each["workers"], each["threads"]) for each in submissions(run)}
    assert len(told) == 1
    assert said.strip() == str(Parallelism(*told.pop()))
    text = (run / "config.yaml").read_text(encoding="utf-8").replace("trials: 2", "trials: 3")
    (run / "config.yaml").write_text(text, encoding="utf-8")
    resumed = hwnas("resume", run)
    assert resumed.code == 0
    assert "side by side trains" not in resumed.stderr
    assert len({(each["workers"], each["threads"]) for each in submissions(run)}) == 1
    assert len([record for record in records(run) if record.status == "ok"]) == 3


def submissions(run: Path) -> list[dict[str, int]]:
    return [record.details["submission"] for record in records(run) if "workers" in record.details["submission"]]


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_two_runs_of_one_seed_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings at a time, stopped by their peers; the second run has a busy machine, and is killed in between."""
    monkeypatch.setattr(auto, "choose_parallelism", lambda *_: (Parallelism(2, 1), None))
    path = small_config(
        tmp_path / "c.yaml",
        strategy={"name": "guided"},
        engine={"name": "auto", "cores": 2},
        space={"depths": [1, 2]},
        evaluator={"epochs": 2, "stopping": {"rule": "median", "min_peers": 2}},
        train={"batch_size": 128},
        constraints={"macs": 600_000},
        budget={"trials": 8},
    )
    whole = searched(tmp_path / "whole", path)
    with busy(), pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", path, ends_after=3)
    assert searched(tmp_path / "killed", path) == whole
    assert sum(each["status"] == "ok" for each in whole) == 8
    assert any(each["status"] == "infeasible" for each in whole)


def searched(folder: Path, path: Path, ends_after: int | None = None) -> list[dict[str, Any]]:
    """What a search finds, without what a clock says, in the order of submission."""

    class Ending(Reporter):
        ended = 0

        def trial_ended(self, record: TrialRecord) -> None:
            self.ended += 1
            if self.ended == ends_after:
                raise KeyboardInterrupt

    run = RunDirectory.open(folder) if folder.exists() else RunDirectory.create(folder, load_config(path))
    journal = run.open_journal()
    try:
        run_search(run, journal, *load_inputs(run.config, "c.yaml"), Ending())
        found = sorted(journal.trials(), key=lambda record: record.submitted)
    finally:
        journal.close()
    return [without_clock(record) for record in found]


def without_clock(record: TrialRecord) -> dict[str, Any]:
    objectives = {name: value for name, value in record.objectives.items() if name != "latency_ms"}
    details = {name: value for name, value in record.details.items() if name != "latency"}
    place = {name: value for name, value in details["submission"].items() if name in ("number", "after", "at_once")}
    return {"id": record.id, "status": record.status, "score": record.score, "objectives": objectives,
            "details": {**details, "submission": place}}  # fmt: skip


@contextmanager
def busy() -> Iterator[None]:
    """A process that computes beside what runs here."""
    process = multiprocessing.get_context("fork").Process(target=_compute, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _compute() -> None:
    while True:
        sum(range(10**6))
