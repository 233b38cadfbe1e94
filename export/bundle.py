"""Writing a bundle: the model, what it was checked with, and all that a deployment needs; no torch."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from export.errors import BundleError
from export.manifest import (
    HASH_FIELD,
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    README_FILE,
    SAMPLES_FILE,
    SCHEMA_VERSION,
    file_record,
    manifest_bytes,
    manifest_sha256,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx

__all__ = ["read_manifest", "write_bundle"]

_TEMPLATE = "bundle_readme.md.jinja"


def write_bundle(
    directory: Path,
    *,
    model: onnx.ModelProto | bytes,
    manifest: Mapping[str, Any],
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    raw_inputs: npt.NDArray[np.uint8],
    int8: bytes | None = None,
) -> Path:
    """Write a bundle, or replace the one that is there: nobody ever sees half of one.

    The directory holds model.onnx, samples.npz (arrays `inputs`, `outputs`, `images`), README.md and
    manifest.json, to which `schema_version`, `files` and `manifest_sha256` are added.

    Args:
        directory: of the bundle; its parent is made where needed.
        model: with embedded weights.
        manifest: JSON types only; see `bundle_readme.md.jinja` for the keys that the README reads.
        inputs: real inputs after preprocessing, (N, C, H, W).
        outputs: what the trained network gave for them, (N, classes).
        raw_inputs: the same images before preprocessing, (N, H, W, C).
        int8: the quantised model, where there is one; stored as model.int8.onnx.

    Returns:
        The directory.

    Raises:
        BundleError: the arrays don't belong together, the manifest is not JSON, or the disk refuses.
    """
    directory = Path(directory)
    _check_samples(directory, inputs, outputs, raw_inputs)
    _check_place(directory)
    try:
        content = json.loads(manifest_bytes(dict(manifest)))
    except (TypeError, ValueError) as error:
        raise BundleError(directory, f"the manifest can't be stored as JSON ({error})") from error
    try:
        models = {MODEL_FILE: _as_bytes(model)} | ({INT8_FILE: int8} if int8 is not None else {})
        return _write(directory, models, content, inputs, outputs, raw_inputs)
    except OSError as error:
        raise BundleError(directory, f"can't be written ({error})") from error


def _check_place(directory: Path) -> None:
    """Replacing removes what was there, so it must be a bundle, or nothing."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST_FILE).is_file():
        raise BundleError(directory, f"is in the way: a directory with other things and no {MANIFEST_FILE}")
    if directory.exists() and not directory.is_dir():
        raise BundleError(directory, "is in the way: a file of that name")


def _check_samples(
    directory: Path, inputs: npt.NDArray[Any], outputs: npt.NDArray[Any], raw_inputs: npt.NDArray[Any]
) -> None:
    if inputs.dtype != np.float32 or inputs.ndim != 4:
        raise BundleError(directory, f"inputs are {inputs.dtype} of shape {inputs.shape}, not float32 (N, C, H, W)")
    if outputs.dtype != np.float32:
        raise BundleError(directory, f"outputs are {outputs.dtype}, not float32")
    if raw_inputs.dtype != np.uint8 or raw_inputs.ndim != 4:
        raise BundleError(
            directory,
            f"raw inputs are {raw_inputs.dtype} of shape {raw_inputs.shape}, not uint8 (N, H, W, C)",
        )
    if not len(inputs) == len(outputs) == len(raw_inputs) > 0:
        raise BundleError(
            directory,
            f"{len(inputs)} inputs, {len(outputs)} outputs and {len(raw_inputs)} raw inputs: "
            "as many of each are needed, and at least one",
        )


def _as_bytes(model: onnx.ModelProto | bytes) -> bytes:
    return model if isinstance(model, bytes) else bytes(model.SerializeToString())


def _write(
    directory: Path,
    models: Mapping[str, bytes],
    content: dict[str, Any],
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    raw_inputs: npt.NDArray[np.uint8],
) -> Path:
    directory.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{directory.name}.new-", dir=directory.parent))
    try:
        staged.chmod(0o755)  # mkdtemp's own mode shuts out everybody else
        for name, model in models.items():
            (staged / name).write_bytes(model)
        np.savez(staged / SAMPLES_FILE, inputs=inputs, outputs=outputs, images=raw_inputs)
        (staged / README_FILE).write_text(
            _readme(content, raw_inputs.shape, {name: len(model) for name, model in models.items()}), encoding="utf-8"
        )
        names = (*models, SAMPLES_FILE, README_FILE)
        content |= {
            "schema_version": SCHEMA_VERSION,
            "files": {name: file_record(staged / name) for name in names},
        }
        content[HASH_FIELD] = manifest_sha256(content)
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (staged / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        for path in (*staged.iterdir(), staged):
            _sync(path)
        _put_in_place(staged, directory)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return directory


def _put_in_place(staged: Path, directory: Path) -> None:
    """Rename the finished bundle to its name; the one it replaces goes last."""
    if not directory.exists():
        staged.rename(directory)
        _sync(directory.parent)
        return
    # A non-empty directory can't be replaced in one step: the old one steps aside, and back if that fails.
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old-", dir=directory.parent))
    old = aside / directory.name
    directory.rename(old)
    try:
        staged.rename(directory)
    except OSError:
        old.rename(directory)
        aside.rmdir()
        raise
    _sync(directory.parent)
    shutil.rmtree(aside)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readme(content: Mapping[str, Any], image_shape: tuple[int, ...], sizes: Mapping[str, int]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    resize = (content.get("preprocessing") or {}).get("resize")
    return environment.get_template(_TEMPLATE).render(
        manifest=content,
        metrics=content.get("metrics") or {},
        device=content.get("device") or {},
        preprocessing=content.get("preprocessing") or {},
        resizes=resize is not None and list(resize) != list(image_shape[1:3]),
        samples=image_shape[0],
        model_bytes=sizes[MODEL_FILE],
        int8_bytes=sizes.get(INT8_FILE),
        int8_deployed=content.get("deployed") == INT8_FILE,
    )
