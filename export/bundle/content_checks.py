"""Checks of a manifest's content against the models: classes, evaluation, inputs, outputs; no torch."""

from __future__ import annotations

import json
import math
from collections import deque
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
    import onnx

    from export.bundle.samples import SampleFile

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
    model = onnx_file.read_model(directory / MODEL_FILE)
    stored = {entry.key: entry.value for entry in model.metadata_props}.get("classes")
    width = _width(model)
    if width and width != len(classes):
        return Check("classes", False, f"the manifest names {len(classes)}, the model has {width} outputs")
    if stored is not None and stored != json.dumps(classes):
        return Check("classes", False, "the names in the model's metadata aren't the manifest's")
    return Check("classes", True, f"{len(classes)} names" + (", the same in the model's metadata" if stored else ""))


def _width(model: onnx.ModelProto) -> int:
    """Size of the last axis of a model's first output; 0 where that is open, or there is none."""
    for value in model.graph.output[:1]:
        for size in value.type.tensor_type.shape.dim[-1:]:
            return int(size.dim_value)
    return 0


def check_evaluation(manifest: Mapping[str, Any]) -> Check | None:
    """Check that the confusion matrix adds up to the accuracy beside it; None without such a section."""
    if manifest.get("evaluation") is None:
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
    parts: deque[tuple[str, Any]] = deque([("", dict(manifest))])
    while parts:
        place, part = parts.popleft()
        if isinstance(part, list):
            parts += [(f"{place}[{at}]", each) for at, each in enumerate(part) if isinstance(each, dict | list)]
        if not isinstance(part, dict):
            continue
        start = f"{place}." if place else ""
        parts += [(f"{start}{key}", each) for key, each in part.items() if isinstance(each, dict | list)]
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


def check_preprocessing(manifest: Mapping[str, Any], samples: SampleFile) -> Check:
    """Check that the recorded preprocessing makes the stored inputs from the stored images.

    Raises:
        One of `ARCHIVE_ERRORS`: the samples are damaged.
    """
    record = manifest.get("preprocessing")
    if record is None:
        return Check("preprocessing", None, "skipped: the manifest records none")
    if record["resize"] is None:
        record = record | {"resize": list(samples.image_shape[1:3])}
    difference = 0.0
    try:
        preprocessing = Preprocessing.from_dict(record)
        shape = (samples.count, *preprocessing.input_shape)
        if shape != samples.input_shape:  # before a record of a million pixels is obeyed
            return Check("preprocessing", False, f"makes inputs of shape {shape}, stored are {samples.input_shape}")
        for images, inputs in samples.pairs("images", "inputs"):
            apart = np.abs(preprocessing.apply(images) - inputs)
            difference = float(np.maximum(difference, np.max(apart, initial=0.0)))
    except PreprocessingError as error:
        return Check("preprocessing", False, str(error))
    detail = f"stored images give the stored inputs within {difference:.3g}"
    return Check("preprocessing", bool(difference <= PREPROCESSING_TOLERANCE), detail)


def check_int8_outputs(directory: Path, samples: SampleFile) -> Check:
    """Check the quantised model's outputs against the stored ones, as closely as processors agree on them.

    Raises:
        One of `ARCHIVE_ERRORS`: the samples are damaged.
    """
    name = "int8 parity"
    if "outputs_int8" not in samples:
        return Check(name, None, "skipped: its outputs weren't stored")
    apart = largest = 0.0
    count = 0
    try:
        session = onnx_file.open_session(directory / INT8_FILE)
        for inputs, expected in samples.pairs("inputs", "outputs_int8"):
            found = onnx_file.run(session, inputs)
            if found.shape != expected.shape or found.dtype.kind != "f":
                shapes = f"outputs have shape {found.shape}, stored are {expected.dtype} {expected.shape}"
                return Check(name, False, shapes)
            apart += float(np.sum((found.astype(np.float64) - expected) ** 2))
            largest += float(np.sum(expected.astype(np.float64) ** 2))
            count += expected.size
    except InvalidFileError as error:
        return Check(name, False, str(error))
    difference = math.sqrt(apart / count) / max(math.sqrt(largest / count), 1e-12)
    detail = f"outputs differ from the stored ones by {difference:.2%} (tolerance {INT8_TOLERANCE:.0%})"
    return Check(name, bool(difference <= INT8_TOLERANCE), detail)


def check_image_outputs(directory: Path, manifest: Mapping[str, Any], samples: SampleFile) -> Check:
    """Check that the model with the preprocessing inside gives the probabilities of the model it was made of.

    Raises:
        One of `ARCHIVE_ERRORS`: the samples are damaged.
    """
    name = "image parity"
    base = section(manifest, "image_model").get("of")
    if base not in MODEL_FILES or base == IMAGE_FILE or base not in section(manifest, "files"):
        return Check(name, False, f"the manifest says that it was made of {base!r}, which is no model of this bundle")
    difference = 0.0
    try:
        preprocessing = Preprocessing.from_dict(section(manifest, "preprocessing"))
        if preprocessing.input_shape != samples.input_shape[1:]:
            return Check(name, False, f"the preprocessing makes inputs of another shape than {samples.input_shape}")
        whole, inner = (onnx_file.open_session(directory / file) for file in (IMAGE_FILE, base))
        for images, inputs in samples.pairs("images", "inputs"):
            found = onnx_file.run(whole, preprocessing.resize(images))
            logits = onnx_file.run(inner, inputs)
            if found.shape != logits.shape or {found.dtype.kind, logits.dtype.kind} != {"f"}:
                return Check(name, False, f"probabilities have shape {found.shape}, those of {base} {logits.shape}")
            difference = float(np.maximum(difference, np.max(np.abs(found - softmax(logits)), initial=0.0)))
    except (InvalidFileError, PreprocessingError) as error:
        return Check(name, False, str(error))
    detail = f"largest difference from {base}'s probabilities {difference:.3g} (tolerance {PROBABILITY_TOLERANCE:g})"
    return Check(name, bool(difference <= PROBABILITY_TOLERANCE), detail)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities of rows of logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
