"""The measurements of `hwnas verify`: accuracy and costs of a bundle's model, under the conditions of its manifest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from export import onnx_file
from export.bundle.manifest import INT8_FILE, MODEL_FILE
from export.errors import InvalidFileError
from latency_models.counted_costs import static_costs
from latency_models.errors import CostError, DeviceError
from latency_models.graph.external_data import openable
from latency_models.model_profile import profile
from latency_models.timer import give_back_memory
from pipeline.config.device import DeviceOptions, device_on_a_word
from pipeline.config.file import parse_section
from pipeline.costs.metrics import measured_metrics
from pipeline.data import load_data
from pipeline.errors import HwnasError
from pipeline.registry import is_dotted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BUDGET_S = 2.0
"""Seconds for the latency."""

_LIBRARIES_BYTES = 220e6
_COPIES = 7  # while ONNX Runtime loads a model: its weights as read, as kept, as kernels want them, and freed ones
_BATCH_BYTES = 10**6
_LARGEST_BATCH = 256


def most_model_bytes(memory_mb: int) -> int:
    """The size in bytes of the largest model that is checked within this memory: a few copies beside the libraries."""
    return int(max(memory_mb * 1e6 - _LIBRARIES_BYTES, 0) / _COPIES)


def evaluate(model: Path, manifest: Mapping[str, Any]) -> float | str:
    """Accuracy on the whole test split of the data that the manifest names, or the reason why there is none.

    Raises:
        InvalidFileError: the model can't be run on that data.
    """
    section = manifest.get("data")
    if isinstance(section, dict) and is_dotted(str(section.get("name"))):
        return "its data set is a third party's, whose code isn't imported on a manifest's word"
    try:
        data = load_data(parse_section("data", section, "manifest.json"))
        test = data.load_test()
    except HwnasError as error:
        return str(error)
    if not len(test):
        return "the test data holds no image"
    give_back_memory()
    session = onnx_file.open_session(model)
    batch = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // (4 * math.prod(data.input_shape))))
    right = 0
    for start in range(0, len(test), batch):  # images become inputs a few at a time: all of them can be gigabytes
        labels = test.labels[start : start + batch]
        found = onnx_file.run(session, data.preprocessing.apply(test.images[start : start + batch]))
        if found.ndim != 2 or len(found) != len(labels) or not found.size:
            raise InvalidFileError("the model", f"its outputs have the shape {found.shape}, not (images, classes)")
        right += int((found.argmax(axis=-1) == labels).sum())
    return right / len(test)


def measure(model: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[float, float, float] | str]:
    """Map each metric to its value now, (point, low, high), or to the reason why it can't be judged here.

    A latency is judged only in the environment of the bundle: its limit holds for no other. Operations and parameters
    of a quantised file are those of the float model beside it: scales and zero points are none.

    """
    try:
        recorded = DeviceOptions.model_validate(manifest.get("device"))
    except ValidationError:
        return dict.fromkeys(manifest["limits"], "the manifest names no device to measure on")
    try:
        device = device_on_a_word(recorded)
    except DeviceError as error:
        return dict.fromkeys(manifest["limits"], str(error))
    give_back_memory()
    try:
        measured = profile(openable(model), device, budget_s=BUDGET_S)
    except CostError as error:
        return dict.fromkeys(manifest["limits"], f"it can't be measured here: {error}")
    if model.name == INT8_FILE:
        counted = static_costs((model.parent / MODEL_FILE).read_bytes(), device)
        measured = replace(measured, macs=counted.macs, params=counted.params)
    intervals: dict[str, tuple[float, float, float] | str] = {
        name: (value, value, value) for name, value in measured_metrics(measured).items()
    }
    latency = measured.latency
    intervals["latency_ms"] = (latency.latency_ms, latency.low_ms, latency.high_ms)
    environment = manifest.get("environment")
    before = environment if isinstance(environment, dict) else {}
    if before.get("fingerprint") != latency.environment.fingerprint:
        intervals["latency_ms"] = (
            f"{latency.latency_ms:.4g} ms on this {latency.environment.cpu_model};"
            f" the limit was asked for on another environment ({before.get('cpu_model', 'unknown')})"
        )
    return intervals
