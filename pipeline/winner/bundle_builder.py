"""From finished trials to a bundle: pick, measure again, train to the end, export, check, pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.bundle.manifest import INT8_FILE
from export.bundle.verify import verify_bundle
from export.bundle.write import write_bundle
from export.checks import accuracy, parity
from export.errors import BundleError
from latency_models.timing.meter import LatencyMeter
from pipeline.activations.record import record_activations
from pipeline.config.device import device_of
from pipeline.costs.target import Target
from pipeline.errors import NothingFeasibleError
from pipeline.trials.result import is_stopped, stop_phrase
from pipeline.winner.finalize import FinalModel, ModelFinalizer, outputs_of
from pipeline.winner.int8 import Int8Decision, int8_for_device, try_int8
from pipeline.winner.manifest import Winner, manifest_of, metrics_of
from pipeline.winner.model_card import card_facts, image_model, model_metadata
from pipeline.winner.pick import ranked

if TYPE_CHECKING:
    from latency_models.timing.meter import Latency
    from pipeline.data import DataSet, Split
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter

SAMPLES = 64
_REMEASURED = 3
_REMEASURE_S = 1.0


class BundleBuilder:
    """Builds the bundle of one run.

    Args:
        run: locked by the caller.
        data: of the run's config.
        space: of the run's config.
        reporter: hears the progress.
    """

    def __init__(self, run: RunDirectory, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
        self._run, self._data, self._space, self._reporter = run, data, space, reporter
        self._target = Target.of(space, LatencyMeter(device_of(run.config.device)))
        self._finalizer = ModelFinalizer(run, data, self._target, reporter)

    def finish(self, records: list[TrialRecord], pick: str) -> dict[str, Any]:
        """Finish trials in the pick's order until one keeps the limits as a file, and pack that one.

        Returns:
            The bundle's manifest.

        Raises:
            NothingFeasibleError: none does, and how each missed.
            ExportError: the file isn't the network that was trained.
        """
        misses: list[str] = []
        order = ranked(self._run, records, pick)
        for record in self._remeasured(order, pick, misses):
            if is_stopped(record.details):
                self._reporter.note(f"{record.id} was {stop_phrase(record.details)} in the search; now it gets all")
            final = self._finalized(record)
            if broken := self._finalizer.broken(final.profile):
                misses.append(f"{record.id}: {broken}")
                self._reporter.note(f"{record.id} as a finished file breaks a limit ({broken}); the next one is tried")
                continue
            return self._packed(Winner(record, final), records, pick)
        listed = "; ".join(misses)
        raise NothingFeasibleError(f"measured again, no pick keeps the limits: {listed}", self._run.path)

    def _remeasured(self, order: list[TrialRecord], pick: str, misses: list[str]) -> list[TrialRecord]:
        """The order without trials whose quick graph, measured again at length, lies above the latency limit."""
        limit = self._run.config.limits.get("latency_ms")
        self._reporter.stage("Measuring the top picks again")
        kept: list[tuple[float, TrialRecord]] = []
        for rank, record in enumerate(order):
            if rank >= _REMEASURED and kept:
                kept.append((record.objectives["latency_ms"], record))
                continue
            graph = self._target.graph_of(self._space.build(record.architecture), self._data.input_shape)
            latency = self._latency(graph.content, limit)
            warnings = f" ({'; '.join(latency.warnings)})" if latency.warnings else ""
            self._reporter.note(
                f"{record.id}: {latency.latency_ms:.4g} ms ({latency.low_ms:.4g} to {latency.high_ms:.4g});"
                f" in the search {record.objectives['latency_ms']:.4g} ms{warnings}"
            )
            if limit is not None and latency.low_ms > limit:
                misses.append(f"{record.id}: latency_ms {latency.latency_ms:.4g} (limit {limit:g})")
            else:
                kept.append((latency.latency_ms, record))
        if pick == "fastest":
            kept.sort(key=lambda pair: (is_stopped(pair[1].details), pair[0]))
        return [record for _, record in kept]

    def _latency(self, content: bytes, limit: float | None) -> Latency:
        """A long measurement. If it breaks the limit it is repeated and the lower one counts: one may be disturbed."""
        latencies = [self._target.meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005)]
        if limit is not None and latencies[0].low_ms > limit:
            latencies.append(self._target.meter.measure(content, budget_s=_REMEASURE_S, target_half_width=0.005))
        return min(latencies, key=lambda latency: latency.low_ms)

    def _finalized(self, record: TrialRecord) -> FinalModel:
        metadata = model_metadata(self._run.config.name, record.id, self._data)
        return self._finalizer.finalize(record.id, lambda: self._space.build(record.architecture), metadata=metadata)

    def _packed(self, winner: Winner, records: list[TrialRecord], pick: str) -> dict[str, Any]:
        self._reporter.stage("Checking the file and packing the bundle")
        final, config = winner.final, self._run.config
        content = final.graph.SerializeToString()
        samples = self._data.validation.images[:SAMPLES]
        inputs = self._data.preprocessing.apply(samples)
        outputs = outputs_of(final.model, inputs)
        check = parity(content, inputs, outputs)
        if not check.ok:
            raise BundleError(self._run.bundle, f"the ONNX file isn't the trained network: {check.detail}")
        test = self._data.load_test()
        int8 = self._int8(final, test)
        metrics = metrics_of(final, self._data, self._finalizer.on_device, test, int8)
        manifest = manifest_of(self._run, self._data, winner, records, pick, metrics, check.detail)
        manifest |= {"int8": int8.facts}
        deployed = winner.deployed
        model = int8.model if deployed == INT8_FILE and int8.model is not None else content
        image, facts = image_model(config.export.image_model, deployed, model, self._data, self._target.meter)
        manifest |= card_facts(config, self._data, test, deployed, model) | facts
        self._run.check_present()  # a bundle's folder is made with all above it
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
        if failed := [each for each in verify_bundle(self._run.bundle) if each.ok is False]:
            raise BundleError(self._run.bundle, f"it doesn't verify: {failed[0].name}: {failed[0].detail}")
        record_activations(
            self._run, self._data, self._space, winner.record, final.model, records, self._target, self._reporter
        )
        return manifest

    def _int8(self, final: FinalModel, test: Split) -> Int8Decision:
        settings, meter = self._run.config.export, self._target.meter
        if final.int8 is not None:
            int8 = int8_for_device(final.graph, final.int8, meter)
        elif settings.quantize == "never":
            return Int8Decision(None, {"kept": False, "reason": "the config asks for none"})
        else:
            self._reporter.stage("Quantising to INT8, to see whether that pays")
            progress = self._reporter.progress
            int8 = try_int8(final.graph, self._data, meter, settings.max_accuracy_loss, progress)
        self._reporter.note(f"INT8 {'kept' if int8.model else 'not kept'}: {int8.facts['reason']}")
        if int8.model is not None:
            images = self._data.preprocessing.apply(test.images)
            int8.facts["accuracy_test"] = accuracy(int8.model, images, test.labels)
        return int8
