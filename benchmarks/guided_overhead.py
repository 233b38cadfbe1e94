"""Time that `guided` and `bayesian` take for a proposal, over pools of several kinds.

Answers are made up and come at once. Each row is a search: the whole of NAS-Bench-201's space as the pool; a space of
more than 10^12 networks, of which there is a pool of 5,000 that follows the search, with known costs or with two that
have to be learnt; two known costs to trade off; batches of eight at a time. Told are processor seconds a proposal, in
one thread: the mean, the mean of the last twenty (which is what the goal is about), the slowest; and how the process
grew.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from common import summary, table
from networks import convnet, nasbench201
from options import SEED, Options, begin, positive, some_of

from pipeline.config.strategy import BayesianOptions, GuidedOptions
from pipeline.spaces.base import Architecture, SearchSpace, architecture_id
from pipeline.strategies.integer_codes import IntegerEncoder
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord

_GOAL_S = 0.1
_OPTIONS = {"guided": GuidedOptions(name="guided"), "bayesian": BayesianOptions(name="bayesian")}


@dataclass(frozen=True)
class Case:
    """One search to time."""

    large: bool
    costs: int
    known: bool
    batch: int = 1


CASES = {
    "whole space": Case(large=False, costs=1, known=True),
    "whole space, cost learnt": Case(large=False, costs=1, known=False),
    "large space": Case(large=True, costs=1, known=True),
    "large space, 2 costs": Case(large=True, costs=2, known=True),
    "large space, 2 costs learnt": Case(large=True, costs=2, known=False),
    "large space, batches of 8": Case(large=True, costs=1, known=True, batch=8),
}
_METRICS = ("latency_ms", "size_mb")


class MadeUp:
    """Accuracies and costs of a space, from random effects of each choice; also the costs that are known."""

    def __init__(self, space: SearchSpace, seed: int, costs: int) -> None:
        self._encoder = IntegerEncoder(space.choices)
        generator = np.random.default_rng([seed, 7])
        shape = (1 + costs, len(space.choices), int(self._encoder.sizes.max()) + 1)
        self._effects = generator.normal(0, 1, shape)
        self._effects[:, :, -1] = 0  # of inactive choices
        self.metrics = _METRICS[:costs]

    def _sums(self, architectures: list[Architecture]) -> np.ndarray:
        codes = self._encoder.encode(architectures)
        return self._effects[:, np.arange(codes.shape[1]), codes].sum(axis=2) / np.sqrt(codes.shape[1])

    def costs(self, architectures: list[Architecture]) -> np.ndarray:
        """(architectures, metrics), as `pipeline.strategies.problem.KnownCosts` has them."""
        accuracy, *costs = self._sums(architectures)
        return np.exp(0.5 * (np.array(costs) + accuracy)).T

    def objectives(self, architecture: Architecture) -> dict[str, float]:
        """What a trial tells."""
        accuracy = 1 - 0.3 * np.exp(-self._sums([architecture])[0, 0])
        costs = dict(zip(self.metrics, self.costs([architecture])[0].tolist(), strict=True))
        return {"accuracy": float(np.clip(accuracy, 0, 1)), **costs}


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 200),
        some_of("--cases", CASES),
        some_of("--strategies", _OPTIONS, ["guided"]),
        SEED,
    )
    rows = []
    for name in arguments.strategies:
        for label in arguments.cases:
            rows.append(_one(name, label, arguments))
            summary(f"{name}, {label}", f"{rows[-1]['last 20']} ms per proposal", f"<= {1e3 * _GOAL_S:g} ms")
    print()
    table(rows)


def _one(name: str, label: str, arguments: Options) -> dict[str, str]:
    case = CASES[label]
    space: Any = convnet((3, 32, 32), stages=3) if case.large else nasbench201()
    told = MadeUp(space, arguments.seed, case.costs)
    problem = Problem(space, arguments.seed, ("accuracy", *told.metrics), {}, told if case.known else None)
    strategy = strategy_of(_OPTIONS[name], problem)
    seconds, grown = _search(strategy, told, arguments.trials, case.batch)
    return {
        "strategy": name,
        "pool": label,
        "architectures": f"{space.size():.2g}",
        "mean, ms": f"{1e3 * np.mean(seconds):.1f}",
        "last 20": f"{1e3 * np.mean(seconds[-20:]):.1f}",
        "slowest": f"{1e3 * max(seconds):.0f}",
        "memory grew by": f"{grown / 1e6:.0f} MB",
    }


def _search(strategy: Any, told: MadeUp, trials: int, batch: int) -> tuple[list[float], int]:
    """Processor seconds of each proposal, and by how much memory grew since the first model."""
    seconds: list[float] = []
    memory = 0
    while len(seconds) < trials:
        for _ in range(min(batch, trials - len(seconds))):
            began = time.process_time()
            proposed = strategy.propose(np.random.default_rng([strategy.problem.seed, strategy.index]))
            seconds.append(time.process_time() - began)
            assert proposed is not None
            strategy.index += 1
            strategy.pending.append(proposed)
        for architecture in strategy.pending:
            strategy.history.append(_record(architecture, told, len(strategy.history)))
        strategy.pending = []
        if not memory and len(seconds) >= trials // 10:
            memory = psutil.Process().memory_info().rss
    return seconds, psutil.Process().memory_info().rss - memory


def _record(architecture: Architecture, told: MadeUp, number: int) -> TrialRecord:
    objectives = told.objectives(architecture)
    identity = architecture_id(architecture)
    return TrialRecord(number, identity, architecture, "ok", objectives["accuracy"], objectives, "", 0.0, 0.0)


if __name__ == "__main__":
    main()
