"""Latencies of all candidates before any trial, for strategies, from a calibrated predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.costs.latency_predictor import BlockwisePredictor
from pipeline.costs.predictor_file import CostModelError, Scope, identity_of, read, read_anywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.strategies.problem import KnownCosts


class PredictedLatencies:
    """The sums of operators' times; see `pipeline.strategies.problem.KnownCosts`.

    The predictor stays as it was when the run began, so that a resumed run asks for the same architectures; what
    trials measure improves only the one that judges them.

    Args:
        model: calibrated.
    """

    metrics: tuple[str, ...] = ("latency_ms",)

    def __init__(self, model: BlockwisePredictor) -> None:
        self._model = model

    def costs(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Latencies in ms, (architectures, 1)."""
        return np.array([[self._model.expected_ms(each)] for each in architectures], dtype=float).reshape(-1, 1)


def known_costs(run: RunDirectory, data: DataSet, space: SearchSpace, *, begun: bool) -> KnownCosts | None:
    """The latencies of all the run's candidates, where the space was calibrated before the run began.

    The run keeps a copy of the predictor's file. A space without blocks has to be built for a prediction: nothing is
    known of it beforehand.

    Args:
        run: locked by the caller.
        data: of the run's config.
        space: of the run's config.
        begun: whether there are trials.

    Raises:
        CostError: the device can't be used.
        CostModelError: the run's file is damaged, or another space's.
    """
    if not begun and run.config.cost_model in ("auto", "predict") and not run.cost_model.is_file():
        _copy_into(run, data, space)
    if not run.cost_model.is_file():
        return None
    model = read_anywhere(run.cost_model, space, identity_of(run.config, data))
    return PredictedLatencies(model) if isinstance(model, BlockwisePredictor) else None


def _copy_into(run: RunDirectory, data: DataSet, space: SearchSpace) -> None:
    """Copy the predictor of this space and device into the run, where there is one."""
    scope = Scope.today(run.config, data)
    try:
        read(scope.file, space, scope)
    except CostModelError:
        return
    run.keep_cost_model(scope.file.read_bytes())
