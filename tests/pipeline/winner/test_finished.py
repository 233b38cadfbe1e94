"""The manifest of a run's bundle, as reports and resumed runs read it."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.errors import BundleError
from helpers.cli import Finished
from pipeline.commands.runs import report
from pipeline.winner.finished import read_finished

GONE = object()


@pytest.fixture
def bundle(finished: Finished, tmp_path: Path) -> Path:
    shutil.copytree(finished.run / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def changed(bundle: Path, place: str, value: Any) -> None:
    path = bundle / "manifest.json"
    manifest = copy.deepcopy(json.loads(path.read_text(encoding="utf-8")))
    *sections, key = place.split(".")
    part = manifest
    for name in sections:
        part = part[name]
    if value is GONE:
        del part[key]
    else:
        part[key] = value
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_one_that_a_search_wrote(bundle: Path) -> None:
    assert read_finished(bundle) == json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((place, GONE) for place in ("metrics", "won", "run", "int8", "classes", "limits", "activations")),
        *((place, GONE) for place in ("metrics.accuracy_test", "won.accuracy", "run.pick", "int8.reason")),
        *(("metrics.latency_ms", value) for value in (None, 0, -1, "fast")),
        *(("metrics.accuracy_test", value) for value in (None, 2, -0.5)),
        ("metrics.test_images", 0),
        ("classes", []),
        ("deployed", "../model.onnx"),
        ("architecture_id", "../../elsewhere"),
        ("int8.tried", [{"plan": "all"}]),
    ],
)
def test_what_is_missing_or_cant_be_is_named(bundle: Path, place: str, value: Any) -> None:
    changed(bundle, place, value)
    with pytest.raises(BundleError) as raised:
        read_finished(bundle)
    assert f"manifest.json is damaged: {place}" in str(raised.value)


def test_a_report_says_so_and_is_made_all_the_same(run_copy: Path) -> None:
    changed(run_copy / "bundle", "metrics.accuracy_test", GONE)
    page = report(run_copy).read_text(encoding="utf-8")
    assert "No bundle: manifest.json is damaged: metrics.accuracy_test" in page


def test_what_a_manifest_holds_steers_no_page(run_copy: Path) -> None:
    changed(run_copy / "bundle", "environment.cpu_model", "\x1b[2J\u202eone</script><svg onload=x> \ud800")
    page = report(run_copy).read_text(encoding="utf-8")
    assert "\\x1b[2J\\u202eone&lt;/script&gt;&lt;svg onload=x&gt; \\ud800" in page
    assert "<svg onload" not in page
    assert "\x1b" not in page
