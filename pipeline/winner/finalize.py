"""From a network to what the device runs: trained to the end, exported, quantised where it has to be, measured.

The winner and the reference points go this way alike, so that their figures may stand beside each other.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch

from export.exporter.onnx_export import export_model
from latency_models.graph.static_costs import static_costs
from latency_models.model_profile import profile
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.costs import measured_metrics
from pipeline.costs.precision import INT8
from pipeline.evaluators.training import DeviceData, train
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
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.trials.reporter import Reporter
    from pipeline.trials.result import Progress
    from pipeline.winner.int8_search import Int8Outcome

_FINAL_MEASURE_S = 3.0


@dataclass(frozen=True)
class FinalModel:
    """A network as a product.

    Attributes:
        graph: the exported fp32 model.
        quantized: what an INT8 device runs in its place; None on others.
        profile: the costs of what is run.
        int8: how `quantized` was found.
    """

    model: nn.Module
    facts: checkpoint.Checkpoint
    graph: onnx.ModelProto
    quantized: bytes | None
    profile: Profile
    int8: Int8Outcome | None = field(default=None, kw_only=True)

    @property
    def deployed(self) -> bytes:
        """The file that the device runs."""
        return self.graph.SerializeToString() if self.quantized is None else self.quantized


def outputs_of(model: nn.Module, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a network, which is left on the CPU in eval mode, says of inputs (N, C, H, W): (N, classes)."""
    model.cpu().eval()
    with torch.inference_mode():
        return cast("npt.NDArray[np.float32]", model(torch.from_numpy(inputs)).numpy())


class ModelFinalizer:
    """Realises networks of one run; holds what they share.

    Args:
        run: locked by the caller.
        data: of the run's config.
    """

    def __init__(self, run: RunDirectory, data: DataSet, reporter: Reporter) -> None:
        self._run, self._data, self._reporter = run, data, reporter
        self.device = device_of(run.config.device)
        self.meter = LatencyMeter(self.device)
        self.limits: dict[str, float] = {str(name): limit for name, limit in run.config.constraints.items()}

    @cached_property
    def on_device(self) -> DeviceData:
        """The data where networks are trained."""
        return DeviceData(self._data)

    def realise(
        self,
        identity: str,
        build: Callable[[], nn.Module],
        *,
        metadata: Mapping[str, str],
        forms: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> FinalModel:
        """Trained to the end, exported and measured.

        Args:
            identity: decides the seed, and names the weights' file.
            build: the network, untrained.
            metadata: of the ONNX file.
            forms: of the activations, as `export.lowering.lower.lower` takes them.
            progress: hears of every epoch; the reporter by default.
        """
        model, facts = self._trained(identity, build, progress or self._reporter.epoch)
        self._reporter.stage("Exporting to ONNX and measuring the file")
        example = torch.zeros(2, *self._data.input_shape)
        opset = self._run.config.export.opset
        graph = export_model(model.cpu().eval(), example, opset=opset, metadata=metadata, forms=forms)
        plain = graph.SerializeToString()
        int8 = self._quantized(graph)
        quantized = None if int8 is None else int8.model
        measured = self._measured(plain if quantized is None else quantized)
        if quantized is not None:
            counted = static_costs(plain, self.device)  # scales and zero points are no parameters
            measured = replace(measured, macs=counted.macs, params=counted.params)
        return FinalModel(model, facts, graph, quantized, measured, int8=int8)

    def recipe_digest(self) -> str:
        """A hash of all that decides, beside the network and its seed, what a training comes to."""
        config = self._run.config
        values = {
            "run": self._run.digest(),
            "train": config.train.model_dump(),
            "epochs": config.final.epochs,
            "patience": config.final.patience,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def broken(self, measured: Profile) -> str:
        """The limits that a finished file breaks, in words; a latency only where its whole interval lies above."""
        found = {**measured_metrics(measured), "latency_ms": measured.latency.low_ms}
        return ", ".join(
            f"{name} {found[name]:.6g} > {limit:g}" for name, limit in self.limits.items() if found[name] > limit
        )

    def _measured(self, content: bytes) -> Profile:
        measured = profile(content, self.device, budget_s=_FINAL_MEASURE_S, meter=self.meter)
        if measured.latency.low_ms > self.limits.get("latency_ms", math.inf):  # one look may be disturbed
            measured = profile(content, self.device, budget_s=_FINAL_MEASURE_S, meter=self.meter)
        return measured

    def _quantized(self, graph: onnx.ModelProto) -> Int8Outcome | None:
        if self.device.precision != INT8:
            return None
        self._reporter.stage("Quantising to INT8, the device's precision")
        max_loss = self._run.config.export.max_accuracy_loss
        return search_int8(graph, self._data, self.meter, max_loss, self._reporter.progress)

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
