"""The evaluator `supernet`: the accuracy that a network has with its slice of the space's shared weights."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import nn

from pipeline.errors import EvaluatorError
from pipeline.evaluators.base import CandidateEvaluator
from pipeline.evaluators.convolution_forms import fast_convolutions
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.supernet.checkpoint import read_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from pipeline.config.evaluator import SupernetOptions
    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet
    from pipeline.trials.result import Progress

_BATCH = 128
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SupernetEvaluator(CandidateEvaluator):
    """Gives each candidate its slice of the shared weights, and its batch norms statistics of their own.

    The accuracy is that of the inherited weights: lower than after a training, and meant to rank candidates.
    """

    side_by_side: ClassVar[bool] = True

    def __init__(self, options: BaseModel, data: DataSet, recipe: TrainOptions) -> None:
        super().__init__(options, data, recipe)
        self._options = cast("SupernetOptions", options)
        if self._options.weights is None:
            raise EvaluatorError(
                "evaluator: supernet needs the weights that `hwnas search` trains before the first trial"
            )
        self._data = DeviceData(data)
        self._shared = read_weights(Path(self._options.weights))
        rows = torch.arange(min(self._options.recalibrate, len(self._data.labels)), device=self._data.device)
        self._recalibration = self._data.images.index_select(0, rows)

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """The validation accuracy with inherited weights.

        Raises:
            SharedWeightsError: the network is of another space.
        """
        model.to(self._data.device)
        self._shared.copy_into(model)
        with fast_convolutions(model, bf16=False):
            if self._options.recalibrate:
                recalibrate(model, self._data, self._recalibration)
                return self._data.accuracy(model, *self._data.validation)
            with batch_statistics(model):
                return self._data.accuracy(model, *self._data.validation)

    def details(self) -> dict[str, Any]:
        """The origin of the weights, which no training of this candidate has made."""
        return {"weights": "inherited"}


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Have a network's batch norms use each batch's statistics in evaluation, too; afterwards all is as before."""
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    known = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, known, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def recalibrate(model: nn.Module, data: DeviceData, images: torch.Tensor) -> None:
    """Give a network's batch norms the statistics that they have on some images.

    Args:
        model: on the data's device; left in training mode.
        data: of the images.
        images: (N, C, H, W), uint8.
    """
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    try:
        model.train()
        with torch.no_grad():
            for batch in torch.split(images, _BATCH):
                model(data.network_input(batch))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
