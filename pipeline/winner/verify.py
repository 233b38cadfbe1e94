"""What `hwnas verify` hands to `export.bundle.verify`: accuracy and costs of a bundle's model, as its manifest asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from export.bundle.manifest import INT8_FILE, MODEL_FILE
from latency_models.errors import DeviceError
from latency_models.graph.static_costs import static_costs
from latency_models.model_profile import profile
from pipeline.config.device import device_on_a_word
from pipeline.config.file import parse_section
from pipeline.config.run import DeviceOptions
from pipeline.costs.costs import measured_metrics
from pipeline.data import load_data
from pipeline.errors import HwnasError
from pipeline.registry import is_dotted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BUDGET_S = 2.0


def evaluate(model: Path, manifest: Mapping[str, Any]) -> float | str:
    """Accuracy on the whole test split of the data that the manifest names, or why it isn't at hand."""
    from export.checks import accuracy

    section = manifest.get("data")
    if isinstance(section, dict) and is_dotted(str(section.get("name"))):
        return "its data set is a third party's, whose code isn't imported on a manifest's word"
    try:
        data = load_data(parse_section("data", section, "manifest.json"))
        test = data.load_test()
    except HwnasError as error:
        return str(error)
    return accuracy(model, data.preprocessing.apply(test.images), test.labels)


def measure(model: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[float, float, float] | str]:
    """Metric → (point, low, high) found now, or why it can't be judged here.

    A latency is judged only where it was measured; elsewhere the limit was never asked for. Of a quantised file,
    operations and parameters are those of the network beside it: its scales and zero points are none.

    Raises:
        CostError: the model can't be run.
    """
    try:
        recorded = DeviceOptions.model_validate(manifest.get("device"))
    except ValidationError:
        return dict.fromkeys(manifest["limits"], "the manifest names no device to measure on")
    try:
        device = device_on_a_word(recorded)
    except DeviceError as error:
        return dict.fromkeys(manifest["limits"], str(error))
    found = profile(model, device, budget_s=_BUDGET_S)
    if model.name == INT8_FILE:
        counted = static_costs((model.parent / MODEL_FILE).read_bytes(), device)
        found = replace(found, macs=counted.macs, params=counted.params)
    intervals: dict[str, tuple[float, float, float] | str] = {
        name: (value, value, value) for name, value in measured_metrics(found).items()
    }
    latency = found.latency
    intervals["latency_ms"] = (latency.latency_ms, latency.low_ms, latency.high_ms)
    environment = manifest.get("environment")
    before = environment if isinstance(environment, dict) else {}
    if before.get("fingerprint") != latency.environment.fingerprint:
        intervals["latency_ms"] = (
            f"{latency.latency_ms:.4g} ms on this {latency.environment.cpu_model};"
            f" the limit was asked for on another environment ({before.get('cpu_model', 'unknown')})"
        )
    return intervals
