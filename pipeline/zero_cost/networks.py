"""Zero-cost scores of a search's candidates, from networks that are built for that."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.errors import UnknownNameError
from pipeline.evaluators.options import SCORE_NAMES
from pipeline.spaces.base import architecture_id
from pipeline.trial import trial_seed
from pipeline.zero_cost.minibatch import minibatch
from pipeline.zero_cost.scores import score_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.config import RunConfig
    from pipeline.console import Reporter
    from pipeline.data import DataSet
    from pipeline.spaces.base import Architecture, SearchSpace

_IMAGES = 32
_MANY = 50
_LOG = logging.getLogger(__name__)


class NetworkScores:
    """Builds each architecture once, in this process, and scores it; see `pipeline.strategies.problem.KnownScores`.

    Weights, minibatch and number of threads are fixed, so an architecture's scores are the same whenever it is asked
    for. It is done on the CPU, where sums come out the same each time.

    Args:
        space: of the architectures.
        data: whose training images are shown.
        names: of the scores.
        seed: of the search.
        reporter: hears how far it is.

    Attributes:
        names: of the scores.
    """

    dear: bool = True

    def __init__(self, space: SearchSpace, data: DataSet, names: Sequence[str], seed: int, reporter: Reporter) -> None:
        self.names = tuple(names)
        self._space, self._seed, self._reporter = space, seed, reporter
        self._images, self._labels = minibatch(data, _IMAGES)
        self._known: dict[str, list[float]] = {}

    def scores(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """(architectures, names); NaN where a network has no score, or can't be built."""
        asked = {architecture_id(each): each for each in architectures}
        missing = {identity: each for identity, each in asked.items() if identity not in self._known}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for number, (identity, architecture) in enumerate(missing.items()):
                self._known[identity] = self._scored(identity, architecture)
                if len(missing) >= _MANY:  # of a few new ones nobody needs to hear
                    self._reporter.progress(f"zero-cost scores of {len(missing)} candidates", number / len(missing))
        finally:
            torch.set_num_threads(threads)
        rows = [self._known[architecture_id(each)] for each in architectures]
        return np.array(rows, dtype=float).reshape(len(architectures), len(self.names))

    def _scored(self, identity: str, architecture: Architecture) -> list[float]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trial_seed(self._seed, identity))
            found = []
            try:
                network = self._space.build(architecture)
            except Exception:  # a candidate may raise anything; its trial will tell
                _LOG.warning("%s can't be built", identity, exc_info=True)
                return [math.nan] * len(self.names)
            for name in self.names:
                try:
                    found.append(score_of(name, network, self._images, self._labels))
                except Exception as error:  # likewise; without a score it may still be tried
                    _LOG.warning("%s has no score: %s", identity, error)
                    found.append(math.nan)
        return found


def check_proxies(config: RunConfig) -> None:
    """Whether a strategy's proxies can be computed.

    Raises:
        UnknownNameError: one of them is no zero-cost score.
    """
    for name in getattr(config.strategy, "proxies", []):
        if name not in SCORE_NAMES:
            raise UnknownNameError("score", name, SCORE_NAMES)


def proxies_of(config: RunConfig, data: DataSet, space: SearchSpace, reporter: Reporter) -> NetworkScores | None:
    """What the config's strategy asks for, None where that is nothing."""
    names = getattr(config.strategy, "proxies", [])
    return NetworkScores(space, data, names, config.seed, reporter) if names else None
