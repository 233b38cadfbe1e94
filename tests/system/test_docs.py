"""The documentation against the code: commands that exist, and a map of the folders that is whole."""

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import hwnas
import numpy as np
import pytest
import typer.main

from helpers.instant import config_of, search
from helpers.places import REPOSITORY
from pipeline.cli.app import app
from pipeline.config.base import ThirdParty
from pipeline.data import load_data

ROOT_PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES = sorted([*ROOT_PAGES, *(REPOSITORY / "docs").rglob("*.md")])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PACKAGES = ("pipeline", "export", "latency_models")
MAP = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(REPOSITORY)) for path in PAGES])
def test_documented_commands_exist(page: Path) -> None:
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


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(REPOSITORY)) for path in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def in_tree(text: str) -> set[str]:
    """The paths in a page's tree: a code block of lines `name  meaning`, where two spaces more lead into a folder."""
    block = re.search(r"^```text\n(pipeline/.*?)^```", text, re.DOTALL | re.MULTILINE)
    paths: set[str] = set()
    parents: list[str] = []
    for line in block[1].splitlines() if block else []:
        name = line.split()[0]
        parents[(len(line) - len(line.lstrip())) // 2 :] = [name]
        paths.add("".join(parents))
    return paths


def named(text: str) -> set[str]:
    """The files and folders that a page's sentences and tables name."""
    return {found for found in re.findall(r"`([\w./-]+)`", text) if re.search(r"(\.(py|toml|md)|/)$", found)}


def test_the_map_names_what_exists() -> None:
    places = (REPOSITORY, *(REPOSITORY / package for package in PACKAGES))
    missing = {path for path in named(MAP) if not any((place / path).exists() for place in places)}
    assert missing | {path for path in in_tree(MAP) if not (REPOSITORY / path).exists()} == set()


def test_every_folder_and_root_file_is_on_the_map() -> None:
    roots = [REPOSITORY / package for package in PACKAGES]
    files = [path for root in roots for path in root.rglob("*.py")]
    folders = {parent for path in files for parent in path.parents if any(parent.is_relative_to(r) for r in roots)}
    wanted = {f"{folder.relative_to(REPOSITORY)}/" for folder in folders}
    wanted |= {
        str(path.relative_to(REPOSITORY)) for path in files if path.parent in roots and path.name != "__init__.py"
    }
    assert wanted == in_tree(MAP)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_lists_a_package_from_the_top_layer_down(package: str) -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if each.get("containers") == [package]]
    rank = {name: at for at, layer in enumerate(layers) for name in layer.split(" | ")}
    listed = re.findall(r"^  (\w+)(?:\.py|/)", MAP.partition(f"\n{package}/\n")[2], re.MULTILINE)
    ranks = [rank[name] for name in listed if name in rank][: len(rank)]
    assert ranks == sorted(ranks)


def test_the_strategy_of_the_first_hour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_strategy.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = config_of({"name": "my_strategy:HillClimb", "starts": 5}, 20, 0)
    found, _ = search(tmp_path / "journal", config)
    assert len({record.id for record in found}) == len(found) >= 20


def test_the_data_set_of_the_documentation_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_data.py").write_text(block, encoding="utf-8")
    images = np.random.default_rng(0).integers(0, 256, (50, 9, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(50) % 5)
    monkeypatch.chdir(tmp_path)
    data = load_data(ThirdParty.model_validate({"name": "my_data:load", "path": "images.npz"}))
    assert (len(data.train), len(data.validation), len(data.load_test())) == (30, 10, 10)
    assert data.input_shape == (3, 9, 8)
    assert data.classes == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_calls_of_the_library_fit_its_functions(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(import hwnas.*?)^```", text, re.DOTALL | re.MULTILINE)
    called = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    calls = [node for node in called if ast.unparse(node.func).startswith("hwnas.")]
    assert len(calls) >= 4
    for call in calls:
        function = getattr(hwnas, ast.unparse(call.func).removeprefix("hwnas."))
        inspect.signature(function).bind(*call.args, **{str(word.arg): word.value for word in call.keywords})


def test_the_library_s_functions_are_listed() -> None:
    text = (REPOSITORY / "docs" / "library.md").read_text(encoding="utf-8")
    for name, words in re.findall(r"^\| `(\w+)\((.*?)\)`", text, re.MULTILINE):
        parameters = inspect.signature(getattr(hwnas, name)).parameters
        assert set(re.findall(r"(\w+)=", words)) <= set(parameters), name
    functions = {name for name in hwnas.__all__ if inspect.isfunction(getattr(hwnas, name))}
    assert functions <= set(re.findall(r"^\| `(\w+)\(", text, re.MULTILINE))
