"""Base of this project's own strategies: proposals as a function of space, history, seed and index."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Set
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pipeline.nni_types import ExecutableModelSpace, ExecutionEngine, FinalMetricEvent, ModelEventType, Strategy
from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.objectives import Score


class ProposingStrategy(Strategy):  # type: ignore[misc]  # NNI has no types
    """Proposes one architecture after the other, or several at a time for an engine with several workers.

    Order of calls: whenever a worker is free, `propose` returns the next architecture, which is then pending. When
    its result comes in, `hear` appends it to the history and calls `learn`. A result that was known before is heard
    again, but is in the history once.

    Args:
        problem: what is searched. A subclass of the table is made with (options, problem).

    Attributes:
        problem: what is searched.
        history: finished trials, each once, in the order in which their results came in.
        pending: proposed architectures without a result, oldest first.
        index: number of proposals so far.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.history: list[TrialRecord] = []
        self.pending: list[Architecture] = []
        self.index = 0
        self._heard: set[str] = set()

    @abstractmethod
    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return the next architecture, or None when there are no more.

        Args:
            generator: the only source of randomness; made anew for each proposal, from the seed and its index.
        """

    def tried(self) -> Set[str]:
        """Ids of all architectures that have a result or are pending, as they are now."""
        return _Either(self._heard, {architecture_id(each) for each in self.pending})

    def _initialize(self, model_space: ExecutableModelSpace, engine: ExecutionEngine) -> ExecutableModelSpace:
        engine.register_model_event_callback(ModelEventType.FinalMetric, self._final_metric)
        return model_space

    def _cleanup(self) -> None:
        self.engine.unregister_model_event_callback(ModelEventType.FinalMetric, self._final_metric)

    def _run(self) -> None:
        while self.wait_for_resource():
            proposed = self.propose(np.random.default_rng([self.problem.seed, self.index]))
            if proposed is None:
                return
            self.index += 1
            self.pending.append(proposed)
            self.engine.submit_models(self.model_space.freeze(self.problem.space.complete(proposed)))

    def _final_metric(self, event: FinalMetricEvent) -> None:
        score: Score = event.metric
        self.hear(score.record)

    def hear(self, record: TrialRecord) -> None:
        """Add a trial's result to the history, unless it was there before."""
        self.pending = [each for each in self.pending if architecture_id(each) != record.id]
        if record.id not in self._heard:
            self._heard.add(record.id)
            self.history.append(record)
            self.learn(record)

    def learn(self, record: TrialRecord) -> None:
        """Update the strategy's own state by one new result; by default there is none."""


class _Either(Set[str]):
    """Union of two sets that have nothing in common; of a long history no copy is made."""

    def __init__(self, first: Set[str], second: Set[str]) -> None:
        self._first, self._second = first, second

    def __contains__(self, each: object) -> bool:
        return each in self._first or each in self._second

    def __iter__(self) -> Iterator[str]:
        return chain(self._first, self._second)

    def __len__(self) -> int:
        return len(self._first) + len(self._second)
