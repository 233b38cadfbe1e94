"""The base of this package's own strategies: proposals as a function of space, history, seed and index."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from pipeline.nni_types import ExecutableModelSpace, ExecutionEngine, FinalMetricEvent, ModelEventType, Strategy
from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.score import Score


class ProposingStrategy(Strategy):  # type: ignore[misc]  # NNI has no types
    """Asks for one architecture after the other, several at a time where the engine runs them at the same time.

    Order of calls: the engine's workers being free, `propose` is asked; its answer is pending until its result is in
    `history`. A result that was known already is told again, but stands in the history once.

    Attributes:
        problem: what is searched.
        history: the trials whose results are known, each once, in the order in which they became known.
        pending: architectures that were proposed and have no result yet, oldest first.
        index: how many proposals there were.
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
        """The next architecture; None when there are no more.

        Args:
            generator: fresh for each proposal, from the seed and the proposal's index: nothing else is drawn from.
        """

    def tried(self) -> set[str]:
        """The ids of architectures that needn't be proposed again."""
        return self._heard | {architecture_id(each) for each in self.pending}

    def _initialize(self, model_space: ExecutableModelSpace, engine: ExecutionEngine) -> ExecutableModelSpace:
        engine.register_model_event_callback(ModelEventType.FinalMetric, self._hear)
        return model_space

    def _cleanup(self) -> None:
        self.engine.unregister_model_event_callback(ModelEventType.FinalMetric, self._hear)

    def _run(self) -> None:
        while self.wait_for_resource():
            proposed = self.propose(np.random.default_rng([self.problem.seed, self.index]))
            if proposed is None:
                return
            self.index += 1
            self.pending.append(proposed)
            self.engine.submit_models(self.model_space.freeze(self.problem.space.complete(proposed)))

    def _hear(self, event: FinalMetricEvent) -> None:
        score: Score = event.metric
        record = score.record
        self.pending = [each for each in self.pending if architecture_id(each) != record.id]
        if record.id not in self._heard:
            self._heard.add(record.id)
            self.history.append(record)
            self.learn(record)

    def learn(self, record: TrialRecord) -> None:
        """Take in one more result; for strategies with a state of their own."""
