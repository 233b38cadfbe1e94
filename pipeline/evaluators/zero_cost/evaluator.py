"""The evaluator `zero_cost`: a score of the untrained network in place of an accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from pipeline.evaluators.base import CandidateEvaluator
from pipeline.evaluators.zero_cost.scores import SCORES, minibatch, score_of

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import nn

    from pipeline.config.evaluator import ZeroCostOptions
    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet
    from pipeline.trials.result import Progress


class ZeroCostEvaluator(CandidateEvaluator):
    """Scores each candidate on one minibatch, which takes a moment instead of a training.

    What it tells in place of an accuracy is no accuracy: it orders the candidates as the score does. The score itself
    is in the trial's details.
    """

    trains: ClassVar[bool] = False

    def __init__(self, options: BaseModel, data: DataSet, recipe: TrainOptions) -> None:
        super().__init__(options, data, recipe)
        section = cast("ZeroCostOptions", options)
        self._name = section.score
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._images, self._labels = (each.to(self._device) for each in minibatch(data, section.batch_size))
        self._value: float | None = None

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """The score, from 0 to 1; see `pipeline.evaluators.zero_cost.scores.Score.share`.

        Raises:
            EvaluatorError: the network has none.
        """
        self._value = None
        self._value = score_of(self._name, model.to(self._device), self._images, self._labels)
        return SCORES[self._name].share(self._value, len(self._labels))

    def details(self) -> dict[str, Any]:
        """The score itself."""
        return {} if self._value is None else {"zero_cost": {self._name: self._value}}
