"""Zero-cost scores of a search's candidates, whose networks are built for them."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from latency_models.files import read_file
from pipeline.config.evaluator import SCORE_NAMES
from pipeline.errors import UnknownNameError
from pipeline.evaluators.training import one_torch_thread
from pipeline.evaluators.zero_cost.scores import minibatch, score_of
from pipeline.files import open_to_append
from pipeline.spaces.base import architecture_id, trial_seed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.reporter import Reporter

_IMAGES = 32
_MANY = 50
_LOG = logging.getLogger(__name__)


class NetworkScores:
    """Builds each architecture once, in this process, and scores it; see `pipeline.strategies.problem.KnownScores`.

    Weights, minibatch and number of threads are fixed, and all is computed on the CPU, so an architecture always has
    the same scores. Another version of torch, or another CPU, may round differently: a run keeps its scores.

    Args:
        space: of the architectures.
        data: with the training images that networks are scored on.
        names: of the scores.
        seed: of the search.
        reporter: hears the progress.
        kept: a file of scores, one architecture a line, which is read and appended to.

    Attributes:
        names: of the scores.
    """

    expensive: bool = True

    def __init__(
        self,
        space: SearchSpace,
        data: DataSet,
        names: Sequence[str],
        seed: int,
        reporter: Reporter,
        kept: Path | None = None,
    ) -> None:
        self.names = tuple(names)
        self._space, self._seed, self._reporter = space, seed, reporter
        self._images, self._labels = minibatch(data, _IMAGES)
        self._kept = kept
        self._known = {} if kept is None else _read(kept, len(self.names))

    def scores(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Scores (architectures, names); NaN where a network has no score, or can't be built."""
        asked = {architecture_id(each): each for each in architectures}
        missing = {identity: each for identity, each in asked.items() if identity not in self._known}
        with one_torch_thread():
            for number, (identity, architecture) in enumerate(missing.items()):
                self._known[identity] = self._scored(identity, architecture)
                self._keep(identity)
                if len(missing) >= _MANY:  # a few take no time
                    self._reporter.progress(f"zero-cost scores of {len(missing)} candidates", number / len(missing))
        rows = [self._known[architecture_id(each)] for each in architectures]
        return np.array(rows, dtype=float).reshape(len(architectures), len(self.names))

    def _keep(self, identity: str) -> None:
        if self._kept is not None:
            with open_to_append(self._kept) as file:
                file.write(f"{json.dumps([identity, *self._known[identity]])}\n".encode())

    def _scored(self, identity: str, architecture: Architecture) -> list[float]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trial_seed(self._seed, identity))
            scores = []
            try:
                network = self._space.build(architecture)
            except Exception:  # a candidate may raise anything; its trial shows it
                _LOG.warning("%s can't be built", identity, exc_info=True)
                return [math.nan] * len(self.names)
            for name in self.names:
                try:
                    scores.append(score_of(name, network, self._images, self._labels))
                except Exception as error:  # likewise; without a score it may still be tried
                    _LOG.warning("%s has no score: %s", identity, error)
                    scores.append(math.nan)
        return scores


def _read(path: Path, count: int) -> dict[str, list[float]]:
    """Kept scores by architecture; a line that a kill cut off is ignored."""
    kept: dict[str, list[float]] = {}
    for line in read_file(path).decode("utf-8").splitlines() if path.is_file() else ():
        try:
            identity, *scores = json.loads(line)
            kept[str(identity)] = [float(score) for score in scores]
        except (ValueError, TypeError):
            continue
    return {identity: scores for identity, scores in kept.items() if len(scores) == count}


def check_proxies(config: RunConfig) -> None:
    """Check that a strategy's proxies can be computed.

    Raises:
        UnknownNameError: one of them is no zero-cost score.
    """
    for name in _names(config):
        if name not in SCORE_NAMES:
            raise UnknownNameError("score", name, SCORE_NAMES)


def proxies_of(
    config: RunConfig, data: DataSet, space: SearchSpace, reporter: Reporter, kept: Path | None = None
) -> NetworkScores | None:
    """The scores that the config's strategy uses, None where it uses none; `kept` as for `NetworkScores`."""
    names = _names(config)
    return NetworkScores(space, data, names, config.seed, reporter, kept) if names else None


def _names(config: RunConfig) -> list[str]:
    """The strategy's `proxies`, also a third party's; a value that isn't a list of names is ignored."""
    given = getattr(config.strategy, "proxies", None)
    return given if isinstance(given, list) and all(isinstance(name, str) for name in given) else []
