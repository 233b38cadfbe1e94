"""A user's own modules: found behind all that is installed, never in a run's folder, and only those that are named."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import HwnasError
from pipeline.registry import load
from pipeline.user_modules import NameSource, names_from

Writer = Callable[..., Path]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a module writes into when it is run."""
    return tmp_path / "mark"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def module(here: Path, mark: Path) -> Writer:
    """Write a module with a function `make`, which leaves its name in the mark when it is run."""

    def write(name: str, folder: Path = here, more: str = "") -> Path:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        marking = f"with open({str(mark)!r}, 'a') as file: file.write({name + ' '!r})"
        path.write_text(f"{marking}\n{more}\ndef make(options): return {name!r}\n", encoding="utf-8")
        return path

    return write


def test_a_module_of_the_working_folder_and_its_helpers_load(here: Path, mark: Path, module: Writer) -> None:
    module("own_one", more="import own_two\ndef later():\n    import own_three\n    return own_three.make(0)")
    for helper in ("own_two", "own_three"):
        module(helper)
    before = list(sys.path)
    assert load("data", "own_one:make", {})(None) == "own_one"
    assert load("data", "own_one:later", {})() == "own_three"
    assert mark.read_text(encoding="utf-8").split() == ["own_one", "own_two", "own_three"]
    assert sys.path == before


def test_code_names_another_folder_in_place_of_the_working_one(here: Path, tmp_path: Path, module: Writer) -> None:
    module("own_elsewhere", tmp_path / "code")
    with names_from(NameSource(tmp_path / "code")):
        assert load("data", "own_elsewhere:make", {})(None) == "own_elsewhere"
    module("own_here")
    with names_from(NameSource(tmp_path / "code")), pytest.raises(HwnasError, match="No module named 'own_here'"):
        load("data", "own_here:make", {})
    with (
        pytest.raises(HwnasError, match=r"--code .*nowhere: there is no such folder"),
        names_from(NameSource(tmp_path / "nowhere")),
    ):
        pass


@pytest.mark.parametrize("name", ["json", "numpy", "yaml", "export", "google", "colorsys", "mpl_toolkits"])
def test_namesakes_of_what_is_installed_never_run(here: Path, mark: Path, module: Writer, name: str) -> None:
    module(name)
    module(f"{name}/__init__")
    module("own_named", more=f"import {name}")
    assert load("data", "own_named:make", {})(None) == "own_named"
    assert mark.read_text(encoding="utf-8").split() == ["own_named"]
    found = importlib.import_module(name)
    places = [str(place) for place in (getattr(found, "__file__", None), *getattr(found, "__path__", ())) if place]
    assert not [place for place in places if place.startswith(str(here))]


def test_what_a_library_would_like_to_find_is_not_looked_for_here(
    here: Path, tmp_path: Path, mark: Path, module: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries import others where they are installed; a file of that name here is none of them."""
    module("own_accelerator")
    module("own_user", more="import some_library")
    module("some_library", tmp_path / "installed", "try:\n    import own_accelerator\nexcept ImportError:\n    pass")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    assert load("data", "own_user:make", {})(None) == "own_user"
    assert mark.read_text(encoding="utf-8").split() == ["own_user", "some_library"]


def test_a_name_that_is_installed_is_the_installed_one(here: Path, mark: Path, module: Writer) -> None:
    module("fractions")
    assert load("data", "fractions:Fraction", {})(1, 2) == importlib.import_module("fractions").Fraction(1, 2)
    assert not mark.exists()


def test_metadata_in_the_folder_adds_no_entry_points(here: Path, mark: Path, module: Writer) -> None:
    module("own_plain")
    module("own_hidden")
    info = here / "hidden-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hidden\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[hwnas.data]\nhidden = own_hidden:make\n", encoding="utf-8")
    load("data", "own_plain:make", {})
    with pytest.raises(HwnasError, match="unknown data 'hidden'"):
        load("data", "hidden", {})
    assert mark.read_text(encoding="utf-8").split() == ["own_plain"]


def test_two_folders_with_one_name_are_told_apart(
    here: Path, tmp_path: Path, module: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        module("own_twice", tmp_path / folder, more=f"from own_helper import WHERE\nassert WHERE == {folder!r}")
        module("own_helper", tmp_path / folder, more=f"WHERE = {folder!r}")
    found = {}
    for folder in ("a", "b", "a"):
        with names_from(NameSource(tmp_path / folder)):
            found[folder] = load("data", "own_twice:make", {})
        assert found[folder].__globals__["WHERE"] == folder
    monkeypatch.chdir(tmp_path / "b")
    assert load("data", "own_twice:make", {}).__globals__["WHERE"] == "b"
    assert load("data", "own_twice:make", {}) is load("data", "own_twice:make", {})


class TestNamesOfARun:
    """A run may name modules of the user's folder alone."""

    @pytest.fixture
    def given(self, here: Path) -> Path:
        folder = here / "runs" / "given-run"
        folder.mkdir(parents=True)
        return folder

    def test_of_the_working_folder(self, given: Path, module: Writer) -> None:
        module("own_of_run")
        with names_from(NameSource(given=given)):
            assert load("data", "own_of_run:make", {})(None) == "own_of_run"

    def test_of_a_folder_on_the_path(
        self, given: Path, tmp_path: Path, module: Writer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module("own_on_path", tmp_path / "path")
        monkeypatch.syspath_prepend(tmp_path / "path")
        with names_from(NameSource(given=given)):
            assert load("data", "own_on_path:make", {})(None) == "own_on_path"

    @pytest.mark.parametrize("name", ["http.server:test", "sklearn.datasets:load_digits", "pipeline.files:write_whole"])
    def test_not_of_what_is_installed(self, given: Path, name: str) -> None:
        with names_from(NameSource(given=given)), pytest.raises(HwnasError, match="which is installed and offers"):
            load("data", name, {})
        assert callable(load("data", name, {}))  # in the user's own config it's the user's choice

    @pytest.mark.parametrize("name", ["builtins:print", "sys:exit"])
    def test_not_of_what_is_built_in(self, given: Path, name: str) -> None:
        with names_from(NameSource(given=given)), pytest.raises(HwnasError, match="which is installed and offers"):
            load("data", name, {})

    def test_not_the_program_itself(self, given: Path) -> None:
        with names_from(NameSource(given=given)), pytest.raises(HwnasError):
            load("data", "__main__:main", {})

    def test_not_of_its_own_folder_by_a_long_name(self, given: Path, mark: Path, module: Writer) -> None:
        module("evil", given)
        module("__init__", given)
        with names_from(NameSource(given=given)), pytest.raises(HwnasError, match="nothing is imported from a run's"):
            load("data", "runs.given-run.evil:make", {})
        assert not mark.exists()

    def test_not_of_its_own_folder_by_a_link(self, here: Path, given: Path, mark: Path, module: Writer) -> None:
        (here / "linked.py").symlink_to(module("evil", given))
        with names_from(NameSource(given=given)), pytest.raises(HwnasError, match="nothing is imported from a run's"):
            load("data", "linked:make", {})
        assert not mark.exists()

    def test_not_of_its_own_folder_from_within(
        self, given: Path, mark: Path, module: Writer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module("evil", given)
        monkeypatch.chdir(given)
        with names_from(NameSource(given=given)), pytest.raises(HwnasError, match="nothing is imported from a run's"):
            load("data", "evil:make", {})
        assert not mark.exists()

    def test_not_of_its_own_folder_on_request(self, given: Path) -> None:
        (given / "code").mkdir()
        with (
            pytest.raises(HwnasError, match="nothing is imported from a run's"),
            names_from(NameSource(given / "code", given)),
        ):
            pass

    def test_nothing_at_all_where_a_command_only_looks(self, given: Path, mark: Path, module: Writer) -> None:
        module("own_unlooked")
        with names_from(NameSource(given=given, reach="plug-ins")), pytest.raises(HwnasError, match="none is imported"):
            load("data", "own_unlooked:make", {})
        assert not mark.exists()
