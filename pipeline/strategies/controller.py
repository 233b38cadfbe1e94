"""`controller`: an LSTM policy, trained by reinforcement learning."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.evaluators.training import one_torch_thread
from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.neighbours import untried_at_random
from pipeline.strategies.policy import Policy

if TYPE_CHECKING:
    from pipeline.config.strategy import ControllerOptions
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord

_WEIGHTS = 1
"""Part of the seed of the initial weights, beside the run's."""


class Controller(ProposingStrategy):
    """The controller of Zoph & Le, Neural architecture search with reinforcement learning, 2017.

    The gradient is that of REINFORCE (Williams, 1992), with a moving average of the rewards as baseline and a bonus
    for the policy's entropy. The reward is the share of the trials so far that score lower: neither the scale of the
    scores nor a failure, far below them, changes the size of a step.

    A trained policy samples known architectures again. It gets their reward from memory, which costs no trial, and
    samples anew. After `repeats` of them a random architecture is proposed; the policy doesn't learn from its result,
    because it isn't its own sample.

    Attributes:
        policy: the LSTM.
        baseline: moving average of the rewards.
        random_ids: of proposals that the policy didn't sample.
    """

    def __init__(self, options: ControllerOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._options = options
        weights = np.random.default_rng([problem.seed, _WEIGHTS, 0])
        self.policy = Policy(problem.space, options.hidden_size, weights)
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=options.learning_rate, fused=True)
        self.baseline = 0.5
        self._scores: list[float] = []  # ascending
        self._known: dict[str, TrialRecord] = {}
        self.random_ids: set[str] = set()
        self._batch: list[tuple[Architecture, float]] = []

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return the policy's next sample that is new, or a random architecture."""
        with one_torch_thread():
            return self._sampled(generator)

    def _sampled(self, generator: np.random.Generator) -> Architecture | None:
        tried = self.tried()
        for _ in range(1 + self._options.repeats):
            sampled = self.policy.sample(generator)
            identity = architecture_id(sampled)
            if identity not in tried:
                return sampled
            if identity in self._known:
                self._reinforce(self._known[identity])
        other = untried_at_random(self.problem.space, tried, generator)
        if other is not None:
            self.random_ids.add(architecture_id(other))
        return other

    def learn(self, record: TrialRecord) -> None:
        """Train the policy by the record, if it sampled that architecture."""
        insort(self._scores, record.score)
        self._known[record.id] = record
        if record.id not in self.random_ids:
            with one_torch_thread():
                self._reinforce(record)

    def _reinforce(self, record: TrialRecord) -> None:
        reward = self._reward(record.score)
        self._batch.append((record.architecture, reward - self.baseline))
        decay = self._options.baseline_decay
        self.baseline = decay * self.baseline + (1 - decay) * reward
        if len(self._batch) == self._options.batch_size:
            self._step()
            self._batch = []

    def _step(self) -> None:
        loss = torch.zeros((), dtype=torch.double)
        for architecture, advantage in self._batch:
            log_probability, entropy = self.policy(architecture)
            loss = loss - advantage * log_probability - self._options.entropy * entropy
        self._optimizer.zero_grad()
        (loss / len(self._batch)).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _reward(self, score: float) -> float:
        """The share of the trials so far that score lower; ties count half."""
        below, up_to = bisect_left(self._scores, score), bisect_right(self._scores, score)
        return (below + up_to) / (2 * len(self._scores))
