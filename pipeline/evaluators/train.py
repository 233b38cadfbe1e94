"""The evaluator `train`: accuracy by training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pipeline.evaluators.base import CandidateEvaluator
from pipeline.evaluators.convolution_forms import may_use_bf16
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.training import train

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import nn

    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet
    from pipeline.trials.result import Progress


class TrainEvaluator(CandidateEvaluator):
    """Trains each candidate from scratch for `epochs` epochs, or until a rule stops it."""

    stops: ClassVar[bool] = True
    pilot: ClassVar[bool] = True

    def __init__(self, options: BaseModel, data: DataSet, recipe: TrainOptions) -> None:
        super().__init__(options, data, recipe)
        self._epochs: int = cast("Any", options).epochs
        self._data = DeviceData(data)

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """The validation accuracy after the last epoch."""
        return train(model, self._data, self.recipe, epochs=self._epochs, progress=progress).last

    def details(self) -> dict[str, Any]:
        """The numbers that large convolutions multiply in training, where they aren't float32's."""
        return {"training_precision": "bf16"} if may_use_bf16(self.recipe, self._data.device) else {}
