"""The record of a run's reference points may be anybody's: what stands in it is checked when it is read."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import ReferencesError
from pipeline.references.records import read
from pipeline.run import RunDirectory

AGAINST = {
    "winner": "4c4b8110a66b",
    "file_sha256": "",
    "latency_ratio": 2.0,
    "latency_ratio_low": 1.9,
    "latency_ratio_high": 2.1,
    "accuracy_validation_difference": -0.01,
    "accuracy_test_difference": 0.01,
}
FINISHED: dict[str, Any] = {
    "name": "resnet8",
    "recipe": "",
    "status": "ok",
    "file": "references/resnet8.onnx",
    "metrics": {"accuracy_validation": 0.9, "accuracy_test": 0.88, "latency_ms": 0.2, "macs": None, "warnings": []},
    "against_winner": AGAINST,
}
FAILED = {"name": "mine:Net", "recipe": "", "status": "failed", "error": "out of memory"}


def read_from(folder: Path, *references: dict[str, Any]) -> Any:
    (folder / "references.json").write_text(json.dumps({"version": 1, "references": references}), encoding="utf-8")
    return read(cast("RunDirectory", SimpleNamespace(path=folder)))


def test_finished_and_failed_ones(tmp_path: Path) -> None:
    found = read_from(tmp_path, FINISHED, FAILED)
    assert [reference.status for reference in found.references] == ["ok", "failed"]
    assert found.of("resnet8").metrics == FINISHED["metrics"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"file": "../elsewhere.onnx"}, "references.0.file"),
        ({"file": "references/../../elsewhere.onnx"}, "references.0.file"),
        ({"file": "/elsewhere.onnx"}, "references.0.file"),
        ({"metrics": {"accuracy_test": 0.9}}, "metrics.accuracy_validation: is missing"),
        ({"metrics": {"accuracy_test": 0.9, "accuracy_validation": None}}, "metrics.accuracy_validation"),
        ({"metrics": {"accuracy_test": 1.5, "accuracy_validation": 0.9}}, "metrics.accuracy_test"),
        ({"metrics": {**FINISHED["metrics"], "latency_ms": "fast"}}, "metrics.latency_ms"),
        ({"metrics": {**FINISHED["metrics"], "size_bytes": -1}}, "metrics.size_bytes"),
        ({"against_winner": {**AGAINST, "latency_ratio": 0.0}}, "references.0.against_winner.latency_ratio"),
        ({"against_winner": {**AGAINST, "latency_ratio": float("inf")}}, "references.0.against_winner.latency_ratio"),
        ({"status": "lost"}, "references.0.status"),
    ],
)
def test_damage_says_where(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ReferencesError, match=r"is damaged") as raised:
        read_from(tmp_path, {**FINISHED, **changes})
    assert place in str(raised.value)
    assert raised.value.exit_code == 3
