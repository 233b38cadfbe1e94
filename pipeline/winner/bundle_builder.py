"""From finished trials to a product: pick, re-measure, train to the end, export, check, pack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from export.bundle.manifest import INT8_FILE, MODEL_FILE
from export.bundle.verify import verify_bundle
from export.bundle.write import write_bundle
from export.checks import accuracy, parity
from export.errors import BundleError
from export.exporter.graph_builder import cost_graph
from pipeline.activations.record import record_activations
from pipeline.costs.activation_forms import forms_of
from pipeline.costs.costs import gpu_facts, measured_metrics
from pipeline.costs.precision import quantizer_for
from pipeline.errors import NothingFeasibleError
from pipeline.spaces.base import activations_of
from pipeline.trials.result import is_stopped, stop_phrase
from pipeline.winner.finalize import FinalModel, ModelFinalizer, outputs_of
from pipeline.winner.int8 import Int8, of_device, try_int8
from pipeline.winner.model_card import card_facts, image_model, model_metadata
from pipeline.winner.pick import front_of, ranked

if TYPE_CHECKING:
    from latency_models.timing.meter import Latency
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet, Split
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter

SAMPLES = 64
_REMEASURED = 3
_REMEASURE_S = 1.0


@dataclass(frozen=True)
class _Winner(FinalModel):
    """A trial as a product."""

    record: TrialRecord


class BundleBuilder:
    """Finishes one run; holds what its steps share.

    Args:
        run: locked by the caller.
        data: of the run's config.
        space: of the run's config.
    """

    def __init__(self, run: RunDirectory, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
        self._run, self._data, self._space, self._reporter = run, data, space, reporter
        self._realiser = ModelFinalizer(run, data, reporter)
        self._device, self._meter = self._realiser.device, self._realiser.meter
        self._prepare = quantizer_for(self._device.precision)
        self._forms = forms_of(space, self._device, self._meter)
        self._limits = self._realiser.limits

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
            if is_stopped(record.details):
                self._reporter.note(f"{record.id} was {stop_phrase(record.details)} in the search; now it gets all")
            winner = self._realised(record)
            broken = self._realiser.broken(winner.profile)
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
            network = self._space.build(record.architecture)
            graph, _ = cost_graph(network, self._data.input_shape, forms=self._forms)
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
            kept.sort(key=lambda pair: (is_stopped(pair[1].details), pair[0]))
        return [record for _, record in kept]

    def _latency(self, content: bytes, limit: float | None) -> Latency:
        """Measured at length; twice where the first would throw a candidate out, because one may be disturbed."""
        looks = [self._meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005)]
        if limit is not None and looks[0].low_ms > limit:
            looks.append(self._meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005))
        return min(looks, key=lambda latency: latency.low_ms)

    def _realised(self, record: TrialRecord) -> _Winner:
        """Trained to the end, exported and measured."""
        metadata = model_metadata(self._run.config.name, record.id, self._data)
        found = self._realiser.realise(
            record.id, lambda: self._space.build(record.architecture), metadata=metadata, forms=self._forms
        )
        return _Winner(found.model, found.facts, found.graph, found.quantized, found.profile, record, int8=found.int8)

    def _packed(self, winner: _Winner, records: list[TrialRecord], pick: str) -> dict[str, Any]:
        self._reporter.stage("Checking the file and packing the bundle")
        content = winner.graph.SerializeToString()
        samples = self._data.validation.images[:SAMPLES]
        inputs = self._data.preprocessing.apply(samples)
        outputs = outputs_of(winner.model, inputs)
        check = parity(content, inputs, outputs)
        if not check.ok:
            raise BundleError(self._run.bundle, f"the ONNX file isn't the trained network: {check.detail}")
        test = self._data.load_test()
        int8 = self._int8(winner, test)
        metrics = self._metrics(winner, content, test, int8)
        manifest = self._manifest(winner, records, pick, metrics, check.detail) | {"int8": int8.facts}
        config, deployed = self._run.config, manifest["deployed"]
        model = int8.model if deployed == INT8_FILE and int8.model is not None else content
        image, facts = image_model(config.export.image_model, deployed, model, self._data, self._meter)
        manifest |= card_facts(config, self._data, test, deployed, model) | facts
        write_bundle(
            self._run.bundle,
            model=content,
            manifest=manifest,
            inputs=inputs,
            outputs=outputs,
            raw_inputs=samples,
            int8=int8.model,
            image_model=image,
        )
        checks = verify_bundle(self._run.bundle)
        bad = [c for c in checks if c.ok is False]
        if bad:
            raise BundleError(self._run.bundle, f"it doesn't verify: {bad[0].name}: {bad[0].detail}")
        self._record_activations(winner, records)
        return manifest

    def _record_activations(self, winner: _Winner, records: list[TrialRecord]) -> None:
        """For the report; the bundle is whole without it."""
        shared = (self._run, self._data, self._space, winner.record, winner.model, records)
        record_activations(*shared, self._meter, self._prepare, self._forms, self._reporter)

    def _metrics(self, winner: _Winner, content: bytes, test: Split, int8: Int8) -> dict[str, Any]:
        """Of the file that is deployed; where that is the INT8 one, fp32's accuracies beside its own."""
        on_device = self._realiser.on_device
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
        if winner.int8 is not None:
            int8 = of_device(winner.graph, winner.int8, self._meter)
        elif settings.quantize == "never":
            return Int8(None, {"kept": False, "reason": "the config asks for none"})
        else:
            self._reporter.stage("Quantising to INT8, to see whether that pays")
            say = self._reporter.progress
            int8 = try_int8(winner.graph, self._data, self._meter, settings.max_accuracy_loss, say)
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
