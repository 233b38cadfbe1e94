"""A matplotlibrc of the working folder, which may be a stranger's, decides nothing."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from pipeline.report.style import own_style

DRAWING = """
from pipeline.report.style import own_style

@own_style()
def draw():
    from matplotlib.figure import Figure
    figure = Figure()
    figure.subplots().set_title("a title")
    figure.savefig("drawn.svg")

draw()
import matplotlib
print(matplotlib.rcParams["text.usetex"])
"""


def draw(folder: Path) -> subprocess.CompletedProcess[str]:
    """Draw in a process of its own, with a stand-in for LaTeX that leaves a mark."""
    latex = folder / "bin" / "latex"
    latex.parent.mkdir()
    latex.write_text(f"#!/bin/sh\ntouch {folder / 'mark'}\nexit 1\n", encoding="utf-8")
    latex.chmod(0o755)
    path = f"{latex.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-P", "-c", DRAWING],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )


def test_no_program_of_its_choice_is_run(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n", encoding="utf-8")
    assert draw(tmp_path).stdout == "False\n"
    assert (tmp_path / "drawn.svg").is_file()
    assert not (tmp_path / "mark").exists()


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "matplotlibrc")
    draw(tmp_path)
    assert (tmp_path / "drawn.svg").is_file()


def test_a_programs_own_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)
    with own_style():
        assert matplotlib.rcParams["lines.linewidth"] == matplotlib.rcParamsDefault["lines.linewidth"]
    assert matplotlib.rcParams["lines.linewidth"] == 7.0
