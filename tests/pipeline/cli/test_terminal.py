"""Names of somebody else's on a terminal: shown, and without effect."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.bundle.plain_text import clean, clean_line
from pipeline.cli import app, console
from pipeline.cli.trial_text import TrialTable
from pipeline.errors import HwnasError
from pipeline.trials.journal import TrialRecord

HOSTILE = "a\x1b]0;title\x07\x1b[2J\u202eb\x9b31m\u2066c\u200bd\u2028e\udcfff\x00"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\u202eb\x9b31m\u2066c\u200bd\u2028e\udcfff\x00"


def test_what_steers_a_terminal_is_shown_by_its_number() -> None:
    assert clean(HOSTILE) == SHOWN
    assert clean("one\rtwo\r\nthree\x7f") == "one\\x0dtwo\r\nthree\\x7f"
    assert clean_line("one\ntwo\r\nthree") == "one\\ntwo\\r\\nthree"


@pytest.mark.parametrize("plain", ["", "a b\n\tc", "≤ 0.5 × Größe – 日本語 … │", "non\u00a0breaking"])
def test_what_is_harmless_stays(plain: str) -> None:
    assert clean(plain) == plain


def test_a_table_shows_brackets_and_letters_as_they_are() -> None:
    error = "[red]a[/red] [/b] :smile: \x1b[31m"
    table = TrialTable(["accuracy", "latency_ms"])
    table.add(TrialRecord(0, HOSTILE[:40], {}, "failed", -2.0, {}, "", 1.0, 1.0, error))
    assert "[red]a[/red] [/b] :smile: " in "".join(table.pieces())


@pytest.mark.parametrize("error", [HwnasError(HOSTILE), OSError(2, HOSTILE, HOSTILE), ValueError(HOSTILE)])
def test_errors_and_tracebacks_are_cleaned(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit):
        app.main()
    said = capsys.readouterr().err
    assert SHOWN in said
    assert clean(said) == said


def test_wrong_arguments_are_cleaned(hwnas: Any, tmp_path: Path) -> None:
    done = hwnas("trials", tmp_path, f"--{HOSTILE[:12]}")
    assert done.code == 2
    assert "\x1b" not in done.stderr


def test_progress_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    reporter = console.TerminalReporter()
    reporter.stage(HOSTILE)
    reporter.note(HOSTILE)
    reporter.progress(HOSTILE, 0.5)
    assert shown.getvalue().count(SHOWN.replace(r"\x07", "")) == 3  # rich leaves a bell out by itself
    assert clean(shown.getvalue()) == shown.getvalue()


def test_warnings_of_libraries_are_cleaned(tmp_path: Path) -> None:
    code = (
        "import logging, sys, warnings\n"
        "from pipeline.cli import app\n"
        "def act(**_):\n"
        f"    logging.getLogger('a.library').warning({HOSTILE!r})\n"
        f"    warnings.warn({HOSTILE!r})\n"
        "app.app = act\n"
        "app.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    said = done.stderr.decode()
    assert said.count(SHOWN) >= 2
    assert clean(said) == said
