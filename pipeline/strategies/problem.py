"""What a strategy is given to search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pipeline.spaces.base import Architecture, SearchSpace


class KnownCosts(Protocol):
    """Costs that are known of every architecture without a trial.

    Attributes:
        metrics: which ones; never accuracy.
    """

    metrics: tuple[str, ...]

    def costs(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """(architectures, metrics); NaN where one isn't known after all."""


class KnownScores(Protocol):
    """What architectures tell of their accuracy without a trial: zero-cost proxies.

    The same architecture always has the same scores, in a resumed search, too.

    Attributes:
        names: which scores.
        expensive: whether each architecture takes a moment; a pool of candidates is smaller then.
    """

    names: tuple[str, ...]
    expensive: bool

    def scores(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """(architectures, names); infinite or NaN where an architecture has none."""


@dataclass(frozen=True)
class Problem:
    """A search, as far as a strategy may know it; the budget is the engine's, for a longer one changes no proposal.

    Attributes:
        space: of the architectures.
        seed: all that a strategy draws is a function of it and of the recorded results.
        objectives: metrics to trade off; `accuracy` is one, the others are costs.
        limits: metric → the highest value that is allowed.
        known: costs that need no trial; None where every cost has to be measured.
        proxies: scores that a surrogate may learn from; None where there are none.
    """

    space: SearchSpace
    seed: int
    objectives: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    known: KnownCosts | None = None
    proxies: KnownScores | None = None
