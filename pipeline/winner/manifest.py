"""The manifest of a run's bundle: what was searched, what won and how good it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from export.bundle.manifest import INT8_FILE, MODEL_FILE
from export.checks import accuracy
from latency_models.counters.nvml import read_gpu
from latency_models.counters.unavailable import Unavailable
from pipeline.costs.metrics import measured_metrics
from pipeline.spaces.base import activations_of
from pipeline.winner.pick import front_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet, Split
    from pipeline.evaluators.device_data import DeviceData
    from pipeline.run import RunDirectory
    from pipeline.trials.journal import TrialRecord
    from pipeline.winner.finalize import FinalModel
    from pipeline.winner.int8 import Int8Decision


@dataclass(frozen=True)
class Winner:
    """The trial that becomes the bundle, and the network that was finished from it."""

    record: TrialRecord
    final: FinalModel

    @property
    def deployed(self) -> str:
        """Name of the bundle's file that the device runs."""
        return MODEL_FILE if self.final.quantized is None else INT8_FILE


# What stands in other parts of a manifest, or is of no use there.
_ELSEWHERE = frozenset({"model", "device", "environment", "precision", "shapes", "peak_memory_source"})


def metrics_of(
    final: FinalModel, data: DataSet, on_device: DeviceData, test: Split, int8: Int8Decision
) -> dict[str, Any]:
    """The manifest's `metrics`, of the deployed file; where that is the INT8 one, with fp32's accuracies beside."""
    final.model.to(on_device.device)
    images = data.preprocessing.apply(test.images)
    plain = {
        "accuracy_validation": final.facts.accuracy,
        "accuracy_test": accuracy(final.graph.SerializeToString(), images, test.labels),
    }
    accuracies = plain
    if final.quantized is not None:
        accuracies = {name: int8.facts[name] for name in plain} | {f"{n}_fp32": v for n, v in plain.items()}
    return {
        **accuracies,
        "accuracy_test_torch": on_device.accuracy(final.model, *on_device.tensors(test)),
        "test_images": len(test),
        **{k: v for k, v in final.profile.as_dict().items() if k not in _ELSEWHERE},
    }


def manifest_of(
    run: RunDirectory,
    data: DataSet,
    winner: Winner,
    records: list[TrialRecord],
    pick: str,
    metrics: Mapping[str, Any],
    parity: str,
) -> dict[str, Any]:
    """The manifest without the sections on INT8, on the image model and for the model card.

    Args:
        run: of the bundle.
        data: of the run's config.
        winner: of the run.
        records: all trials of the run.
        pick: the rule, or the trial's id, that chose the winner.
        metrics: see `metrics_of`.
        parity: ONNX Runtime against torch, in words.
    """
    config, record, profile = run.config, winner.record, winner.final.profile
    return {
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture_id": record.id,
        "architecture": record.architecture,
        "activations": activations_of(record.architecture),
        "classes": list(data.classes),
        "preprocessing": data.preprocessing.as_dict(),
        "opset": config.export.opset,
        "device": config.device.model_dump(),
        "limits": config.limits,
        "deployed": winner.deployed,
        "won": {"accuracy": metrics["accuracy_validation"], **measured_metrics(profile)},
        "asked": bundle_settings(config),
        "objectives": list(config.objectives),
        "metrics": metrics,
        "parity": parity,
        "data": json.loads(config.data.model_dump_json()),
        "run": {
            "seed": config.seed,
            "pick": pick,
            "config_sha256": run.digest(),
            "trials": len(records),
            "front": [r.id for r in front_of(records, config.objectives)],
            "epochs": winner.final.facts.epochs,
        },
        "environment": profile.latency.environment.as_dict(),
        "gpu": _gpu_facts(),
        "versions": {name: version(name) for name in ("hwnas", "nni", "torch", "onnx", "onnxruntime")},
    }


def bundle_settings(config: RunConfig) -> dict[str, Any]:
    """The sections of a config that decide how a finished search becomes a bundle."""
    return {"final": config.final.model_dump(), "export": config.export.model_dump()}


def _gpu_facts() -> dict[str, Any]:
    """The GPU as NVML describes it, with a reason in place of each field that it can't give."""
    readings = read_gpu()
    if isinstance(readings, Unavailable):
        return {"unavailable": readings.reason}
    return {
        name: f"unavailable: {value['reason']}" if isinstance(value, dict) else value
        for name, value in asdict(readings).items()
    }
