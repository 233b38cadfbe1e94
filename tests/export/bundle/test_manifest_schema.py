"""Real manifests, docs/manifest.schema.json and the tables of docs/bundle.md against the one schema."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from export.bundle.manifest_schema import damage, json_schema
from helpers.cli import Finished
from helpers.places import REPOSITORY

DOCS = REPOSITORY / "docs"
SCHEMA = json_schema()


def manifest_of(finished: Finished) -> dict[str, Any]:
    return dict(json.loads((finished.run / "bundle" / "manifest.json").read_text(encoding="utf-8")))


def problems(manifest: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)]


def closed(part: Any) -> Any:
    """A schema that lets in no field that it doesn't know, but for reasons why another one is null."""
    if isinstance(part, dict):
        inner = {key: closed(value) for key, value in part.items()}
        known = "properties" in part and part.get("additionalProperties") is True
        return inner | {"additionalProperties": False, "patternProperties": {"_unavailable$": {}}} if known else inner
    return [closed(item) for item in part] if isinstance(part, list) else part


def words(field: dict[str, Any]) -> str:
    """A field's type in words."""
    if "anyOf" in field:
        return " or ".join(words(each) for each in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if "items" in field:
        return f"array of {words(field['items'])}"
    if isinstance(values := field.get("additionalProperties"), dict):
        return f"object of {words(values)}"
    return str(field.get("type", "any"))


def parts(part: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of the schema in the order of their fields, each with its place in the manifest."""
    yield place, part
    for name, field in part["properties"].items():
        for suffix, values in (("", field), ("[]", field.get("items")), ("[name]", field.get("additionalProperties"))):
            for each in values.get("anyOf", [values]) if isinstance(values, dict) else ():
                if "$ref" in each:
                    inner = SCHEMA["$defs"][each["$ref"].rpartition("/")[2]]
                    yield from parts(inner, f"{place}.{name}{suffix}".removeprefix("."))


def field_tables() -> str:
    """The fields as Markdown: a heading and a table for each object of the manifest."""
    text, described = [], []
    for place, part in parts(SCHEMA):
        if part in described:  # inputs and outputs are alike
            continue
        described.append(part)
        rows = [f"| `{name}` | {words(field)} | {field['description']} |" for name, field in part["properties"].items()]
        head = [f"### `{place}`" if place else "### The whole", "", part["description"], ""]
        text.append("\n".join([*head, "| field | type | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(text) + "\n"


def test_a_real_manifest_follows_the_schema(finished: Finished) -> None:
    manifest = manifest_of(finished)
    assert problems(manifest) == []
    assert damage(manifest) is None
    assert [error.message for error in jsonschema.Draft202012Validator(closed(SCHEMA)).iter_errors(manifest)] == []
    assert manifest["models"]["model.onnx"]["outputs"][0]["shape"][-1] == len(manifest["classes"])
    assert manifest["evaluation"]["images"] == manifest["dataset"]["test_images"]


@pytest.mark.parametrize(
    "change", [{"files": []}, {"opset": "20"}, {"schema_version": None}, {"evaluation": {"images": 3}}], ids=str
)
def test_the_schema_refuses(finished: Finished, change: dict[str, Any]) -> None:
    assert problems(manifest_of(finished) | change)
    assert next(iter(change)) in str(damage(manifest_of(finished) | change))


def test_a_closed_schema_finds_what_is_not_documented(finished: Finished) -> None:
    manifest = manifest_of(finished)
    manifest["metrics"] |= {"energy_mj_unavailable": "no counter", "novelty": 1}
    (found,) = jsonschema.Draft202012Validator(closed(SCHEMA)).iter_errors(manifest)
    assert "novelty" in str(found.context or found.message)
    assert problems(manifest) == []


def test_the_published_schema_is_the_one_that_manifests_are_checked_by() -> None:
    published = (DOCS / "manifest.schema.json").read_text(encoding="utf-8")
    assert published == json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"


def test_the_tables_are_those_of_the_schema() -> None:
    assert (DOCS / "bundle.md").read_text(encoding="utf-8").endswith(field_tables())


def test_every_file_of_a_bundle_is_documented(finished: Finished) -> None:
    text = (DOCS / "bundle.md").read_text(encoding="utf-8")
    for path in (finished.run / "bundle").iterdir():
        assert f"`{path.name}`" in text
