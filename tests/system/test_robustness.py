"""Candidates that misbehave, and ends that nobody planned."""

import json
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import (
    HWNAS,
    alive,
    in_process,
    journal_ids,
    merged,
    records,
    small_config,
    spawn,
    wait_for,
)

UNHARMED = 2


def mishap_run(folder: Path, *mishaps: str, **engine: float) -> list[Any]:
    """The records of a search whose first candidates add_peers these mishaps; the others are unharmed."""
    from pipeline.config.file import parse_config
    from pipeline.engines.inline import InlineEngine
    from pipeline.nni_types import Random, SimplifiedModelSpace
    from pipeline.search import load_inputs
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import Journal
    from pipeline.trials.reporter import Reporter

    values = merged(
        _config(), {"evaluator": {"name": "stub_evaluators:Mishaps", "mishaps": list(mishaps)}, "engine": engine}
    )
    values["budget"] = {"trials": len(mishaps) + UNHARMED, "minutes": 5}
    config = parse_config(values, "the test's config")
    _, space = load_inputs(config, "config.yaml")
    _time_references(config, space)
    journal = Journal.create(folder / "journal.sqlite", {})
    engine_ = InlineEngine(config, space, journal, Budget(config.budget, []), Reporter(), folder / "worker.log")
    try:
        Random(seed=0)(SimplifiedModelSpace.from_model(space.model_space()), engine_)
        return journal.trials()
    finally:
        engine_.shutdown()
        journal.close()


def _time_references(config: Any, space: Any) -> None:
    """The first use of a reference model times it; no trial's limit is to be spent on that."""
    from pipeline.engines.trial import TrialRunner

    runner = TrialRunner(config)
    for architecture in list(space.architectures())[::4000]:
        runner.cost(architecture, space.build(architecture))


def _config() -> dict[str, Any]:
    from helpers.cli import SMALL

    return merged(SMALL, {"engine": {"name": "inline"}, "constraints": {}})


MISHAPS = ["raise", "print", "segfault", "exit", "interrupt", "numpy", "bytearray", "hang", "hang_and_tell"]


@pytest.fixture(scope="module")
def met(data_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Record by mishap, `later` ones and the worker's `log`, of one search that meets them all."""
    folder = tmp_path_factory.mktemp("mishaps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = mishap_run(folder, *MISHAPS, trial_minutes=0.15, memory_gb=3)
    harmed = dict(zip(MISHAPS, found, strict=False))
    return {**harmed, "later": found[len(MISHAPS) :], "log": (folder / "worker.log").read_text(encoding="utf-8")}


class TestMishaps:
    """A candidate's own failure is a record with its reason; the search goes on."""

    @pytest.mark.parametrize(
        ("mishap", "reason"),
        [
            ("raise", "RuntimeError: this candidate is unlucky"),
            ("segfault", "died from signal 11 (SIGSEGV)"),
            ("exit", "7"),
            ("interrupt", ""),
            ("numpy", "out of memory"),
            ("bytearray", "out of memory"),
            ("hang", "hung: no result within 9 s"),
            ("hang_and_tell", "hung: no result within 9 s"),
        ],
    )
    def test_is_recorded_with_its_reason(self, met: dict[str, Any], mishap: str, reason: str) -> None:
        record = met[mishap]
        assert record.status == "failed"
        assert record.error
        assert reason in record.error
        assert all(record.score < later.score for later in met["later"])

    def test_the_search_goes_on(self, met: dict[str, Any]) -> None:
        assert [record.status for record in met["later"]] == ["ok"] * UNHARMED

    def test_the_log_holds_what_the_candidate_said(self, met: dict[str, Any]) -> None:
        assert met["print"].status == "ok"
        assert "noise" in met["log"]
        assert "Traceback" in met["log"]
        assert "and says so at length" in met["log"]

    def test_what_is_no_accuracy_is_a_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        text, above_one, not_a_number, numpy_float, *later = mishap_run(
            tmp_path, "text", "above_one", "not_a_number", "numpy_float"
        )
        for record in (text, above_one, not_a_number):
            assert record.status == "failed"
            assert "accuracy" in str(record.error)
        assert [record.status for record in (numpy_float, *later)] == ["ok"] * 3
        assert numpy_float.objectives["accuracy"] == 0.5


class TestEnds:
    @pytest.fixture
    def hanging(self, tmp_path: Path) -> Path:
        """A config whose first trial never ends."""
        evaluator = {"name": "stub_evaluators:Pid"}
        return small_config(tmp_path / "c.yaml", evaluator=evaluator, constraints={})

    def test_sigterm_leaves_a_run_to_resume(self, tmp_path: Path, hanging: Path) -> None:
        run = tmp_path / "run"
        process = spawn("search", str(hanging), "--run-dir", str(run), "--json", cwd=tmp_path)
        try:
            worker = wait_for(lambda: _pid(tmp_path))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        assert err.strip().splitlines()[-1] == f"hwnas: interrupted; go on with: hwnas resume {run}"
        wait_for(lambda: not alive(worker), 20)
        assert journal_ids(run) == []

    def test_ctrl_c_on_a_terminal_leaves_a_run_to_resume_and_the_cursor(self, tmp_path: Path, hanging: Path) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [str(HWNAS), "search", str(hanging), "--run-dir", "run"],
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        seen = b""
        try:
            while b"\x1b[?25l" not in seen:
                seen += os.read(ours, 1 << 16)
            worker = wait_for(lambda: _pid(tmp_path))
            process.send_signal(signal.SIGINT)
            while chunk := _read(ours):
                seen += chunk
            assert process.wait(60) == 130
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert b"hwnas: interrupted; go on with: hwnas resume run" in seen
        assert b"Traceback" not in seen
        wait_for(lambda: not alive(worker), 20)
        assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")  # shown again after it was hidden


def test_the_command_to_go_on_can_be_pasted(tmp_path: Path) -> None:
    from pipeline.errors import Interrupted

    path = tmp_path / "my runs" / "first (1)"
    shown = str(Interrupted("resume", str(path))).partition("go on with: ")[2]
    assert shlex.split(shown) == ["hwnas", "resume", str(path)]


@pytest.mark.parametrize("text", ["/runs/[gpu]/a", "/runs/[/bold]"])
def test_a_path_is_shown_as_it_is(capfd: pytest.CaptureFixture[str], text: str) -> None:
    from pipeline.cli.console import TerminalReporter

    reporter = TerminalReporter()
    reporter.stage(f"Run directory: {text}")
    reporter.note(text)
    assert capfd.readouterr().err.count(text) == 2


def test_a_failed_search_says_why_and_still_reports(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluator = {"name": "stub_evaluators:Mishaps", "mishaps": ["raise"] * 2}
    config = small_config(tmp_path / "c.yaml", evaluator=evaluator, budget={"trials": 2})
    result = in_process(capfd, monkeypatch, "search", config, "--run-dir", tmp_path / "run", "--json")
    assert result.code == 3
    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == 3
    assert "all 2 candidates failed" in error["message"]
    assert "all 2 candidates failed" in result.stderr
    assert "this candidate is unlucky" in result.stderr
    assert [record.status for record in records(tmp_path / "run")] == ["failed", "failed"]
    assert "this candidate is unlucky" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_broken_evaluator_is_no_fault_of_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own module that can't be imported is told in one message."""
    (tmp_path / "broken_module.py").write_text("def evaluate(:\n", encoding="utf-8")
    config = small_config(tmp_path / "c.yaml", evaluator={"name": "broken_module:Evaluate"})
    monkeypatch.chdir(tmp_path)
    result = in_process(capfd, monkeypatch, "search", config, "--run-dir", tmp_path / "run")
    assert result.code == 2
    assert "broken_module" in result.stderr
    assert "Traceback" not in result.stderr


def _pid(folder: Path) -> int | None:
    path = folder / "worker.pid"
    return int(path.read_text(encoding="utf-8")) if path.exists() else None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux' end of file of a terminal
        return b""
