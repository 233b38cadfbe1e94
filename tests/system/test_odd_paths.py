"""Paths that are no UTF-8, which file systems allow: every command takes them, and says them in text and in JSON."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import Finished, check_message, small_config
from helpers.cost_graphs import small_net

ODD = os.fsdecode(b"odd\xff")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / ODD
    try:
        found.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    return found


@pytest.fixture
def model(folder: Path) -> Path:
    path = folder / f"{ODD}.onnx"
    path.write_bytes(small_net().SerializeToString())
    return path


@pytest.mark.parametrize("more", [[], ["--per-node"], ["--precision", "int8"]], ids=str)
def test_profile(hwnas: Any, model: Path, more: list[str]) -> None:
    result = hwnas("profile", model, "--seconds", 0.1, "--json", *more)
    assert result.code == 0, result.stderr
    assert result.document()["model"] == str(model)
    assert result.document()["macs"] > 0


def test_compare(hwnas: Any, model: Path) -> None:
    result = hwnas("compare", model, model, "--seconds", 0.1)
    assert result.code == 0, result.stderr
    assert "udcff" in result.stdout


def test_optimize(hwnas: Any, model: Path) -> None:
    output = model.with_name(f"{ODD}-too.onnx")
    result = hwnas("optimize", model, "--output", output, "--seconds", 0.5, "--json")
    assert result.code == 0, result.stderr
    assert output.is_file()
    assert result.document()["output"] == str(output)


def test_verify(hwnas: Any, finished: Finished, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.winner.verify.BUDGET_S", 0.1)
    shutil.copytree(finished.run / "bundle", folder / "bundle")
    result = hwnas("verify", folder / "bundle", "--json")
    assert result.code == 0, result.stdout
    assert {check["name"] for check in result.document()["checks"] if check["ok"]} >= {"model", "parity", "limit macs"}


def test_trials_and_report(hwnas: Any, run_copy: Path, folder: Path) -> None:
    run = run_copy.rename(folder / "run")
    assert len(hwnas("trials", run, "--json").document()) >= 6
    result = hwnas("report", run, "--json")
    assert result.code == 0, result.stderr
    assert result.document()["report"] == str(run / "report.html")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["profile", "{}.onnx"], ["predict", "{}.onnx"], ["compare", "{}.onnx", "{}.onnx"], ["verify", "{}"]),
        *(["optimize", "{}.onnx", "--output", "{}.out"], ["search", "{}.yaml"], ["bench", "{}.yaml"]),
        *(["resume", "{}"], ["trials", "{}"], ["export", "{}"], ["report", "{}"], ["calibrate", "{}.yaml"]),
        ["predict", "--run", "{}", "--architecture", "{}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_isnt_there(hwnas: Any, folder: Path, arguments: list[str]) -> None:
    result = hwnas(*[each.replace("{}", str(folder / "none")) for each in arguments], "--json")
    assert result.code == 2
    assert "Traceback" not in result.stderr
    assert "none" in json.loads(result.stdout)["error"]["message"]


def test_mistakes_in_a_config(hwnas: Any, folder: Path) -> None:
    config = small_config(folder / f"{ODD}.yaml", buget=3)
    check_message(hwnas("search", config), 2, "udcff.yaml", "buget", "'budget'")
    check_message(hwnas("search", config, "--set", f"name={ODD}"), 2, "#xdcff")
