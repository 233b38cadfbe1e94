"""Files that are written whole, whatever happens meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.files import check_writable, replacing, write_whole

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
