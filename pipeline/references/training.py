"""Training of a run's reference points like its winner, and their comparison with it."""

from __future__ import annotations

import hashlib
import json
import re
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from export.bundle.manifest import MODEL_FILE
from export.checks import accuracy, parity
from latency_models.errors import DeviceError, TimerError
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.precision import INT8, validation_accuracy
from pipeline.costs.target import Target
from pipeline.errors import CheckpointError, EvaluatorError
from pipeline.files import write_whole
from pipeline.references.records import AgainstWinner, Reference, References, read, write
from pipeline.registry import load
from pipeline.spaces.base import trial_seed
from pipeline.tables import REFERENCES
from pipeline.trials.reporter import duration
from pipeline.winner.finalize import FinalModel, ModelFinalizer, outputs_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import Progress

_SAMPLES = 64
_COMPARE_S = 2.0


def check_names(config: RunConfig) -> None:
    """Load the factories that a config names, so that mistakes show before a search.

    Raises:
        HwnasError: one can't be loaded.
    """
    for name in config.references.names:
        load("reference", name, REFERENCES)


class ReferencePoints:
    """The reference points of one run.

    Order of calls: `train`, where they are to be trained; then `compare`, once there is a winner.

    Args:
        run: locked by the caller; references were asked for.
        data: of the run's config.
        reporter: hears the progress.
    """

    def __init__(self, run: RunDirectory, data: DataSet, reporter: Reporter) -> None:
        self._run, self._data, self._reporter = run, data, reporter
        self._target = Target(LatencyMeter(device_of(run.config.device)))
        self._finalizer = ModelFinalizer(run, data, self._target, reporter)
        self.known = read(run) or References()

    def missing(self) -> list[str]:
        """Names of the config whose reference has neither finished nor failed under today's recipe."""
        recipe = self._recipe()
        known = {reference.name for reference in self.known.references if reference.recipe == recipe}
        complete = {r.name for r in self.known.references if r.file is None or (self._run.path / r.file).is_file()}
        return [name for name in self._run.config.references.names if name not in known & complete]

    def train(self) -> None:
        """Train, export and measure the missing references; one that fails is recorded and stops nothing.

        Raises:
            CheckpointError: weights of this run are damaged.
        """
        missing = self.missing()
        for at, name in enumerate(missing):
            self._reporter.stage(f"Reference point {name} ({at + 1} of {len(missing)})")
            self._remember(self._finished_or_failed(name))

    def compare(self, manifest: Mapping[str, Any]) -> None:
        """Time each finished reference in alternation with the winner, unless that was done before.

        Args:
            manifest: of the run's bundle.
        """
        winner = self._run.bundle / str(manifest.get("deployed", MODEL_FILE))
        digest = hashlib.sha256(winner.read_bytes()).hexdigest()
        todo = [
            reference
            for reference in self.known.references
            if reference.file is not None
            and (self._run.path / reference.file).is_file()
            and (reference.against_winner is None or reference.against_winner.file_sha256 != digest)
        ]
        if todo:
            self._reporter.stage("Timing the reference points in alternation with the winner")
        for reference in todo:
            ratio = self._target.meter.compare(self._run.path / str(reference.file), winner, budget_s=_COMPARE_S)
            metrics, won = reference.metrics, manifest["metrics"]
            against = AgainstWinner(
                winner=str(manifest["architecture_id"]),
                file_sha256=digest,
                latency_ratio=ratio.ratio,
                latency_ratio_low=ratio.low,
                latency_ratio_high=ratio.high,
                accuracy_validation_difference=metrics["accuracy_validation"] - won["accuracy_validation"],
                accuracy_test_difference=metrics["accuracy_test"] - won["accuracy_test"],
            )
            self._remember(reference.model_copy(update={"against_winner": against}))

    def _remember(self, reference: Reference) -> None:
        self.known = self.known.with_one(reference)
        write(self._run, self.known)

    def _recipe(self) -> str:
        export = self._run.config.export
        values: dict[str, Any] = {"training": self._finalizer.recipe_digest(), "opset": export.opset}
        if self._target.device.precision == INT8:
            values["max_accuracy_loss"] = export.max_accuracy_loss
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _finished_or_failed(self, name: str) -> Reference:
        try:
            return self._finished(name)
        except (CheckpointError, DeviceError, TimerError, OSError):  # the run's fault, not the network's
            raise
        except Exception as error:  # a third party's network may raise anything; that is its result
            reason = _reason(error)
            self._reporter.note(f"{name} failed: {reason}")
            return Reference(name=name, recipe=self._recipe(), status="failed", error=reason)

    def _finished(self, name: str) -> Reference:
        began = time.monotonic()
        identity = f"reference-{_file_name(name)}"
        metadata = {"run": self._run.config.name, "reference": name, "classes": json.dumps(self._data.classes)}
        final = self._finalizer.finalize(
            identity, lambda: self._built(name), metadata=metadata, progress=self._progress(began)
        )
        check = self._parity(final)
        metrics = self._metrics(final)
        file = self._write_files(name, final)
        seconds = time.monotonic() - began
        broken = self._finalizer.broken(final.profile)
        self._reporter.note(
            f"{name}: validation accuracy {metrics['accuracy_validation']:.4f}, {metrics['latency_ms']:.4g} ms"
            + (f"; breaks {broken}" if broken else "")
            + f"; took {duration(seconds)}"
        )
        return Reference(
            name=name,
            recipe=self._recipe(),
            status="ok",
            seed=trial_seed(self._run.config.seed, identity),
            epochs=final.facts.epochs,
            training_s=seconds,
            file=str(file.relative_to(self._run.path)),
            metrics=metrics,
            parity=check,
            broken_limits=broken,
        )

    def _built(self, name: str) -> nn.Module:
        network: nn.Module = load("reference", name, REFERENCES)(self._data.input_shape, len(self._data.classes))
        return network

    def _progress(self, began: float) -> Progress:
        """Report every epoch, and after the first one how long the rest may take."""

        def progress(epoch: int, epochs: int, accuracy: float) -> None:
            self._reporter.epoch(epoch, epochs, accuracy)
            if epoch == 1 < epochs:
                left = (time.monotonic() - began) * (epochs - 1)
                self._reporter.note(f"at this pace its training takes at most {duration(left)} more")

        return progress

    def _parity(self, final: FinalModel) -> str:
        inputs = self._data.preprocessing.apply(self._data.validation.images[:_SAMPLES])
        check = parity(final.graph.SerializeToString(), inputs, outputs_of(final.model, inputs))
        if not check.ok:
            raise EvaluatorError(f"the ONNX file isn't the trained network: {check.detail}")
        return check.detail

    def _metrics(self, final: FinalModel) -> dict[str, Any]:
        """Metrics of the file that the device runs, as the manifest has them for the winner."""
        images, labels = self._test
        plain = {
            "accuracy_validation": final.facts.accuracy,
            "accuracy_test": accuracy(final.graph.SerializeToString(), images, labels),
        }
        accuracies = plain
        if final.quantized is not None:
            own = {
                "accuracy_validation": validation_accuracy(final.quantized, self._data),
                "accuracy_test": accuracy(final.quantized, images, labels),
            }
            accuracies = own | {f"{name}_fp32": value for name, value in plain.items()}
        costs = {k: v for k, v in final.profile.as_dict().items() if k not in ("model", "device")}
        return {**accuracies, "test_images": len(labels), **costs}

    @cached_property
    def _test(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Images (N, C, H, W) and labels (N,) of the test split, for finished files alone."""
        test = self._data.load_test()
        return self._data.preprocessing.apply(test.images), test.labels

    def _write_files(self, name: str, final: FinalModel) -> Path:
        """Write the fp32 model and, for an INT8 device, the quantised one; return the file that the device runs."""
        folder = self._run.path / "references"
        folder.mkdir(exist_ok=True)
        path = folder / f"{_file_name(name)}.onnx"
        write_whole(path, final.graph.SerializeToString())
        if final.quantized is not None:
            path = folder / f"{_file_name(name)}.int8.onnx"
            write_whole(path, final.quantized)
        return path


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    out_of_memory = isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)
    return f"{'out of memory: ' if out_of_memory else ''}{type(error).__name__}: {lines[0] if lines else 'no message'}"
