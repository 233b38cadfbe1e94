"""A real bundle's manifest against the documented schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from helpers.cli import Finished
from helpers.manifest_schema import Manifest, field_tables, json_schema
from helpers.places import REPOSITORY

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
