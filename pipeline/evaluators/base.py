"""The base of evaluators: from a built network to its accuracy."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.nni_types import Evaluator

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import nn

    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet
    from pipeline.trials.result import Progress


class CandidateEvaluator(Evaluator):  # type: ignore[misc]  # NNI has no types
    """NNI's evaluator with what a trial needs besides.

    Order of calls: one instance per worker process; its constructor gets the config's section, the data and the
    recipe; then `evaluate` once for each candidate that keeps the limits. torch's global generator is seeded with
    the trial's seed before the network is built, so what `evaluate` draws is reproducible.

    Attributes:
        trains: whether `evaluate` leaves the network with the weights whose accuracy it tells. An INT8 device needs
            them: its accuracy is taken from the network quantised afterwards. False where the accuracy comes from
            elsewhere.
        stops: whether `evaluate` heeds `progress`: calls it after each epoch, and, where it answers True, returns that
            epoch's accuracy at once. Only then does the option `stopping` of its section mean anything, and is read
            and checked as that of `train`. False: `progress` always answers False.
    """

    trains: ClassVar[bool] = True
    stops: ClassVar[bool] = False

    def __init__(self, options: BaseModel, data: DataSet, recipe: TrainOptions) -> None:
        self.options, self.data, self.recipe = options, data, recipe

    @abstractmethod
    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """Validation accuracy, 0 to 1. Whatever it raises makes the trial a failed one."""

    def details(self) -> dict[str, Any]:
        """What else the journal is to keep of the network that was evaluated last; asked after `evaluate`."""
        return {}
