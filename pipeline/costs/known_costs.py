"""What a calibrated cost model tells a strategy of every candidate, before any trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.costs.latency_predictor import BlockwisePredictor
from pipeline.costs.predictor_file import CostModelError, default_file, identity_of, read, read_anywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.strategies.problem import KnownCosts


class PredictedLatencies:
    """The latency that operators' times add up to; see `pipeline.strategies.problem.KnownCosts`.

    It is as the run began: what trials measure improves the model that judges them, not this one, so that a resumed
    run asks for the same architectures.

    Args:
        model: calibrated.
    """

    metrics: tuple[str, ...] = ("latency_ms",)

    def __init__(self, model: BlockwisePredictor) -> None:
        self._model = model

    def costs(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """(architectures, 1), in ms."""
        return np.array([[self._model.expected_ms(each)] for each in architectures], dtype=float).reshape(-1, 1)


def known_costs(run: RunDirectory, data: DataSet, space: SearchSpace, *, begun: bool) -> KnownCosts | None:
    """What is known of all the run's candidates: latencies, where the space was calibrated before the run began.

    The run keeps a copy of the cost model. A space that tells no pieces has to be built to predict its networks'
    latencies: nothing is known of it beforehand.

    Args:
        run: locked by the caller.
        data: of the run's config.
        space: of the run's config.
        begun: whether there are trials.

    Raises:
        CostError: the device can't be used.
        CostModelError: the run's cost model is damaged, or another space's.
    """
    if not begun and run.config.cost_model in ("auto", "predict") and not run.cost_model.is_file():
        _keep(run, data, space)
    if not run.cost_model.is_file():
        return None
    model = read_anywhere(run.cost_model, space, identity_of(run.config, data))
    return PredictedLatencies(model) if isinstance(model, BlockwisePredictor) else None


def _keep(run: RunDirectory, data: DataSet, space: SearchSpace) -> None:
    """Copy the cost model of this space and device into the run, where there is one."""
    device, identity = device_of(run.config.device), identity_of(run.config, data)
    with LatencyMeter(device) as meter:
        environment = meter.environment()
    file = default_file(identity, device, environment)
    try:
        read(file, space, identity, device, environment)
    except CostModelError:
        return
    run.keep_cost_model(file.read_bytes())
