import os
from pathlib import Path

import pytest

from latency_models.files import read_file, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_whole(path, "old")
    write_whole(path, "näw")
    assert path.read_text(encoding="utf-8") == "näw"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "file.json"
    write_whole(path, "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "link", most_bytes=7) == b"content"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_what_is_no_file_of_a_sensible_size_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "given"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(10**12)
    words = {"pipe": "is a pipe, not", "device": "is a device, not", "folder": "directory", "large": "is too large"}
    with pytest.raises(OSError, match=words[kind]):
        read_file(path)


def test_no_waiting_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious", encoding="utf-8")
    (tmp_path / "file.json").symlink_to(tmp_path / "other")
    write_whole(tmp_path / "file.json", "new")
    assert (tmp_path / "other").read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "file.json").is_symlink()
