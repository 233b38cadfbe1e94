"""Ways to damage bundles for `tampering.py`: bytes, files, manifests, with their hashes renewed or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx

from export.bundle.manifest import HASH_FIELD, file_record, manifest_sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change the manifest; signed, its own hash fits again."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    if sign:
        manifest[HASH_FIELD] = manifest_sha256(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def sign(bundle: Path) -> None:
    """Renew every file's hash and the manifest's own."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"] = {name: file_record(bundle / name) for name in manifest["files"]}

    rewrite(bundle, change)


def flip(name: str, at: float = 0.5) -> Callable[[Path], None]:
    """Invert one byte of a file."""

    def damage(bundle: Path) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[int(at * len(content))] ^= 0xFF
        (bundle / name).write_bytes(content)

    return damage


def cut(name: str) -> Callable[[Path], None]:
    """Cut off the last thousand bytes of a file."""

    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes((bundle / name).read_bytes()[:-1000])

    return damage


def gone(name: str) -> Callable[[Path], None]:
    """Delete a file."""
    return lambda bundle: (bundle / name).unlink()


def edited(change: Callable[[dict[str, Any]], object], *, signed: bool) -> Callable[[Path], None]:
    """Change the manifest alone."""
    return lambda bundle: rewrite(bundle, change, sign=signed)


def remade(name: str, change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    """Change a model, and sign."""

    def damage(bundle: Path) -> None:
        model = onnx.load(str(bundle / name))
        change(model)
        (bundle / name).write_bytes(model.SerializeToString())
        sign(bundle)

    return damage


def reworded(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace words in a text file, and sign."""

    def damage(bundle: Path) -> None:
        text = (bundle / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        (bundle / name).write_text(text.replace(old, new, 1), encoding="utf-8")
        sign(bundle)

    return damage


def added(name: str) -> Callable[[Path], None]:
    """Add a file that the manifest doesn't list."""

    def damage(bundle: Path) -> None:
        (bundle / name).write_text("print('not yours')\n", encoding="utf-8")

    return damage
