"""The ONNX form of each activation that is fastest on a device: timed once, and kept in the user's data folder.

Timed is a small network like a space's own: convolution, activation, convolution. Candidates' quick graphs and the
winner's export use the same forms. Most activations have one form only, and nothing to time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import filelock
import platformdirs
import torch
from pydantic import BaseModel
from torch import nn

from export.activations import table as activations
from export.exporter.graph_builder import plain_graph
from export.lowering.form_choice import alternatives, choose_forms
from latency_models.strict_json import read_json
from pipeline.costs.precision import quantizer_for
from pipeline.files import write_whole
from pipeline.spaces.base import activation_place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx

    from latency_models.timing.meter import LatencyMeter
    from pipeline.spaces.base import SearchSpace

FORMAT = 1
"""Version of the file; a new form in `export.lowering.forms` takes a new number."""
_CHANNELS, _SIDE = 64, 16
_SECONDS_EACH = 0.4
_MOST_BYTES = 10**6


class _StoredForms(BaseModel):
    """Contents of the file of forms: those of each activation's places."""

    format: int
    forms: dict[str, dict[str, str]] = {}


def forms_of(space: SearchSpace, meter: LatencyMeter) -> dict[str, str]:
    """Map the family of each activation that a space may choose to its fastest form on the meter's device.

    Raises:
        CostError: the device can't be used.
    """
    names = sorted({str(v) for c in space.choices if activation_place(c.label) for v in c.values})
    models = {name: model for name in names if alternatives(model := _network(name))}
    if not models:
        return {}
    path = _file(meter)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        known = _read(path)
        missing = {name: model for name, model in models.items() if name not in known}
        if missing:
            known |= {name: choose_forms(m, _measure(meter)) for name, m in missing.items()}
            write_whole(path, json.dumps({"format": FORMAT, "forms": known}, indent=1).encode())
    return {family: form for name in models for family, form in known[name].items()}


def _network(name: str) -> onnx.ModelProto:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(_CHANNELS, _CHANNELS, 1),
            activations.create(name, _CHANNELS),
            nn.Conv2d(_CHANNELS, _CHANNELS, 1),
        )
        with activations.as_if_trained(network):
            return plain_graph(network, (_CHANNELS, _SIDE, _SIDE))


def _measure(meter: LatencyMeter) -> Callable[[Sequence[bytes]], list[tuple[float, float]]]:
    quantize = quantizer_for(meter.device.precision)

    def measure(models: Sequence[bytes]) -> list[tuple[float, float]]:
        timed = meter.measure_together([quantize(model) for model in models], budget_s=_SECONDS_EACH * len(models))
        return [(ratio.ratio, ratio.high) for ratio in timed.ratios]

    return measure


def _file(meter: LatencyMeter) -> Path:
    device = meter.device
    settings = f"{device.precision}-b{device.batch_size}"
    name = f"{device.name}-{meter.environment().fingerprint[:16]}-{settings}.json"
    return platformdirs.user_data_path("hwnas") / "activation_forms" / name


def _read(path: Path) -> dict[str, dict[str, str]]:
    """The stored forms; none where there is no file, or none of this format."""
    try:
        stored = _StoredForms.model_validate(read_json(path, _MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return stored.forms if stored.format == FORMAT else {}
