"""Latency predictors: regressions that predict an architecture's latency on a device without running it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from latency_models.predictors.feature_kernel import FeatureGroup
from latency_models.predictors.feature_model import MINIMUM, FeatureModel
from latency_models.predictors.herding import representative_subset
from latency_models.predictors.operator_kernel import Hyper
from latency_models.predictors.operator_model import Observation, OperatorModel
from latency_models.predictors.operators import constant
from latency_models.predictors.prediction import Prediction
from latency_models.timing.statistics import NORMAL_95

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.spaces.base import Architecture, SearchSpace, Value

    Choices = Mapping[str, Value]
    Counted = Mapping[str, float]

_COUNTED = ("macs", "params", "size_mb", "peak_memory_mb")
_CALL = constant("call")
_LOOKED_AT = 16
_LARGEST = 1e18
# Few whole networks don't settle how far their operators' times reach: broad guesses until there are more.
_FROM_NETS = Hyper(kind=0.05, shape=0.05, own=0.005, reach=1.0, misfit=0.02)


class LatencyPredictor(ABC):
    """Predicts the latencies of a space's architectures, and learns from each that is measured.

    `counted` are the metrics that need no clock, see `pipeline.costs.metrics.counted`.

    Attributes:
        nets: how many whole networks it has learned from.
    """

    kind: ClassVar[str]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.nets = 0

    @property
    @abstractmethod
    def description(self) -> str:
        """Kind of the predictor and number of its measurements."""

    @abstractmethod
    def predict(self, architecture: Choices, counted: Counted) -> Prediction | None:
        """The latency with its 90 % interval; None until enough was observed."""

    @abstractmethod
    def observe(self, architecture: Choices, counted: Counted, latency_ms: float, noise: float) -> None:
        """Learn from a measured network; `noise` is the measurement's relative standard deviation."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The state that `load` restores."""

    @abstractmethod
    def load(self, document: Mapping[str, Any]) -> None:
        """Restore the state that `as_dict` gave.

        Raises:
            ValueError: the document is damaged; pydantic's error says where, if it breaks its schema.
            numpy.linalg.LinAlgError: nothing can be fitted to its numbers.
        """


class BlockwisePredictor(LatencyPredictor):
    """Sums the times of a network's operators; for spaces that tell their blocks."""

    kind = "operators"
    least_nets = 12

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._observations: list[Observation] = []
        self._hyper = _FROM_NETS
        self._fitted: OperatorModel | None = None
        self._probes = 0

    @property
    def description(self) -> str:
        return f"operators: {self._probes} timed probes, {self.nets} whole networks"

    def operators(self, architecture: Choices) -> tuple[Any, ...]:
        """All operators of the network, and the call of the model itself."""
        blocks = self.space.blocks(architecture)
        assert blocks is not None
        return (_CALL, *(operator for block in blocks for operator in block.operators))

    def predict(self, architecture: Choices, counted: Counted) -> Prediction | None:
        if self._probes == 0 and self.nets < self.least_nets:
            return None
        return self._model().predict(self.operators(architecture))

    def expected_ms(self, architecture: Choices) -> float:
        """The latency alone, quick enough for thousands of candidates; needs two observations."""
        return self._model().expected_ms(self.operators(architecture))

    def observe(self, architecture: Choices, counted: Counted, latency_ms: float, noise: float) -> None:
        self._observations.append(Observation(self.operators(architecture), latency_ms, noise, whole=True))
        self._fitted = None
        self.nets += 1

    def observe_probes(self, observations: Sequence[Observation]) -> None:
        """Learn from timed chains of blocks."""
        self._observations += observations
        self._fitted = OperatorModel.fit(self._observations)
        self._probes += len(observations)
        self._hyper = self._fitted.hyper

    def held_out(self) -> np.ndarray | None:
        """Relative errors of the probes (n,), each predicted without itself; None where there are too few."""
        errors = self._model().held_out_errors()
        return None if errors is None else errors[: self._probes]

    def as_dict(self) -> dict[str, Any]:
        return self._model().as_dict()

    def load(self, document: Mapping[str, Any]) -> None:
        self._fitted = OperatorModel.from_dict(document)
        self._check_widths(self._fitted)
        self._observations = list(self._fitted.observations)
        self.nets = sum(each.whole for each in self._observations)
        self._probes = len(self._observations) - self.nets
        self._hyper = self._fitted.hyper if self._probes else _FROM_NETS

    def _check_widths(self, model: OperatorModel) -> None:
        """Raise ValueError where operators of the space have other numbers of sizes or amounts than those observed."""
        known = {each.kind: each for observation in model.observations for each in observation.operators}
        size = self.space.size()
        for at in range(_LOOKED_AT):
            for operator in self.operators(self.space.at(at * (size - 1) // (_LOOKED_AT - 1))):
                other = known.get(operator.kind, operator)
                if (len(operator.sizes), len(operator.work)) != (len(other.sizes), len(other.work)):
                    raise ValueError(f"operators of the kind {operator.kind!r} of another form")

    def _model(self) -> OperatorModel:
        """The model of all observations so far; probes settle its hyperparameters."""
        if self._fitted is None:
            self._fitted = OperatorModel.fit(self._observations, self._hyper)
        return self._fitted


class _StoredFeatures(BaseModel):
    """The document of `FeaturePredictor.as_dict`: a row of features and a latency in ms for each network."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    features: list[list[Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]]]
    latency_ms: list[Annotated[float, Field(gt=0, le=_LARGEST)]]


class FeaturePredictor(LatencyPredictor):
    """Regresses the latency on choices and counted metrics of whole networks; for any space."""

    kind = "features"

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._columns = [(choice.label, value) for choice in space.choices for value in choice.values]
        # Few metrics say more than many choices: a group of their own keeps them from drowning among those.
        self._groups = (FeatureGroup("choices", len(self._columns)), FeatureGroup("counted", len(_COUNTED)))
        self._features: list[np.ndarray] = []
        self._ms: list[float] = []
        self._model: FeatureModel | None = None

    @property
    def description(self) -> str:
        return f"features: {self.nets} whole networks"

    def predict(self, architecture: Choices, counted: Counted) -> Prediction | None:
        if self.nets < MINIMUM:
            return None
        if self._model is None:
            self._model = FeatureModel.fit(np.array(self._features), np.array(self._ms), self._groups)
        rows = self._model.predict(self._vector(architecture, counted)[None])
        return Prediction(float(rows.latency_ms[0]), float(rows.low_ms[0]), float(rows.high_ms[0]))

    def observe(self, architecture: Choices, counted: Counted, latency_ms: float, noise: float) -> None:
        self._features.append(self._vector(architecture, counted))
        self._ms.append(latency_ms)
        self.nets += 1
        self._model = None

    def as_dict(self) -> dict[str, Any]:
        return {"features": [each.tolist() for each in self._features], "latency_ms": self._ms}

    def load(self, document: Mapping[str, Any]) -> None:
        stored = _StoredFeatures.model_validate(document)
        width = len(self._columns) + len(_COUNTED)
        if {len(row) for row in stored.features} - {width}:
            raise ValueError("other features than this space has")
        if len(stored.latency_ms) != len(stored.features):
            raise ValueError("no latency for each network")
        self._features, self._ms = [np.array(row, float) for row in stored.features], stored.latency_ms
        self.nets, self._model = len(self._ms), None

    def representative_subset(self, pool: Sequence[Architecture], count: int, *, seed: int) -> list[Architecture]:
        """The `count` architectures whose choices represent the pool best; every prefix is representative as well."""
        if count == 0:
            return []
        chosen = np.array([self._chosen(architecture) for architecture in pool])
        return [pool[at] for at in representative_subset(chosen, self._groups[:1], count, seed=seed)]

    def _vector(self, architecture: Choices, counted: Counted) -> np.ndarray:
        return np.array([*self._chosen(architecture), *(counted.get(name, 0.0) for name in _COUNTED)])

    def _chosen(self, architecture: Choices) -> list[float]:
        return [float(architecture.get(label) == value) for label, value in self._columns]


def predictor_for(space: SearchSpace) -> LatencyPredictor:
    """An empty predictor of the kind that suits the space."""
    has_blocks = space.blocks(space.at(0)) is not None
    return BlockwisePredictor(space) if has_blocks else FeaturePredictor(space)


def relative_noise(low_ms: float, latency_ms: float, high_ms: float) -> float:
    """A measurement's relative standard deviation, from its 95 % interval."""
    return (high_ms - low_ms) / (2.0 * NORMAL_95 * latency_ms)
