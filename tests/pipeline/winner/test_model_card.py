"""The model card of a real bundle, and the evaluation that it is written from."""

import json
import re
from typing import Any

import numpy as np
import pytest

from export.bundle.model_card import cell, most_confused, render
from helpers.cli import Finished
from pipeline.winner.model_card import evaluation


def manifest_of(finished: Finished) -> dict[str, Any]:
    return dict(json.loads((finished.run / "bundle" / "manifest.json").read_text(encoding="utf-8")))


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


def test_names_steer_no_terminal_that_shows_the_card(finished: Finished) -> None:
    manifest = manifest_of(finished)
    manifest["classes"][0] = manifest["evaluation"]["per_class"][0]["name"] = "\x1b]0;title\x07\u202ezero"
    text = render(manifest, (64, 8, 8, 1), {"model.onnx": 5})
    assert "\\x1b]0;title\\x07\\u202ezero" in text
    assert not set("\x1b\x07\u202e") & set(text)
