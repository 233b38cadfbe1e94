"""Checks of a manifest's content against the models: classes, evaluation, inputs, outputs; no torch."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from export import onnx_file
from export.bundle.manifest import IMAGE_FILE, INT8_FILE, MODEL_FILE, MODEL_FILES, section
from export.checks import Check
from export.errors import InvalidFileError, PreprocessingError
from export.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Samples = Mapping[str, npt.NDArray[Any]]

PREPROCESSING_TOLERANCE = 1e-5
PROBABILITY_TOLERANCE = 1e-5
# Processors differ in how they add up products of integers; another network is off by its whole size.
INT8_TOLERANCE = 0.05
_ROUNDING = 1e-9


def check_classes(directory: Path, manifest: Mapping[str, Any]) -> Check:
    """Check that the manifest's classes are those in the model's metadata, and as many as its outputs."""
    classes = manifest.get("classes")
    if classes is None:
        return Check("classes", None, "skipped: the manifest records none")
    if not isinstance(classes, list):
        return Check("classes", False, f"the manifest records something of type {type(classes).__name__}, not a list")
    model = onnx_file.read_model(directory / MODEL_FILE)
    stored = {entry.key: entry.value for entry in model.metadata_props}.get("classes")
    shape = model.graph.output[0].type.tensor_type.shape.dim
    width = shape[-1].dim_value if shape else 0
    if width and width != len(classes):
        return Check("classes", False, f"the manifest names {len(classes)}, the model has {width} outputs")
    if stored is not None and stored != json.dumps(classes):
        return Check("classes", False, "the names in the model's metadata aren't the manifest's")
    return Check("classes", True, f"{len(classes)} names" + (", the same in the model's metadata" if stored else ""))


def check_evaluation(manifest: Mapping[str, Any]) -> Check | None:
    """Check that the confusion matrix adds up to the accuracy beside it; None without such a section."""
    if "evaluation" not in manifest:
        return None
    record = section(manifest, "evaluation")
    try:
        table = np.asarray(record["confusion"], np.int64)
        images, low, high = int(record["images"]), float(record["accuracy_low"]), float(record["accuracy_high"])
        stated = float(section(manifest, "metrics")["accuracy_test"])
        correct = int(record["correct"]) if "correct" in record else None
        classes = [(int(row["images"]), int(row["correct"])) for row in record.get("per_class", [])]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        return Check("evaluation", False, f"it can't be read ({type(error).__name__}: {error})")
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.min(initial=0) < 0 or table.sum() != images > 0:
        return Check("evaluation", False, f"the confusions are no square table of {images} images")
    found = float(np.trace(table)) / images
    if abs(found - stated) > _ROUNDING or not low <= found <= high:
        return Check(
            "evaluation", False, f"the confusions give an accuracy of {found:.4f}, stated is {stated:.4f}"
            f" ({low:.4f} to {high:.4f})"
        )  # fmt: skip
    right = int(np.trace(table))
    if correct not in (None, right):
        return Check("evaluation", False, f"by the confusions {right} of {images} are right, stated are {correct}")
    if classes and classes != list(zip(table.sum(axis=1).tolist(), table.diagonal().tolist(), strict=True)):
        return Check("evaluation", False, "the figures of the single classes aren't those of the confusions")
    return Check("evaluation", True, f"{right} of {images} right, as the accuracy says")


def check_intervals(manifest: Mapping[str, Any]) -> Check:
    """Check that every figure of the manifest that has an interval lies in it."""
    found = list(_intervals(manifest))
    outside = [
        f"{place} is {point:g}, its interval {low:g} to {high:g}"
        for place, point, low, high in found
        if not low - _slack(low) <= point <= high + _slack(high)
    ]
    if outside:
        return Check("intervals", False, "; ".join(outside))
    if not found:
        return Check("intervals", None, "skipped: the manifest records none")
    return Check("intervals", True, f"figures that lie in their intervals: all {len(found)}")


def _intervals(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float]]:
    """Yield place, figure and interval of every `x`, `x_low`, `x_high`, also `x_ms`, `x_low_ms`, `x_high_ms`."""
    parts: list[tuple[str, Any]] = [("", dict(manifest))]
    while parts:
        place, part = parts.pop(0)
        if isinstance(part, list):
            parts += [(f"{place}[{at}]", each) for at, each in enumerate(part)]
        if not isinstance(part, dict):
            continue
        start = f"{place}." if place else ""
        parts += [(f"{start}{key}", each) for key, each in part.items()]
        for key in [key for key in part if "_low" in key]:
            name = key.replace("_low", "")
            point, low, high = (_number(part.get(each)) for each in (name, key, key.replace("_low", "_high")))
            if point is not None and low is not None and high is not None:
                yield f"{start}{name}", point, low, high


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _slack(end: float) -> float:
    return _ROUNDING * max(1.0, abs(end))


def check_preprocessing(manifest: Mapping[str, Any], samples: Samples) -> Check:
    """Check that the recorded preprocessing makes the stored inputs from the stored images."""
    record, images, inputs = manifest.get("preprocessing"), samples["images"], samples["inputs"]
    if record is None:
        return Check("preprocessing", None, "skipped: the manifest records none")
    if not isinstance(record, dict):
        return Check(
            "preprocessing", False, f"the manifest records something of type {type(record).__name__}, not an object"
        )
    if record.get("resize", 0) is None:
        record = record | {"resize": list(images.shape[1:3])}
    try:
        made = Preprocessing.from_dict(record).apply(images)
    except PreprocessingError as error:
        return Check("preprocessing", False, str(error))
    if made.shape != inputs.shape:
        return Check("preprocessing", False, f"makes inputs of shape {made.shape}, stored are {inputs.shape}")
    difference = float(np.max(np.abs(made - inputs), initial=0.0))
    detail = f"stored images give the stored inputs within {difference:.3g}"
    return Check("preprocessing", bool(difference <= PREPROCESSING_TOLERANCE), detail)


def check_int8_outputs(directory: Path, samples: Samples) -> Check:
    """Check the quantised model's outputs against the stored ones, as closely as processors agree on them."""
    name = "int8 parity"
    expected = samples.get("outputs_int8")
    if expected is None:
        return Check(name, None, "skipped: its outputs weren't stored")
    try:
        found = outputs(directory / INT8_FILE, samples["inputs"])
    except InvalidFileError as error:
        return Check(name, False, str(error))
    if found.shape != expected.shape or expected.dtype.kind != "f":
        return Check(name, False, f"outputs have shape {found.shape}, stored are {expected.dtype} {expected.shape}")
    difference = float(np.sqrt(np.mean((found - expected) ** 2)) / max(float(np.sqrt(np.mean(expected**2))), 1e-12))
    detail = f"outputs differ from the stored ones by {difference:.2%} (tolerance {INT8_TOLERANCE:.0%})"
    return Check(name, bool(difference <= INT8_TOLERANCE), detail)


def check_image_outputs(directory: Path, manifest: Mapping[str, Any], samples: Samples) -> Check:
    """Check that the model with the preprocessing inside gives the probabilities of the model it was made of."""
    name = "image parity"
    base = section(manifest, "image_model").get("of")
    if base not in MODEL_FILES or base == IMAGE_FILE or base not in section(manifest, "files"):
        return Check(name, False, f"the manifest says that it was made of {base!r}, which is no model of this bundle")
    try:
        preprocessing = Preprocessing.from_dict(section(manifest, "preprocessing"))
        found = outputs(directory / IMAGE_FILE, preprocessing.resize(samples["images"]))
        expected = softmax(outputs(directory / base, samples["inputs"]))
    except (InvalidFileError, PreprocessingError) as error:
        return Check(name, False, str(error))
    if found.shape != expected.shape:
        return Check(name, False, f"probabilities have shape {found.shape}, those of {base} {expected.shape}")
    difference = float(np.max(np.abs(found - expected), initial=0.0))
    detail = f"largest difference from {base}'s probabilities {difference:.3g} (tolerance {PROBABILITY_TOLERANCE:g})"
    return Check(name, bool(difference <= PROBABILITY_TOLERANCE), detail)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities of rows of logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def outputs(model: bytes | Path, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Run a model file on inputs through ONNX Runtime.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these inputs.
    """
    return onnx_file.run(onnx_file.open_session(model), inputs)
