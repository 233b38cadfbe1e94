"""Files that are written whole, whatever happens meanwhile."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RunDirectoryError
from pipeline.files import (
    SealedDirectoryError,
    check_plain,
    check_writable,
    locked,
    open_to_append,
    replacing,
    sealed,
    write_whole,
)

WRITING = """
import pathlib, sys
from pipeline.files import write_whole
print("ready", flush=True)
while True:
    for letter in (b"o", b"n"):
        write_whole(pathlib.Path(sys.argv[1]), letter * 3_000_000)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.json"


def test_a_kill_in_the_middle_leaves_old_or_new(path: Path) -> None:
    write_whole(path, b"o" * 3_000_000)
    with subprocess.Popen([sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.1)
        child.kill()
    content = path.read_bytes()
    assert len(content) == 3_000_000
    assert set(content) in ({ord("o")}, {ord("n")})


def test_what_fails_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    write_whole(path, b"old")
    with pytest.raises(TypeError), replacing(path) as unfinished:
        unfinished.write_bytes("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    check_writable(path)
    assert not list(tmp_path.iterdir())
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_folder_that_is_missing_is_no_place_to_write(path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        check_writable(path / "in a file's place")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Somebody's file elsewhere, which nobody else may read."""
    path = tmp_path / "elsewhere" / "other"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    path.chmod(0o600)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that somebody gave us."""
    path = tmp_path / "given"
    path.mkdir()
    return path


def is_untouched(path: Path) -> bool:
    return path.read_bytes() == b"precious" and stat.S_IMODE(path.stat().st_mode) == 0o600


def hold(folder: Path) -> None:
    with locked(folder):
        pass


def append(folder: Path) -> None:
    with open_to_append(folder / "search.log") as file:
        file.write(b"line")


def replace(folder: Path) -> None:
    write_whole(folder / "report.html", b"page")


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["link", "hard link"])
@pytest.mark.parametrize(("write", "name"), [(hold, ".lock"), (append, "search.log"), (replace, "report.html")])
def test_a_waiting_link_is_not_followed(
    folder: Path, other: Path, write: Callable[[Path], None], name: str, make: Callable[[Path, Path], None]
) -> None:
    make(other, folder / name)
    if write is replace:
        write(folder)
        assert not (folder / name).is_symlink()
        assert (folder / name).read_bytes() == b"page"
    else:
        with pytest.raises((OSError, RunDirectoryError), match=r"is a link, not a file|has another name elsewhere"):
            write(folder)
    assert is_untouched(other)


@pytest.mark.parametrize(("write", "name"), [(hold, ".lock"), (append, "search.log")])
def test_a_waiting_pipe_is_not_waited_for(folder: Path, write: Callable[[Path], None], name: str) -> None:
    os.mkfifo(folder / name)
    with pytest.raises((OSError, RunDirectoryError), match="is a pipe, not a file"):
        write(folder)


@pytest.mark.parametrize("target", ["nowhere", "other"])
def test_temporary_files_have_names_that_nobody_can_guess(folder: Path, other: Path, target: str) -> None:
    """Links that wait under all names that were used before."""
    waiting = {"nowhere": folder.parent / "nowhere", "other": other}[target]
    for number in (os.getpid(), os.getppid()):
        (folder / f".hwnas-{number}.unfinished").symlink_to(waiting)
    names = []
    for _ in range(3):
        with replacing(folder / "file.json") as unfinished:
            names.append(unfinished)
            assert stat.S_IMODE(unfinished.parent.stat().st_mode) == 0o700
            unfinished.write_bytes(b"content")
    assert len(set(names)) == 3
    assert (folder / "file.json").read_bytes() == b"content"
    assert is_untouched(other)
    assert not (folder.parent / "nowhere").exists()


def test_a_plain_lock_and_log_work(folder: Path) -> None:
    for _ in range(2):
        append(folder)
        hold(folder)
    assert (folder / "search.log").read_bytes() == b"lineline"
    with (
        locked(folder),
        pytest.raises(RunDirectoryError, match="in use by another hwnas process"),
        locked(folder),
    ):
        pass
    hold(folder)


@pytest.mark.parametrize("write", [hold, append, replace])
def test_nothing_is_written_into_a_folder_that_is_only_looked_at(
    folder: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with sealed(folder), pytest.raises(SealedDirectoryError, match="only looked at"):
        write(folder)
    monkeypatch.chdir(folder)
    with sealed(Path(), frozenset({"page"})), pytest.raises(SealedDirectoryError, match="only looked at"):
        write(folder)
    assert not list(folder.iterdir())
    with sealed(folder, frozenset({".lock", "search.log", "report.html"})):
        write(folder)
    with sealed(folder):
        write_whole(folder.parent / "beside", b"")  # other places are free


def test_only_files_and_folders_are_plain(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder)
    (folder / "file").touch()
    for name, words in {"pipe": "is a pipe", "link": "is a link"}.items():
        with pytest.raises(OSError, match=words):
            check_plain(folder / name)
    for path in (folder, folder / "file", folder / "nothing", folder / "file" / "below"):
        check_plain(path)
