from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest

from helpers.cost_graphs import count
from helpers.stub_timers import REFERENCE_NS, DrawnTimer
from latency_models.devices.device import Device
from latency_models.devices.environment import capture
from latency_models.timing.reference_models import ANCHOR, MEMORY_PROBE, REFERENCES, reference_model
from latency_models.timing.reference_store import ReferenceStore, ReferenceTime, calibrate

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = capture(Device())
TIME = ReferenceTime(ms=0.5, session_sd=0.01)


def never() -> ReferenceTime:
    raise AssertionError("it was timed again")


def test_a_time_is_kept_between_stores(tmp_path: Path) -> None:
    path = tmp_path / "new" / "references.json"
    assert ReferenceStore(path).get("ref-1", ENVIRONMENT, lambda: TIME) == TIME
    again = ReferenceStore(path)
    assert again.get("ref-1", ENVIRONMENT, never) == TIME
    assert again.warnings == ()
    assert sorted(each.name for each in path.parent.iterdir() if each.suffix != ".lock") == ["references.json"]


def test_another_environment_or_reference_is_timed_by_itself(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path / "references.json")
    store.get("ref-1", ENVIRONMENT, lambda: TIME)
    elsewhere = replace(ENVIRONMENT, cpu_model="another")
    other = ReferenceTime(ms=9.0, session_sd=0.0)
    assert store.get("ref-1", elsewhere, lambda: other) == other
    assert store.get("ref-2", ENVIRONMENT, lambda: other) == other
    assert store.known(ENVIRONMENT) == {"ref-1": TIME, "ref-2": other}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"format": 99, "environments": {}}', '{"format": 2}',
        '{"format": 2, "environments": {"f": {"references": {"ref-1": {"ms": "fast", "session_sd": 0}}}}}',
        '{"format": 2, "environments": {"f": {"references": {"ref-1": {"ms": -1.0, "session_sd": 0}}}}}',
        '{"format": 2, "environments": {"f": {"references": {"ref-1": {"ms": NaN, "session_sd": 0}}}}}',
        '{"format": 2, "environments": {"f": {"references": {"ref-1": {"other": 1}}}}}',
        '{"format": 2, "environments": {"f": {"references": [1]}}}',
    ],
)  # fmt: skip
def test_a_damaged_store_is_rebuilt_with_a_warning(tmp_path: Path, text: str) -> None:
    path = tmp_path / "references.json"
    path.write_text(text, encoding="utf-8")
    store = ReferenceStore(path)
    assert store.get("ref-1", ENVIRONMENT, lambda: TIME) == TIME
    assert len(store.warnings) == 1
    assert str(path) in store.warnings[0]
    assert "damaged" in store.warnings[0]
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == 2
    assert ReferenceStore(path).get("ref-1", ENVIRONMENT, never) == TIME


def test_bytes_that_are_no_text_are_rebuilt_too(tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    path.write_bytes(b"\xff\xfe\x00")
    store = ReferenceStore(path)
    assert store.get("ref-1", ENVIRONMENT, lambda: TIME) == TIME
    assert "can't be read" in store.warnings[0]


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    store = ReferenceStore(tmp_path / "file" / "references.json")
    assert store.get("ref-1", ENVIRONMENT, lambda: TIME) == TIME
    assert any("can't be written" in warning for warning in store.warnings)


def test_the_default_place_is_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert ReferenceStore().path == tmp_path / "hwnas" / "references.json"


def test_an_older_format_is_timed_again_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    path.write_text('{"format": 1, "environments": {}}', encoding="utf-8")
    store = ReferenceStore(path)
    assert store.get("ref-1", ENVIRONMENT, lambda: TIME) == TIME
    assert store.warnings == ()


def test_the_first_reference_stands_on_its_own() -> None:
    answer = calibrate(ANCHOR, DrawnTimer({}), None)
    assert answer.ms == pytest.approx(REFERENCE_NS[ANCHOR] / 1e6, rel=0.01)
    assert answer.against is None
    assert answer.session_sd >= 0


def test_the_others_tell_of_the_moment_when_the_first_was_timed() -> None:
    timer = DrawnTimer({})
    timer.slowdown = lambda: 1.7  # the clock runs slower now
    answer = calibrate("ref-5", timer, ReferenceTime(0.1, 0.0))
    assert answer.ms == pytest.approx(0.1 * REFERENCE_NS["ref-5"] / REFERENCE_NS[ANCHOR], rel=0.01)
    assert answer.against == ANCHOR
    assert timer.loaded == {}


def test_how_far_sessions_differ_is_measured() -> None:
    spreads = [calibrate("ref-2", DrawnTimer({}, session_sd=sd), None).session_sd for sd in (0.0, 0.05)]
    assert spreads[0] < 0.005 < spreads[1]


def test_a_slow_machine_takes_fewer_sessions() -> None:
    timer = DrawnTimer({reference_model("ref-7"): 2e9, reference_model(ANCHOR): 1e7})
    calibrate("ref-7", timer, ReferenceTime(10.0, 0.0))
    assert timer.loads.count(reference_model("ref-7")) == 2
    assert sum(asked[2] for asked in timer.asked if len(asked[0]) > 1) == 5


@pytest.mark.parametrize("name", [spec.name for spec in (*REFERENCES, MEMORY_PROBE)])
def test_references_are_valid_and_always_the_same(name: str) -> None:
    model = reference_model(name)
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    reference_model.cache_clear()
    assert reference_model(name) == model


def test_each_reference_costs_more_than_the_one_before() -> None:
    macs = [count(onnx.load_model_from_string(reference_model(spec.name))).macs for spec in REFERENCES]
    assert macs == sorted(set(macs))
    assert [spec.about_ms for spec in REFERENCES] == sorted(spec.about_ms for spec in REFERENCES)
