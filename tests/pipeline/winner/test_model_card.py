"""What a real bundle's manifest holds against its documented schema, and what its model card says."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from export.bundle.manifest_schema import Manifest, field_tables, json_schema
from export.bundle.model_card import cell, most_confused, render
from helpers.cli import Finished
from helpers.places import REPOSITORY
from pipeline.winner.model_card import evaluation

DOCS = REPOSITORY / "docs"


def manifest_of(finished: Finished) -> dict[str, Any]:
    return dict(json.loads((finished.run / "bundle" / "manifest.json").read_text(encoding="utf-8")))


def unknown(part: BaseModel, path: str = "") -> set[str]:
    """Paths of fields that the schema doesn't know."""
    found = {path + name for name in part.model_extra or {} if not name.endswith("_unavailable")}
    for name in type(part).model_fields:
        value = getattr(part, name)
        nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for item in nested:
            if isinstance(item, BaseModel):
                found |= unknown(item, f"{path}{name}.")
    return found


def test_a_real_manifest_follows_the_schema(finished: Finished) -> None:
    parsed = Manifest.model_validate(manifest_of(finished))
    assert unknown(parsed) == set()
    assert parsed.evaluation is not None
    assert parsed.dataset is not None
    assert parsed.models["model.onnx"].outputs[0].shape[-1] == len(parsed.classes)


@pytest.mark.parametrize(
    "change", [{"files": []}, {"opset": "20"}, {"schema_version": None}, {"evaluation": {"images": 3}}], ids=str
)
def test_the_schema_refuses(finished: Finished, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest_of(finished) | change)


def test_the_documents_are_those_of_the_code() -> None:
    assert (DOCS / "bundle.md").read_text(encoding="utf-8").endswith(field_tables())
    assert json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8")) == json_schema()


def test_every_file_of_a_bundle_is_documented(finished: Finished) -> None:
    text = (DOCS / "bundle.md").read_text(encoding="utf-8")
    for path in (finished.run / "bundle").iterdir():
        assert f"`{path.name}`" in text


def tables_of(text: str) -> list[list[str]]:
    """Runs of lines that start with a bar."""
    return [block.strip().splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def assert_well_formed(text: str) -> None:
    for lines in tables_of(text):
        bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        assert len(set(bars)) == 1, lines
        assert re.fullmatch(r"(\|-+)+\|", lines[1]), lines
        assert all(line.endswith("|") for line in lines)


def test_the_model_card_of_a_real_bundle(finished: Finished) -> None:
    text = (finished.run / "bundle" / "README.md").read_text(encoding="utf-8")
    manifest = manifest_of(finished)
    assert_well_formed(text)
    found = manifest["evaluation"]
    assert f"{found['correct']} of {found['images']}" in text
    for words in ("python predict.py", "1,077", "Known limits", "evolution", "seed | 0", "multiply-accumulates"):
        assert words in text
    assert f"`macs` at most {manifest['limits']['macs']:.0f}; found {manifest['won']['macs']:,.0f}" in text
    assert manifest["int8"]["reason"] in text
    table = next(lines for lines in tables_of(text) if lines[0].startswith("| | 0 | 1 |"))
    rows = [[int(entry.strip().replace("·", "0")) for entry in line.split("|")[2:-1]] for line in table[2:]]
    assert rows == found["confusion"]


def test_the_card_points_where_things_stand(finished: Finished) -> None:
    text = (finished.run / "bundle" / "README.md").read_text(encoding="utf-8")
    assert text.index("## Preprocessing") < text.index("resizes and normalises as above")
    assert "as below" not in text


@pytest.mark.parametrize(("largest", "told"), [(16, True), (255, False), (0, False)])
def test_the_card_tells_another_scale_than_the_usual_one(largest: int, told: bool, finished: Finished) -> None:
    manifest = manifest_of(finished)
    manifest["dataset"]["value_range"] = [0, largest]
    text = " ".join(render(manifest, (64, 8, 8, 1), {"model.onnx": 5}).split())
    assert (f"has to be multiplied by {largest}/255 before anything else" in text) is told


def test_many_classes_with_odd_names() -> None:
    classes = tuple(f"a|b_{index}\n*" for index in range(30))
    labels = np.arange(300) % 30
    taken = labels.copy()
    taken[labels == 3] = 7
    record = evaluation(labels, taken, classes)
    content = {"classes": list(classes), "evaluation": {"file": "model.onnx", **record}}
    text = render(content, (64, 8, 8, 1), {"model.onnx": 5})
    assert_well_formed(text)
    assert f"| {cell(classes[3])} | {cell(classes[7])} | 10 of 10 |" in text
    assert "each row is a true class" not in text


def test_evaluation_by_hand() -> None:
    record = evaluation(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ("a", "b", "c"))
    assert record["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (record["images"], record["correct"], record["accuracy"]) == (4, 3, 0.75)
    # Wilson, 1927, equation by hand: centre (p + z²/2n) / (1 + z²/n), z = 1.96, n = 4, p = 3/4.
    assert (record["accuracy_low"], record["accuracy_high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert record["per_class"][0] == pytest.approx(
        {"name": "a", "images": 3, "correct": 2, "accuracy": 2 / 3, "accuracy_low": 0.2077, "accuracy_high": 0.9385},
        abs=1e-4,
    )
    assert record["per_class"][2]["accuracy"] is None
    assert most_confused(record["confusion"], ["a", "b", "c"]) == [("a", "b", 1, 3)]
