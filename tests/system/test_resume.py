"""A run that is killed again and again ends with the very trials of an unbroken one."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cli import alive, command, journal_ids, kill, records, small_config, spawn, wait_for

TRIALS = 20
KILLS = {"evolution": 2, "random": 1, "grid": 1}  # each start takes seconds; test_pipeline_strategies has many
STRATEGIES: dict[str, dict[str, Any]] = {
    "evolution": {"name": "evolution", "population": 6, "sample": 3, "mutation": 0.3},
    "random": {"name": "random"},
    "grid": {"name": "grid"},
}


def config(path: Path, strategy: str, evaluator: str) -> Path:
    return small_config(
        path,
        strategy=STRATEGIES[strategy],
        evaluator={"name": f"stub_evaluators:{evaluator}"},
        space={"activations": ["relu", "silu", "hardswish"], "activation_scope": "stage"},
        constraints={"macs": 700_000},
        budget={"trials": TRIALS},
        final={"epochs": 1, "pick": "most-accurate"},
    )


def unbroken(strategy: str, folder: Path) -> list[str]:
    """The ids of an unbroken run, told within this process by the same evaluator and limits."""
    from stub_evaluators import structure_accuracy

    from helpers.instant import search
    from pipeline.config.file import load_config
    from pipeline.engines.trial import TrialResult, TrialRunner
    from pipeline.search import load_inputs
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.objectives import excess

    loaded = load_config(config(folder / "unbroken.yaml", strategy, "Hash"))
    _, space = load_inputs(loaded, "config.yaml")
    runner = TrialRunner(loaded)
    runner.target.meter.measure = lambda *_, **__: _Latency()  # type: ignore[method-assign,assignment]  # no clock

    def judge(architecture: Any) -> TrialResult:
        model = space.build(architecture)
        _, objectives, _ = runner.cost(architecture, model)
        broken = excess(objectives, {"macs": 700_000})
        if broken:
            return TrialResult("infeasible", objectives, {"excess": broken})
        return TrialResult("ok", {"accuracy": structure_accuracy(model), **objectives})

    found: list[TrialRecord] = search(folder / "unbroken.sqlite", loaded, judge=judge)[0]
    assert {record.status for record in found} == {"ok", "infeasible"}
    return [record.id for record in found]


class _Latency:
    latency_ms = low_ms = high_ms = p50_ms = p99_ms = 1.0
    reference, warnings = "none", ()


@dataclass(frozen=True)
class EndedTrial:
    """A run that was killed now and then, and what an unbroken one would have been.

    Attributes:
        expected: the unbroken run's ids.
        left: the ids in the journal after each kill.
        before: the trials when it was resumed for the last time; `after`, when it ended.
        picked: what the last command told of.
    """

    expected: list[str]
    left: list[list[str]]
    before: list[Any]
    after: list[Any]
    picked: str


def killed_and_resumed(strategy: str, folder: Path, expected: list[str]) -> EndedTrial:
    """Kill a run now and then, and let it end."""
    moments = random.Random(strategy)
    run = folder / "run"
    call = ["search", str(config(folder / "c.yaml", strategy, "SlowHash")), "--run-dir", str(run)]
    left: list[list[str]] = []
    share = len(expected) // (KILLS[strategy] + 1)
    for number in range(KILLS[strategy]):
        process = spawn(*call, cwd=folder)
        # A moment somewhere in a later part of the run, in the middle of whatever is done then.
        until = number * share + moments.randrange(1, share)
        try:
            wait_for(lambda until=until: len(journal_ids(run)) >= until)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.2))
        finally:
            kill(process.pid)
            process.communicate()
        worker = int((folder / "worker.pid").read_text(encoding="utf-8"))
        wait_for(lambda worker=worker: not alive(worker), 20)  # type: ignore[misc]  # it dies with its parent
        left.append(journal_ids(run))
        call = ["resume", str(run)]
    before = records(run)
    result = command("resume", str(run), "--json", cwd=folder)
    assert result.code == 0, result.stderr
    return EndedTrial(expected, left, before, records(run), result.document()["picked"])


@pytest.fixture(scope="module")
def ends(data_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[EndedTrial]]]:
    """All strategies are killed and resumed at the same time: most of it is waiting for processes to start."""
    folders = {strategy: tmp_path_factory.mktemp(strategy) for strategy in KILLS}
    expected = {strategy: unbroken(strategy, folder) for strategy, folder in folders.items()}
    with ThreadPoolExecutor(len(KILLS)) as pool:
        yield {s: pool.submit(killed_and_resumed, s, folders[s], expected[s]) for s in KILLS}


@pytest.mark.parametrize("strategy", list(KILLS))
def test_killed_at_random_moments(ends: dict[str, Future[EndedTrial]], strategy: str) -> None:
    ended = ends[strategy].result()
    assert len(ended.left) == KILLS[strategy]
    for ids, later in pairwise([*ended.left, ended.expected]):
        assert later[: len(ids)] == ids  # nothing is lost
    assert [record.id for record in ended.after] == ended.expected
    assert ended.after[: len(ended.before)] == ended.before  # finished trials aren't run again
    best = max((r for r in ended.after if r.status == "ok"), key=lambda record: record.objectives["accuracy"])
    assert ended.picked == best.id


def test_a_longer_budget_is_edited_into_the_run(run_copy: Path, hwnas: Any) -> None:
    before = records(run_copy)
    values = yaml.safe_load((run_copy / "config.yaml").read_text(encoding="utf-8"))
    values["budget"]["trials"] = 8
    (run_copy / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    result = hwnas("resume", run_copy, "--json")
    assert result.code == 0, result.stderr
    after = records(run_copy)
    assert after[: len(before)] == before
    assert len(after) == 8
    assert len({record.id for record in after}) == 8


def test_a_run_stopped_before_its_first_trial_begins_anew(tmp_path: Path, hwnas: Any) -> None:
    from pipeline.config.file import load_config
    from pipeline.run import RunDirectory

    path = config(tmp_path / "c.yaml", "random", "Hash")
    run = RunDirectory.create(tmp_path / "run", load_config(path, ["budget.trials=2"]))
    (run.path / "journal.unfinished").write_bytes(b"half a journal")
    result = hwnas("resume", run.path)
    assert result.code == 0, result.stderr
    assert sum(record.status == "ok" for record in records(run.path)) == 2
