"""What a journal's rows may hold: everything else is named as damage, with the trial and the place."""

import json
import math
from typing import Any

import pytest

from pipeline.spaces.base import architecture_id
from pipeline.trials.row import COLUMNS, checked, finite

ARCHITECTURE = {"depth": 2, "kind": "residual", "se": True, "ratio": 0.5}
MEASURED = {"source": "measured", "low_ms": 0.1, "high_ms": 0.3, "warnings": ["busy"]}


def row(**changes: Any) -> tuple[Any, ...]:
    values: dict[str, Any] = {
        "number": 7,
        "id": architecture_id(ARCHITECTURE),
        "architecture": json.dumps(ARCHITECTURE),
        "status": "ok",
        "score": 0.5,
        "objectives": json.dumps({"accuracy": 0.75, "latency_ms": 0.2, "macs": 5}),
        "details": json.dumps({"latency": MEASURED, "curve": [0.1, 0.75], "own": {"deep": [1, None, "x"]}}),
        "error": None,
        "started": "2026-01-01T00:00:00.000+00:00",
        "seconds": 1.5,
        "elapsed_s": 2.5,
        **changes,
    }
    return tuple(values[name] for name in COLUMNS)


def test_values_come_back_as_they_were_written() -> None:
    found = checked(row())
    assert found["architecture"] == ARCHITECTURE
    assert {name: type(value) for name, value in found["architecture"].items()} == {
        name: type(value) for name, value in ARCHITECTURE.items()
    }
    assert found["objectives"] == {"accuracy": 0.75, "latency_ms": 0.2, "macs": 5}
    assert isinstance(found["objectives"]["macs"], int)
    assert found["details"] == {"latency": MEASURED, "curve": [0.1, 0.75], "own": {"deep": [1, None, "x"]}}


def details(**values: Any) -> dict[str, str]:
    return {"details": json.dumps(values)}


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "a number that is a text": ({"number": "7"}, "number"),
    "a negative number": ({"number": -1}, "number"),
    "an id that is a path": ({"id": "../../elsewhere"}, "id"),
    "another architecture's id": ({"id": "0123456789ab"}, "is not that of its architecture"),
    "a text of bytes": ({"architecture": b"\xff\xfe"}, "architecture"),
    "no JSON": ({"architecture": "{"}, "architecture"),
    "an architecture in a list": ({"architecture": "[1]"}, "architecture"),
    "a choice that is a mapping": ({"architecture": '{"depth": {}}'}, "architecture.depth"),
    "a choice that is null": ({"architecture": '{"depth": null}'}, "architecture.depth"),
    "JSON that is nested without an end": ({"details": '{"a":' * 5000 + "1" + "}" * 5000}, "details"),
    "half a character": ({"details": '{"stopped_by": "\\ud800"}'}, "details"),
    "an unknown status": ({"status": "great"}, "status"),
    "a status that is null": ({"status": None}, "status"),
    "a score that is a text": ({"score": "high"}, "score"),
    "a score that is none": ({"score": math.inf}, "score"),
    "an objective that is a text": ({"objectives": '{"accuracy": "high"}'}, "objectives.accuracy"),
    "an objective that is true": ({"objectives": '{"accuracy": true}'}, "objectives.accuracy"),
    "an objective that is no number": ({"objectives": '{"accuracy": NaN}'}, "objectives.accuracy"),
    "an objective beyond all floats": ({"objectives": f'{{"macs": 1{"0" * 400}}}'}, "objectives.macs"),
    "objectives in a list": ({"objectives": "[0.5]"}, "objectives"),
    "an error that is a number": ({"error": 5}, "error"),
    "a start that is no time": ({"started": "yesterday"}, "started"),
    "a start that is null": ({"started": None}, "started"),
    "a duration that is a text": ({"seconds": "long"}, "seconds"),
    "a negative duration": ({"elapsed_s": -1.0}, "elapsed_s"),
    "a duration that is none": ({"seconds": math.inf}, "seconds"),
    "details in a list": ({"details": "[]"}, "details"),
    "a latency that is a number": (details(latency=1.0), "details.latency"),
    "a prediction without its interval": (
        details(latency={"predicted": {"latency_ms": 1.0}}),
        "details.latency.predicted",
    ),
    "a measured latency without its interval": (details(latency={"source": "measured"}), "without its interval"),
    "a measured interval that ends before it begins": (
        details(latency={"source": "measured", "low_ms": 0.3, "high_ms": 0.1}),
        "ends before it begins",
    ),
    "a predicted interval that ends before it begins": (
        details(latency={"predicted": {"latency_ms": 0.2, "low_ms": 0.3, "high_ms": 0.1}}),
        "ends before it begins",
    ),
    "a latency that no objective has": (
        {"objectives": '{"accuracy": 0.5}', **details(latency=MEASURED)},
        "a latency in its details",
    ),
    "a curve that is a text": (details(curve="0.5"), "details.curve"),
    "a curve of texts": (details(curve=["0.5"]), "details.curve.0"),
    "a broken limit that is a text": (details(excess={"macs": "much"}), "details.excess.macs"),
    "stopped after no epoch": (details(stopped_after=0, epochs=3), "details.stopped_after"),
    "stopped of unknown epochs": (details(stopped_after=1), "stopped after"),
    "a submission without its number": (details(submission={"after": 1}), "details.submission"),
    "scores in a list": (details(zero_cost=[1]), "details.zero_cost"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_named(name: str) -> None:
    changes, word = DAMAGE[name]
    with pytest.raises(ValueError, match=r"^trial ") as caught:
        checked(row(**changes))
    assert word in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_an_evaluator_told_without_being_a_number_is_left_out() -> None:
    found = checked(row(details='{"own": {"loss": NaN, "all": [Infinity, 1.5]}}'))
    assert found["details"] == {"own": {"loss": None, "all": [None, 1.5]}}
    assert finite({"a": (math.nan, "NaN")}) == {"a": [None, "NaN"]}
