"""Candidates that misbehave, and ends that nobody planned."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pipeline_cli import (
    HWNAS,
    alive,
    command,
    in_process,
    journal_ids,
    kill,
    merged,
    records,
    small_config,
    spawn,
    wait_for,
)

UNHARMED = 2


def mishap_run(folder: Path, *mishaps: str, **engine: float) -> list[Any]:
    """The records of a search whose first candidates meet these mishaps; the others are unharmed."""
    from pipeline.budget import Budget
    from pipeline.config_file import parse_config
    from pipeline.console import Reporter
    from pipeline.engines.inline import InlineEngine
    from pipeline.journal import Journal
    from pipeline.nni_types import Random, SimplifiedModelSpace
    from pipeline.search import prepare

    values = merged(
        _config(), {"evaluator": {"name": "stub_evaluators:Mishaps", "mishaps": list(mishaps)}, "engine": engine}
    )
    values["budget"] = {"trials": len(mishaps) + UNHARMED, "minutes": 5}
    config = parse_config(values, "the test's config")
    _, space = prepare(config)
    journal = Journal.create(folder / "journal.sqlite", {})
    engine_ = InlineEngine(config, space, journal, Budget(config.budget, []), Reporter(), folder / "worker.log")
    try:
        Random(seed=0)(SimplifiedModelSpace.from_model(space.model_space()), engine_)
        return journal.trials()
    finally:
        engine_.shutdown()
        journal.close()


def _config() -> dict[str, Any]:
    from pipeline_cli import SMALL

    return merged(SMALL, {"engine": {"name": "inline"}, "constraints": {}})


def outcomes(folder: Path, monkeypatch: pytest.MonkeyPatch, *mishaps: str, **engine: float) -> list[str]:
    """Status and error of the candidates that met a mishap, after a check that the later ones did well."""
    monkeypatch.chdir(folder)
    found = mishap_run(folder, *mishaps, **engine)
    assert len(found) == len(mishaps) + UNHARMED
    assert [record.status for record in found[len(mishaps) :]] == ["ok"] * UNHARMED
    harmed = found[: len(mishaps)]
    assert [record.status for record in harmed if record.error] == ["failed"] * sum(bool(r.error) for r in harmed)
    assert all(record.score < later.score for record in harmed if record.error for later in found[len(mishaps) :])
    return [f"{record.status}: {record.error}" for record in harmed]


class TestMishaps:
    """A candidate's own failure is a record with its reason; the search goes on."""

    def test_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: None) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "hang", trial_minutes=0.1)
        assert told == "failed: hung: no result within 6 s"

    def test_hangs_while_it_reports_progress(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: None) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "hang_and_tell", trial_minutes=0.1)
        assert told == "failed: hung: no result within 6 s"

    def test_ends_the_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = outcomes(tmp_path, monkeypatch, "segfault", "exit", "hard_exit", "interrupt")
        assert told[0] == "failed: died from signal 11 (SIGSEGV)"
        assert told[2] == "failed: ended with exit code 9"
        assert told[1].startswith("failed: ")
        assert "7" in told[1]
        assert told[3].startswith("failed: ")

    def test_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "raise")
        assert told == "failed: RuntimeError: this candidate is unlucky"
        log = (tmp_path / "worker.log").read_text(encoding="utf-8")
        assert "Traceback" in log
        assert "and says so at length" in log

    def test_takes_too_much_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = outcomes(tmp_path, monkeypatch, "numpy", "bytearray", memory_gb=3)
        assert all(text.startswith("failed: out of memory") for text in told), told

    def test_prints(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "print")
        assert told == "ok: None"
        assert "noise" in (tmp_path / "worker.log").read_text(encoding="utf-8")

    def test_gives_what_is_no_accuracy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = outcomes(tmp_path, monkeypatch, "text", "above_one")
        assert all(text.startswith("failed: ") and "accuracy" in text for text in told), told

    def test_gives_no_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "not_a_number")
        assert told.startswith("failed: ")
        assert "nan" in told

    def test_gives_numpys_float(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (told,) = outcomes(tmp_path, monkeypatch, "numpy_float")
        assert told == "ok: None"


@pytest.fixture(scope="module")
def warm(data_home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The reference models are timed once, so that no trial's limit is spent on them."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("warm")
        patch.chdir(folder)
        assert [record.status for record in mishap_run(folder)] == ["ok"] * UNHARMED


class TestEnds:
    @pytest.fixture
    def hanging(self, tmp_path: Path) -> Path:
        """A config whose second trial never ends."""
        evaluator = {"name": "stub_evaluators:Pid"}
        return small_config(tmp_path / "c.yaml", evaluator=evaluator, constraints={})

    def test_the_worker_dies_with_its_parent(self, tmp_path: Path, hanging: Path) -> None:
        process = spawn("search", str(hanging), "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
        try:
            worker = wait_for(lambda: _pid(tmp_path))
            assert alive(worker)
        finally:
            kill(process.pid)
            process.communicate()
        wait_for(lambda: not alive(worker), 20)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_a_stop_leaves_a_run_to_resume(self, tmp_path: Path, hanging: Path, number: signal.Signals) -> None:
        run = tmp_path / "run"
        process = spawn("search", str(hanging), "--run-dir", str(run), "--json", cwd=tmp_path)
        try:
            worker = wait_for(lambda: _pid(tmp_path))
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        last = err.strip().splitlines()[-1]
        assert last == f"hwnas: interrupted; go on with: hwnas resume {run}"
        wait_for(lambda: not alive(worker), 20)
        assert journal_ids(run) == []

    def test_a_stop_on_a_terminal_gives_the_cursor_back(self, tmp_path: Path, hanging: Path) -> None:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm"}
        process = subprocess.Popen(
            [str(HWNAS), "search", str(hanging), "--run-dir", str(tmp_path / "run")],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        try:
            seen = b""
            while b"\x1b[?25l" not in seen:
                seen += os.read(ours, 1 << 16)
            wait_for(lambda: _pid(tmp_path))
            process.send_signal(signal.SIGINT)
            while chunk := _read(ours):
                seen += chunk
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")
        assert b"hwnas resume" in seen


def test_the_command_to_go_on_can_be_pasted(tmp_path: Path) -> None:
    from pipeline.errors import Interrupted

    path = tmp_path / "my runs" / "first (1)"
    shown = str(Interrupted(path)).partition("go on with: ")[2]
    assert shlex.split(shown) == ["hwnas", "resume", str(path)]


@pytest.mark.parametrize("text", ["/runs/[gpu]/a", "/runs/[/bold]"])
def test_a_path_is_shown_as_it_is(capfd: pytest.CaptureFixture[str], text: str) -> None:
    from pipeline.console import TerminalReporter

    reporter = TerminalReporter()
    reporter.stage(f"Run directory: {text}")
    reporter.note(text)
    assert capfd.readouterr().err.count(text) == 2


def test_a_failed_search_says_why_and_still_reports(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet_logging: None
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluator = {"name": "stub_evaluators:Mishaps", "mishaps": ["raise"] * 2}
    config = small_config(tmp_path / "c.yaml", evaluator=evaluator, budget={"trials": 2})
    result = in_process(capfd, monkeypatch, "search", config, "--run-dir", tmp_path / "run", "--json")
    assert result.code == 3
    assert result.stdout == ""
    assert "all 2 candidates failed" in result.stderr
    assert "this candidate is unlucky" in result.stderr
    assert [record.status for record in records(tmp_path / "run")] == ["failed", "failed"]
    assert "this candidate is unlucky" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_failing_evaluator_is_no_fault_of_ours(tmp_path: Path) -> None:
    """A user's own module that can't be imported is told in one message."""
    (tmp_path / "broken_module.py").write_text("def evaluate(:\n", encoding="utf-8")
    config = small_config(tmp_path / "c.yaml", evaluator={"name": "broken_module:Evaluate"})
    result = command("search", str(config), "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
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
