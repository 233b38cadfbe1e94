"""From an untrained network to the file that the device runs: train, export, quantise for an INT8 device, measure.

The winner and the reference points are finished alike, so that their figures can be compared.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch

from export.exporter.onnx_export import export_model
from latency_models.counted_costs import static_costs
from latency_models.model_profile import profile
from pipeline.costs.metrics import measured_metrics
from pipeline.costs.precision import INT8
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.training import train
from pipeline.spaces.base import trial_seed
from pipeline.winner import checkpoint
from pipeline.winner.int8 import search_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt
    import onnx
    from torch import nn

    from latency_models.model_profile import Profile
    from pipeline.costs.target import Target
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import Progress
    from pipeline.winner.int8_search import Int8Outcome

_FINAL_MEASURE_S = 3.0


@dataclass(frozen=True)
class FinalModel:
    """A trained, exported and measured network.

    Attributes:
        facts: of its training.
        graph: the exported fp32 model.
        int8: the search for the file of an INT8 device; None on others.
        profile: the costs of the file that the device runs.
    """

    model: nn.Module
    facts: checkpoint.Checkpoint
    graph: onnx.ModelProto
    int8: Int8Outcome | None
    profile: Profile

    @property
    def quantized(self) -> bytes | None:
        """The file that an INT8 device runs; None on others."""
        return None if self.int8 is None else self.int8.model


def outputs_of(model: nn.Module, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, classes) of a network for inputs (N, C, H, W); leaves it on the CPU, in eval mode."""
    model.cpu().eval()
    with torch.inference_mode():
        return cast("npt.NDArray[np.float32]", model(torch.from_numpy(inputs)).numpy())


class ModelFinalizer:
    """Finishes networks of one run.

    Args:
        run: locked by the caller.
        data: of the run's config.
        target: that the files are for.
        reporter: hears the progress.
    """

    def __init__(self, run: RunDirectory, data: DataSet, target: Target, reporter: Reporter) -> None:
        self._run, self._data, self._target, self._reporter = run, data, target, reporter

    @cached_property
    def on_device(self) -> DeviceData:
        """The data on the device that trains."""
        return DeviceData(self._data)

    def finalize(
        self,
        identity: str,
        build: Callable[[], nn.Module],
        *,
        metadata: Mapping[str, str],
        progress: Progress | None = None,
    ) -> FinalModel:
        """Train a network to the end, export it and measure the file.

        Args:
            identity: decides the seed, and names the weights' file.
            build: makes the untrained network.
            metadata: of the ONNX file.
            progress: called after every epoch; the reporter by default.
        """
        model, facts = self._trained(identity, build, progress or self._reporter.epoch)
        self._reporter.stage("Exporting to ONNX and measuring the file")
        example = torch.zeros(2, *self._data.input_shape)
        opset = self._run.config.export.opset
        forms = self._target.forms
        graph = export_model(model.cpu().eval(), example, opset=opset, metadata=metadata, forms=forms)
        plain = graph.SerializeToString()
        int8 = self._quantized(graph)
        measured = self._measured(plain if int8 is None else int8.model)
        if int8 is not None:
            counted = static_costs(plain, self._target.device)  # scales and zero points are no parameters
            measured = replace(measured, macs=counted.macs, params=counted.params)
        return FinalModel(model, facts, graph, int8, measured)

    def recipe_digest(self) -> str:
        """A hash of all that decides the outcome of a training, beside the network and its seed."""
        config = self._run.config
        values = {
            "run": self._run.digest(),
            "train": config.train.model_dump(),
            "epochs": config.final.epochs,
            "patience": config.final.patience,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def broken(self, measured: Profile) -> str:
        """The limits that a finished file breaks, in words; a latency breaks one with its whole interval only."""
        metrics = {**measured_metrics(measured), "latency_ms": measured.latency.low_ms}
        return ", ".join(
            f"{name} {metrics[name]:.6g} > {limit:g}"
            for name, limit in self._run.config.limits.items()
            if metrics[name] > limit
        )

    def _measured(self, content: bytes) -> Profile:
        device, meter = self._target.device, self._target.meter
        measured = profile(content, device, budget_s=_FINAL_MEASURE_S, meter=meter)
        if measured.latency.low_ms > self._run.config.limits.get("latency_ms", math.inf):  # one may be disturbed
            measured = profile(content, device, budget_s=_FINAL_MEASURE_S, meter=meter)
        return measured

    def _quantized(self, graph: onnx.ModelProto) -> Int8Outcome | None:
        if self._target.device.precision != INT8:
            return None
        self._reporter.stage("Quantising to INT8, the device's precision")
        max_loss = self._run.config.export.max_accuracy_loss
        return search_int8(graph, self._data, self._target.meter, max_loss, self._reporter.progress)

    def _trained(
        self, identity: str, build: Callable[[], nn.Module], progress: Progress
    ) -> tuple[nn.Module, checkpoint.Checkpoint]:
        config = self._run.config
        model = self._seeded(identity, build)
        path = self._run.checkpoints / f"{identity}.safetensors"
        recipe = self.recipe_digest()
        if path.exists():
            facts = checkpoint.load_into(path, model, identity)
            if facts.recipe == recipe:
                self._reporter.stage(f"Weights of {identity} are taken from {path}")
                return model, facts
            model = self._seeded(identity, build)
        self._reporter.stage(f"Training {identity} to the end (at most {config.final.epochs} epochs)")
        result = train(
            model,
            self.on_device,
            config.train,
            epochs=config.final.epochs,
            patience=config.final.patience,
            progress=progress,
        )
        self._reporter.note(
            f"{result.epochs} epochs; the best weights, kept, have validation accuracy {result.best:.4f}"
            + (f" (none better for {config.final.patience} epochs)" if result.epochs < config.final.epochs else "")
        )
        facts = checkpoint.Checkpoint(identity, recipe, result.best, result.epochs)
        checkpoint.save(path, model, facts)
        return model, facts

    def _seeded(self, identity: str, build: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(trial_seed(self._run.config.seed, identity))
        return build()
