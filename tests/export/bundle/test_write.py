"""Writing a bundle: its folder is as open as its files, and nothing that waits beside it is followed."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from export.bundle.write import write_bundle
from helpers.nets import bundle_parts, digits_net


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return bundle_parts(digits_net())


@pytest.mark.parametrize(("umask", "files", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_are_those_that_the_user_asks_for(
    tmp_path: Path, parts: dict[str, Any], umask: int, files: int, folder: int
) -> None:
    before = os.umask(umask)
    try:
        bundle = write_bundle(tmp_path / "bundle", manifest={}, **parts)
    finally:
        os.umask(before)
    assert stat.S_IMODE(bundle.stat().st_mode) == folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in bundle.iterdir()} == {files}


def test_a_link_in_its_place_is_replaced(tmp_path: Path, parts: dict[str, Any]) -> None:
    write_bundle(tmp_path / "elsewhere", manifest={"name": "old"}, **parts)
    (tmp_path / "bundle").symlink_to("elsewhere")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    write_bundle(tmp_path / "bundle", manifest={"name": "new"}, **parts)
    assert not (tmp_path / "bundle").is_symlink()
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "elsewhere"]
