"""Every `hwnas …` command in the documentation's code blocks is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from helpers.places import REPOSITORY
from pipeline.cli.app import app

PAGES = sorted(path for path in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")] if path.is_file())
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def documented(text: str) -> list[list[str]]:
    """The words of each command in a page's code blocks; a line that ends with a backslash goes on."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console|text)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = [re.match(r"(?:\$\s*)?(?:\S*/)?hwnas\s+(.*)", line) for line in lines]
    return [shlex.split(call[1], comments=True) for call in calls if call]


def mistake(words: list[str]) -> str | None:
    """What is wrong with a command; None when nothing is."""
    if words and words[0] == "--help":
        return None
    if not words or words[0] not in COMMANDS:
        return f"no command {words[:1]}; valid: {', '.join(COMMANDS)}"
    valid = {option for parameter in COMMANDS[words[0]].params for option in parameter.opts} | {"--help"}
    unknown = [word for word in words[1:] if word.startswith("-") and word.partition("=")[0] not in valid]
    return f"hwnas {words[0]} has no {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("page", PAGES or [None], ids=[path.name for path in PAGES] or ["none"])
def test_documented_commands_exist(page: Path | None) -> None:
    if page is None:
        pytest.skip("no README.md and no docs/*.md yet")
    found = {shlex.join(words): mistake(words) for words in documented(page.read_text(encoding="utf-8"))}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def test_the_reader_of_this_test_finds_mistakes() -> None:
    lines = [
        "```bash",
        "$ hwnas search c.yaml \\",
        "  --set a=1  # why",
        "hwnas serach c.yaml",
        "bin/hwnas trials r --cvs",
        "```",
    ]
    page = "\n".join(lines) + "\n"
    calls = documented(page)
    assert calls == [["search", "c.yaml", "--set", "a=1"], ["serach", "c.yaml"], ["trials", "r", "--cvs"]]
    assert mistake(calls[0]) is None
    assert "serach" in str(mistake(calls[1]))
    assert "--cvs" in str(mistake(calls[2]))
