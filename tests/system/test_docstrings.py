"""Every class and public function says in plain words what it is, returns or does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.places import REPOSITORY

FILES = [path for package in ("pipeline", "export", "latency_models") for path in (REPOSITORY / package).rglob("*.py")]
RIDDLE = re.compile(r"(What|Who|Which|How|See|That|Those|Of|Not|As) ")
"""First words of sentences that name no thing and no deed, and only make sense to those who know the code."""


def definitions(tree: ast.Module, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Classes and functions of a module with their dotted names; those within functions are left out."""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{prefix}{node.name}.")  # type: ignore[arg-type]


def flaw(name: str, docstring: str | None) -> str | None:
    """What is wrong with a definition's docstring; None where nothing is."""
    method = "." in name
    public = not any(part.startswith("_") for part in name.split("."))
    if docstring is None:
        return "has no docstring" if public and not method else None
    first = re.split(r"(?<=[.:;])\s|\n\n", docstring.strip())[0]
    if RIDDLE.match(first):
        return f"begins with a riddle: {first[:60]!r}"
    if len(first.split()) < 3:
        return f"says too little: {first!r}"
    return None


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(REPOSITORY)) for path in FILES])
def test_docstrings_name_a_thing_or_a_deed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module says what it holds"
    flaws = {name: flaw(name, ast.get_docstring(node)) for name, node in definitions(tree)}
    assert {name: found for name, found in flaws.items() if found} == {}


def test_flaws_are_found() -> None:
    assert flaw("fit", None) is not None
    assert flaw("Model.fit", None) is None
    assert flaw("fit", "What came of it.") is not None
    assert flaw("fit", "See the base class.") is not None
    assert flaw("fit", "Fit the model.") is None
