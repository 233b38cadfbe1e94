"""Writing a bundle: the models, samples to check them with, and all that a deployment needs; no torch."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from export import onnx_file
from export.bundle import model_card
from export.bundle.manifest import (
    HASH_FIELD,
    IMAGE_FILE,
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    PREDICT_FILE,
    PREDICT_SOURCE,
    README_FILE,
    SAMPLES_FILE,
    SCHEMA_VERSION,
    file_record,
    manifest_bytes,
    manifest_sha256,
)
from export.bundle.model_checks import model_record
from export.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx


def write_bundle(
    directory: Path,
    *,
    model: onnx.ModelProto | bytes,
    manifest: Mapping[str, Any],
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    raw_inputs: npt.NDArray[np.uint8],
    int8: bytes | None = None,
    image_model: bytes | None = None,
) -> Path:
    """Write a bundle, or replace the one that is there, so that nobody ever sees half of one.

    The directory holds model.onnx, samples.npz (arrays `inputs`, `outputs`, `images`, and with a quantised model
    `outputs_int8`), README.md, predict.py and manifest.json, to which `schema_version`, `files`, `models` and
    `manifest_sha256` are added.

    Args:
        directory: of the bundle; its parent is made where needed.
        model: with embedded weights.
        manifest: JSON types only; `docs/bundle.md` lists the known keys, each optional.
        inputs: real inputs after preprocessing, (N, C, H, W).
        outputs: the trained network's outputs for them, (N, classes).
        raw_inputs: the same images before preprocessing, (N, H, W, C).
        int8: the quantised model, where there is one; stored as model.int8.onnx.
        image_model: the model with the preprocessing inside, where there is one; stored as model.image.onnx.

    Returns:
        The directory.

    Raises:
        BundleError: the arrays don't belong together, the manifest is not JSON, or the disk refuses.
        InvalidFileError: a model can't be read, or the quantised one can't be run on the inputs.
    """
    directory = Path(directory)
    _check_samples(directory, inputs, outputs, raw_inputs)
    _check_place(directory)
    try:
        content = json.loads(manifest_bytes(dict(manifest)))
    except (TypeError, ValueError) as error:
        raise BundleError(directory, f"the manifest can't be stored as JSON ({error})") from error
    given = {MODEL_FILE: _as_bytes(model), INT8_FILE: int8, IMAGE_FILE: image_model}
    models = {name: value for name, value in given.items() if value is not None}
    content["models"] = {name: model_record(onnx_file.read_model(value)) for name, value in models.items()}
    samples: dict[str, npt.NDArray[Any]] = {"inputs": inputs, "outputs": outputs, "images": raw_inputs}
    if int8 is not None:
        samples["outputs_int8"] = onnx_file.run(onnx_file.open_session(int8), inputs)
    try:
        return _write(directory, models, content, samples)
    except OSError as error:
        raise BundleError(directory, f"can't be written ({error})") from error


def _check_place(directory: Path) -> None:
    """Refuse a place with anything else than a bundle, because replacing removes it."""
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
    samples: Mapping[str, npt.NDArray[Any]],
) -> Path:
    directory.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{directory.name}.new-", dir=directory.parent))
    try:
        for name, model in models.items():
            (staged / name).write_bytes(model)
        with (staged / SAMPLES_FILE).open("wb") as file:
            np.savez(file, **cast("dict[str, Any]", samples))
        sizes = {name: len(model) for name, model in models.items()}
        text = model_card.render(content, samples["images"].shape, sizes)
        (staged / README_FILE).write_text(text, encoding="utf-8")
        shutil.copyfile(PREDICT_SOURCE, staged / PREDICT_FILE)
        names = (*models, SAMPLES_FILE, README_FILE, PREDICT_FILE)
        content |= {
            "schema_version": SCHEMA_VERSION,
            "files": {name: file_record(staged / name) for name in names},
        }
        content[HASH_FIELD] = manifest_sha256(content)
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (staged / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        _open_to_readers(staged)
        for path in (*staged.iterdir(), staged):
            sync(path)
        _put_in_place(staged, directory)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return directory


def _open_to_readers(staged: Path) -> None:
    """Let whoever may read the files read their folder: until now it was closed to everybody else."""
    readers = (staged / MANIFEST_FILE).stat().st_mode & 0o444
    staged.chmod(0o700 | readers | readers >> 2)


def _put_in_place(staged: Path, directory: Path) -> None:
    """Rename the finished bundle to its name, and remove the old one last."""
    if not directory.exists():
        staged.rename(directory)
        sync(directory.parent)
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
    sync(directory.parent)
    shutil.rmtree(aside)


def sync(path: Path) -> None:
    """Force a file or folder onto the disk, so that it outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
