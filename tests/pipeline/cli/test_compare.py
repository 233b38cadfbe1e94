"""`hwnas compare`: files against the first of them."""

from pathlib import Path
from typing import Any

import pytest

from helpers.cli import check_message, in_process
from latency_models.timing.reference_models import ReferenceSpec, build_reference
from pipeline.cli import text


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A net, a larger one, and a copy of the first."""
    contents = [build_reference(ReferenceSpec("net", 8, 8, blocks, 1.0)) for blocks in (1, 6, 1)]
    paths = [tmp_path / f"{name}.onnx" for name in ("first", "larger", "copy")]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def hwnas(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: in_process(capfd, monkeypatch, *arguments)


def test_each_row_holds_costs_and_the_ratio_to_the_first(hwnas: Any, files: list[Path]) -> None:
    result = hwnas("compare", *files, "--seconds", "0.4", "--json")
    assert result.code == 0, result.stderr
    first, larger, copy = result.document()
    assert [row["model"] for row in (first, larger, copy)] == [str(path) for path in files]
    assert (first["ratio"], first["different"]) == (1.0, False)
    assert larger["different"] is True
    assert 1.0 < larger["ratio_low"] <= larger["ratio"] <= larger["ratio_high"]
    assert larger["ratio"] > copy["ratio"]
    for row in (first, larger, copy):
        assert row["latency_low_ms"] <= row["latency_ms"] <= row["latency_high_ms"]
        assert {"latency_p50_ms", "latency_p99_ms", "peak_memory_bytes", "environment", "warnings"} <= row.keys()


def test_the_text_says_which_takes_longer(hwnas: Any, files: list[Path]) -> None:
    result = hwnas("compare", *files[:2], "--seconds", "0.4")
    assert result.code == 0
    assert "more time" in result.stdout


def row_of(ratio: float, low: float, high: float) -> dict[str, Any]:
    different = low > 1 or high < 1
    names = {"model": "m.onnx", "latency_ms": 1.0, "latency_low_ms": 0.9, "latency_high_ms": 1.1, "warnings": []}
    return {**names, "ratio": ratio, "ratio_low": low, "ratio_high": high, "different": different}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (row_of(1.01, 0.99, 1.03), "no difference seen (ratio 1.0100, 0.9900 to 1.0300)"),
        (row_of(1.05, 1.04, 1.06), "5.0% more time"),
        (row_of(0.8, 0.79, 0.81), "20.0% less time"),
    ],
)
def test_nothing_is_said_inside_the_interval(row: dict[str, Any], said: str) -> None:
    page = text.comparison([row_of(1.0, 1.0, 1.0), row])
    assert said in " ".join(page.split())
    assert page.count("difference") == said.count("difference")


def test_warnings_name_their_file() -> None:
    doubtful = {**row_of(1.0, 0.9, 1.1), "warnings": ["the machine was busy"]}
    assert "warning: m.onnx: the machine was busy" in text.comparison([doubtful, row_of(1.0, 1.0, 1.0)])


def test_one_file_is_too_few(hwnas: Any, files: list[Path]) -> None:
    check_message(hwnas("compare", files[0]), 2, "two ONNX files or more, found 1")


def test_a_file_that_is_no_model_is_named(hwnas: Any, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("nothing", encoding="utf-8")
    check_message(hwnas("compare", files[0], tmp_path / "text.onnx"), 2, "text.onnx", "not a loadable ONNX model")
    check_message(hwnas("compare", files[0], tmp_path / "missing.onnx"), 2, "missing.onnx")
