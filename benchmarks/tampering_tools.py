"""Ways to damage bundles for `tampering.py`: bytes, files, manifests, with their hashes renewed or not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from export.bundle.manifest import HASH_FIELD, file_record, manifest_sha256


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object], signed: bool = True) -> None:
    """Change the manifest; signed, its own hash fits again."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    if signed:
        manifest[HASH_FIELD] = manifest_sha256(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def sign(bundle: Path) -> None:
    """Renew every file's hash and the manifest's own."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"] = {name: file_record(bundle / name) for name in manifest["files"]}

    rewrite(bundle, change)


def flip(bundle: Path, name: str) -> None:
    """Invert the byte in the middle of a file."""
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (bundle / name).write_bytes(content)


def cut(bundle: Path, name: str) -> None:
    """Cut off the last thousand bytes of a file."""
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1000])


def gone(bundle: Path, name: str) -> None:
    """Delete a file."""
    (bundle / name).unlink()


def remade(bundle: Path, name: str, change: Callable[..., object], *more: Any) -> None:
    """Change a model, and sign."""
    model = onnx.load(str(bundle / name))
    change(model, *more)
    (bundle / name).write_bytes(model.SerializeToString())
    sign(bundle)


def reworded(bundle: Path, name: str, old: str, new: str) -> None:
    """Replace words in a text file, and sign."""
    text = (bundle / name).read_text(encoding="utf-8")
    assert old in text, f"{name} has no {old!r}"
    (bundle / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    sign(bundle)


def added(bundle: Path, name: str) -> None:
    """Add a file that the manifest doesn't list."""
    (bundle / name).write_text("print('not yours')\n", encoding="utf-8")
