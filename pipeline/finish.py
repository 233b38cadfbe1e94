"""From finished trials to a product: pick, re-measure, train to the end, export, check, pack."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import torch

from export.bundle import write_bundle
from export.errors import BundleError
from export.graph_builder import quick_graph
from export.manifest import INT8_FILE, MODEL_FILE
from export.onnx_export import export_model
from export.quantize import quantize_int8
from export.verify import accuracy, parity, verify_bundle
from latency_models.profile import profile, static_costs
from latency_models.timing import LatencyMeter
from pipeline import checkpoint
from pipeline.costs import gpu_facts, measured_metrics
from pipeline.devices import device_of
from pipeline.errors import NothingFeasibleError
from pipeline.int8 import INT8, Int8, calibration, of_device, prepare_of, try_int8
from pipeline.picks import activations_of, front_of, ranked
from pipeline.training import DeviceData, train
from pipeline.trial import trial_seed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    from torch import nn

    from latency_models.profile import Profile
    from latency_models.timing import Latency
    from pipeline.config import RunConfig
    from pipeline.console import Reporter
    from pipeline.data import DataSet, Split
    from pipeline.journal import TrialRecord
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace

SAMPLES = 64
_REMEASURED = 3
_REMEASURE_S = 1.0
_FINAL_MEASURE_S = 3.0


@dataclass(frozen=True)
class _Winner:
    """A trial as a product.

    Attributes:
        graph: the exported fp32 model.
        quantized: what an INT8 device runs in its place; None on others.
        profile: the costs of what is run.
    """

    record: TrialRecord
    model: nn.Module
    facts: checkpoint.Checkpoint
    graph: onnx.ModelProto
    quantized: bytes | None
    profile: Profile


class Finisher:
    """Finishes one run; holds what its steps share.

    Args:
        run: locked by the caller.
        data: of the run's config.
        space: of the run's config.
    """

    def __init__(self, run: RunDirectory, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
        self._run, self._data, self._space, self._reporter = run, data, space, reporter
        self._device = device_of(run.config.device)
        self._prepare = prepare_of(self._device.precision)
        self._meter = LatencyMeter(self._device)
        self._limits: dict[str, float] = dict(cast("dict[str, float]", run.config.constraints))

    @cached_property
    def _on_device(self) -> DeviceData:
        return DeviceData(self._data)

    def finish(self, records: list[TrialRecord], pick: str) -> dict[str, Any]:
        """Try trials in the pick's order until one keeps the limits as a finished file.

        Returns:
            The bundle's manifest.

        Raises:
            NothingFeasibleError: none does; tells the nearest miss.
            ExportError: the file isn't the network that was trained.
        """
        misses: list[str] = []
        order = ranked(self._run, records, pick)
        for record in self._remeasured(order, pick, misses):
            winner = self._realised(record)
            broken = self._broken(winner.profile)
            if broken:
                misses.append(f"{record.id}: {broken}")
                self._reporter.note(f"{record.id} as a finished file breaks a limit ({broken}); the next one is tried")
                continue
            return self._packed(winner, records, pick)
        listed = "; ".join(misses)
        raise NothingFeasibleError(f"measured again, no pick keeps the limits: {listed}", self._run.path)

    def _remeasured(self, order: list[TrialRecord], pick: str, misses: list[str]) -> list[TrialRecord]:
        """The order without those whose quick graph, measured again at length, lies above the latency limit."""
        limit = self._limits.get("latency_ms")
        self._reporter.stage("Measuring the top picks again")
        kept: list[tuple[float, TrialRecord]] = []
        for rank, record in enumerate(order):
            if rank >= _REMEASURED and kept:
                kept.append((record.objectives["latency_ms"], record))
                continue
            graph, _ = quick_graph(self._space.build(record.architecture), self._data.input_shape)
            latency = self._latency(self._prepare(graph.SerializeToString()), limit)
            doubts = f" ({'; '.join(latency.warnings)})" if latency.warnings else ""
            self._reporter.note(
                f"{record.id}: {latency.latency_ms:.4g} ms ({latency.low_ms:.4g} to {latency.high_ms:.4g});"
                f" in the search {record.objectives['latency_ms']:.4g} ms{doubts}"
            )
            if limit is not None and latency.low_ms > limit:
                misses.append(f"{record.id}: latency_ms {latency.latency_ms:.4g} (limit {limit:g})")
            else:
                kept.append((latency.latency_ms, record))
        if pick == "fastest":
            kept.sort(key=lambda pair: pair[0])
        return [record for _, record in kept]

    def _latency(self, content: bytes, limit: float | None) -> Latency:
        """Measured at length; twice where the first would throw a candidate out, because one may be disturbed."""
        looks = [self._meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005)]
        if limit is not None and looks[0].low_ms > limit:
            looks.append(self._meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005))
        return min(looks, key=lambda latency: latency.low_ms)

    def _realised(self, record: TrialRecord) -> _Winner:
        """Trained to the end, exported and measured."""
        model, facts = self._trained(record)
        self._reporter.stage("Exporting to ONNX and measuring the file")
        config = self._run.config
        example = torch.zeros(2, *self._data.input_shape)
        metadata = {"run": config.name, "architecture": record.id, "classes": json.dumps(self._data.classes)}
        graph = export_model(model.cpu().eval(), example, opset=config.export.opset, metadata=metadata)
        plain = graph.SerializeToString()
        quantized = self._quantized(graph)
        content = plain if quantized is None else quantized
        measured = profile(content, self._device, budget_s=_FINAL_MEASURE_S, meter=self._meter)
        if measured.latency.low_ms > self._limits.get("latency_ms", math.inf):  # one look may be disturbed
            measured = profile(content, self._device, budget_s=_FINAL_MEASURE_S, meter=self._meter)
        if quantized is not None:
            counted = static_costs(plain, self._device)  # scales and zero points are no parameters
            measured = replace(measured, macs=counted.macs, params=counted.params)
        return _Winner(record, model, facts, graph, quantized, measured)

    def _quantized(self, graph: onnx.ModelProto) -> bytes | None:
        if self._device.precision != INT8:
            return None
        self._reporter.stage("Quantising to INT8, the device's precision")
        return bytes(quantize_int8(graph, calibration(self._data)).SerializeToString())

    def _trained(self, record: TrialRecord) -> tuple[nn.Module, checkpoint.Checkpoint]:
        config = self._run.config
        torch.manual_seed(trial_seed(config.seed, record.id))
        model = self._space.build(record.architecture)
        path = self._run.checkpoints / f"{record.id}.safetensors"
        recipe = self._recipe_digest()
        if path.exists():
            facts = checkpoint.load_into(path, model, record.id)
            if facts.recipe == recipe:
                self._reporter.stage(f"Weights of {record.id} are taken from {path}")
                return model, facts
            model = self._space.build(record.architecture)
        self._reporter.stage(f"Training {record.id} to the end (at most {config.final.epochs} epochs)")
        result = train(
            model,
            self._on_device,
            config.train,
            epochs=config.final.epochs,
            patience=config.final.patience,
            progress=self._reporter.epoch,
        )
        self._reporter.note(
            f"{result.epochs} epochs; the best weights, kept, have validation accuracy {result.best:.4f}"
            + (f" (none better for {config.final.patience} epochs)" if result.epochs < config.final.epochs else "")
        )
        facts = checkpoint.Checkpoint(record.id, recipe, result.best, result.epochs)
        checkpoint.save(path, model, facts)
        return model, facts

    def _recipe_digest(self) -> str:
        config = self._run.config
        values = {
            "run": self._run.digest(),
            "train": config.train.model_dump(),
            "epochs": config.final.epochs,
            "patience": config.final.patience,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _broken(self, measured: Profile) -> str:
        """The limits that the finished file breaks, in words; a latency only where its whole interval lies above."""
        found = {**measured_metrics(measured), "latency_ms": measured.latency.low_ms}
        return ", ".join(
            f"{name} {found[name]:.6g} > {limit:g}" for name, limit in self._limits.items() if found[name] > limit
        )

    def _packed(self, winner: _Winner, records: list[TrialRecord], pick: str) -> dict[str, Any]:
        self._reporter.stage("Checking the file and packing the bundle")
        content = winner.graph.SerializeToString()
        samples = self._data.validation.images[:SAMPLES]
        inputs = self._data.preprocessing.apply(samples)
        outputs = _outputs(winner.model, inputs)
        check = parity(content, inputs, outputs)
        if not check.ok:
            raise BundleError(self._run.bundle, f"the ONNX file isn't the trained network: {check.detail}")
        test = self._data.load_test()
        int8 = self._int8(winner, test)
        metrics = self._metrics(winner, content, test, int8)
        manifest = self._manifest(winner, records, pick, metrics, check.detail) | {"int8": int8.facts}
        write_bundle(
            self._run.bundle,
            model=content,
            manifest=manifest,
            inputs=inputs,
            outputs=outputs,
            raw_inputs=samples,
            int8=int8.model,
        )
        checks = verify_bundle(self._run.bundle)
        bad = [c for c in checks if c.ok is False]
        if bad:
            raise BundleError(self._run.bundle, f"it doesn't verify: {bad[0].name}: {bad[0].detail}")
        return manifest

    def _metrics(self, winner: _Winner, content: bytes, test: Split, int8: Int8) -> dict[str, Any]:
        """Of the file that is deployed; where that is the INT8 one, fp32's accuracies beside its own."""
        on_device = self._on_device
        winner.model.to(on_device.device)
        plain = {
            "accuracy_validation": winner.facts.accuracy,
            "accuracy_test": accuracy(content, self._data.preprocessing.apply(test.images), test.labels),
        }
        accuracies = plain
        if winner.quantized is not None:
            accuracies = {name: int8.facts[name] for name in plain} | {f"{n}_fp32": v for n, v in plain.items()}
        return {
            **accuracies,
            "accuracy_test_torch": on_device.accuracy(winner.model, *on_device.tensors(test)),
            "test_images": len(test),
            **{k: v for k, v in winner.profile.as_dict().items() if k not in ("model", "device", "environment")},
        }

    def _int8(self, winner: _Winner, test: Split) -> Int8:
        settings = self._run.config.export
        if winner.quantized is not None:
            int8 = of_device(winner.graph, winner.quantized, self._data, self._meter)
        elif settings.quantize == "never":
            return Int8(None, {"kept": False, "reason": "the config asks for none"})
        else:
            self._reporter.stage("Quantising to INT8, to see whether that pays")
            int8 = try_int8(winner.graph, self._data, self._meter, settings.max_accuracy_loss)
        self._reporter.note(f"INT8 {'kept' if int8.model else 'not kept'}: {int8.facts['reason']}")
        if int8.model is not None:
            images = self._data.preprocessing.apply(test.images)
            int8.facts["accuracy_test"] = accuracy(int8.model, images, test.labels)
        return int8

    def _manifest(
        self,
        winner: _Winner,
        records: list[TrialRecord],
        pick: str,
        metrics: dict[str, Any],
        parity_detail: str,
    ) -> dict[str, Any]:
        config, record = self._run.config, winner.record
        return {
            "name": config.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "architecture_id": record.id,
            "architecture": record.architecture,
            "activations": activations_of(record.architecture),
            "classes": list(self._data.classes),
            "preprocessing": self._data.preprocessing.as_dict(),
            "opset": config.export.opset,
            "device": config.device.model_dump(),
            "limits": self._limits,
            "deployed": MODEL_FILE if winner.quantized is None else INT8_FILE,
            "won": {"accuracy": metrics["accuracy_validation"], **measured_metrics(winner.profile)},
            "asked": asked(config),
            "objectives": list(config.objectives),
            "metrics": metrics,
            "parity": parity_detail,
            "data": json.loads(config.data.model_dump_json()),
            "run": {
                "seed": config.seed,
                "pick": pick,
                "config_sha256": self._run.digest(),
                "trials": len(records),
                "front": [r.id for r in front_of(records, config.objectives)],
                "epochs": winner.facts.epochs,
            },
            "environment": winner.profile.latency.environment.as_dict(),
            "gpu": gpu_facts(),
            "versions": {name: version(name) for name in ("hwnas", "nni", "torch", "onnx", "onnxruntime")},
        }


def asked(config: RunConfig) -> dict[str, Any]:
    """What decides how a finished search becomes a bundle."""
    return {"final": config.final.model_dump(), "export": config.export.model_dump()}


def _outputs(model: nn.Module, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    model.cpu().eval()
    with torch.inference_mode():
        return cast("npt.NDArray[np.float32]", model(torch.from_numpy(inputs)).numpy())
