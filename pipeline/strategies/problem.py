"""The search problem as a strategy sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture, SearchSpace


class KnownCosts(Protocol):
    """Costs of any architecture, known without a trial.

    Attributes:
        metrics: names of the costs; never accuracy.
    """

    metrics: tuple[str, ...]

    def costs(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs of architectures, shape (architectures, metrics); NaN where one is unknown."""


class KnownScores(Protocol):
    """Scores of an untrained architecture that help to predict its accuracy (zero-cost proxies).

    An architecture always has the same scores, also in a resumed search.

    Attributes:
        names: of the scores.
        expensive: scoring takes about 0.1 s an architecture, so pools are kept small.
    """

    names: tuple[str, ...]
    expensive: bool

    def scores(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Scores of architectures, shape (architectures, names); infinite or NaN where one has none."""


@dataclass(frozen=True)
class Problem:
    """All that a strategy may use. The budget is missing on purpose: a longer one must not change proposals.

    Attributes:
        space: the search space.
        seed: of all randomness; a proposal is a function of it and of the recorded results.
        objectives: metrics to trade off: `accuracy` and costs.
        limits: metric → highest allowed value.
        known: costs that need no trial; None where every cost has to be measured.
        proxies: zero-cost scores for surrogates of the accuracy; None where there are none.
    """

    space: SearchSpace
    seed: int
    objectives: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    known: KnownCosts | None = None
    proxies: KnownScores | None = None
