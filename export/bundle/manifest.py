"""A bundle's manifest: JSON with the hashes of every file beside it and of itself; no torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from export.bundle import strict_json
from export.bundle.manifest_schema import damage
from export.bundle.regular_file import NotRegularError, open_regular, read_bounded
from export.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
SAMPLES_FILE = "samples.npz"
README_FILE = "README.md"
IMAGE_FILE = "model.image.onnx"
PREDICT_FILE = "predict.py"
PREDICT_SOURCE = Path(__file__).with_name(PREDICT_FILE)  # a program of its own: it is copied, never imported
MODEL_FILES = (MODEL_FILE, INT8_FILE, IMAGE_FILE)
HASH_FIELD = "manifest_sha256"


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read a bundle's manifest and check it against its schema; `verify_bundle` checks its hashes.

    Raises:
        BundleError: no bundle there, an unknown schema version, or a damaged manifest: where, and what.
    """
    directory = Path(directory)
    try:
        content = read_bounded(directory, MANIFEST_FILE, strict_json.MOST_BYTES)
    except NotRegularError as error:
        raise BundleError(directory, f"{MANIFEST_FILE} {error}") from error
    except OSError as error:
        raise BundleError(directory, f"{MANIFEST_FILE} can't be read ({error.strerror or error})") from error
    try:
        manifest = strict_json.parse(content)
    except (ValueError, MemoryError) as error:
        raise BundleError(directory, f"{MANIFEST_FILE} is damaged: not valid JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise BundleError(directory, f"{MANIFEST_FILE} is damaged: it holds a {type(manifest).__name__}, not an object")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(directory, f"schema_version is {version!r}; this version of hwnas reads {SCHEMA_VERSION}")
    if (found := damage(manifest)) is not None:
        raise BundleError(directory, f"{MANIFEST_FILE} is damaged: {found}")
    return manifest


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as canonical JSON: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        TypeError, ValueError: the manifest holds values that JSON has not.
    """
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON without the field that holds this very hash."""
    rest = {key: value for key, value in manifest.items() if key != HASH_FIELD}
    return hashlib.sha256(manifest_bytes(rest)).hexdigest()


def file_record(path: Path) -> dict[str, Any]:
    """SHA-256 and size of a file, as a manifest records them; of any size, it is read in pieces.

    Raises:
        OSError: it is no regular file, or can't be read.
    """
    with open_regular(path.parent, path.name) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": os.fstat(file.fileno()).st_size}


def section(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of the manifest; empty where it is missing or something else."""
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def stays_inside(name: str) -> bool:
    """Whether a recorded path is relative, has no `..` and no backslash or drive."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", ":", "\0"}
