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
    """NNI's evaluator, extended by what a trial needs.

    Order of calls: one instance per worker process; its constructor gets the config's section, the data and the
    recipe; then, for each candidate that keeps the limits, `evaluate` and `details`. torch's global generator is seeded
    with the trial's seed before the network is built, so random numbers in `evaluate` are reproducible.

    Attributes:
        trains: whether `evaluate` leaves the network with the weights whose accuracy it returns. An INT8 device needs
            them, since its accuracy is that of the network quantised afterwards.
        stops: whether `evaluate` calls `progress` after each epoch and, on True, returns that epoch's accuracy at once.
            Only then is its section's option `stopping` read, as that of `train`; else `progress` never gives True.
        pilot: whether `evaluate` may be begun to see how fast it is, and ended by an exception in a step of its
            optimizer. Only then does the engine `auto` train candidates side by side.
        side_by_side: whether candidates are judged faster side by side with one thread each, on a CPU, as short forward
            passes are. Then `auto` needs no pilot.
    """

    trains: ClassVar[bool] = True
    stops: ClassVar[bool] = False
    pilot: ClassVar[bool] = False
    side_by_side: ClassVar[bool] = False

    def __init__(self, options: BaseModel, data: DataSet, recipe: TrainOptions) -> None:
        self.options, self.data, self.recipe = options, data, recipe

    @abstractmethod
    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """The validation accuracy, 0 to 1, of a network; any exception makes the trial a failed one."""

    def details(self) -> dict[str, Any]:
        """Further entries for the trial's details, on the network that was evaluated last."""
        return {}
