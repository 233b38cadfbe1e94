"""Reinforcement learning: a policy that is paid for good architectures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from pipeline.evaluators.threads import one_torch_thread
from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.neighbours import random_untried
from pipeline.strategies.policy import Policy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.strategy import ControllerOptions
    from pipeline.nni_types import Strategy
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord

_WEIGHTS = 1
"""Beside the run's seed, what the initial weights are drawn from."""


class Controller(ProposingStrategy):
    """Zoph & Le, Neural architecture search with reinforcement learning, 2017; the gradient is REINFORCE's
    (Williams, 1992) with a moving average of the rewards as baseline and a bonus for the policy's entropy.

    What the policy is paid for an architecture is the share of the known trials that score lower. So neither the
    scale of the scores nor the first failure, far below them, decides how far one step goes; limits and failures
    still cost all that can be lost.

    A policy that has learnt samples architectures that are known already. It is paid for them from memory, which
    costs no trial, and samples again. If it still does so after `repeats` of them, a random architecture is tried,
    from which the policy doesn't learn, since it isn't its own sample.
    """

    def __init__(self, options: ControllerOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._options = options
        weights = np.random.default_rng([problem.seed, _WEIGHTS, 0])
        self.policy = Policy(problem.space, options.hidden_size, weights)
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=options.learning_rate, fused=True)
        self._baseline = 0.5
        self._scores: list[float] = []  # ascending
        self._known: dict[str, TrialRecord] = {}
        self._strangers: set[str] = set()  # ids of architectures that weren't the policy's
        self._batch: list[tuple[Architecture, float]] = []

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """The policy's next sample that isn't known yet."""
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
        other = random_untried(self.problem.space, tried, generator)
        if other is not None:
            self._strangers.add(architecture_id(other))
        return other

    def learn(self, record: TrialRecord) -> None:
        """A step of the policy, for architectures that it sampled."""
        insort(self._scores, record.score)
        self._known[record.id] = record
        if record.id not in self._strangers:
            with one_torch_thread():
                self._reinforce(record)

    def _reinforce(self, record: TrialRecord) -> None:
        reward = self._reward(record.score)
        self._batch.append((record.architecture, reward - self._baseline))
        decay = self._options.baseline_decay
        self._baseline = decay * self._baseline + (1 - decay) * reward
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
        """The share of the known trials that score lower, of those that score the same one half."""
        below, up_to = bisect_left(self._scores, score), bisect_right(self._scores, score)
        return (below + up_to) / (2 * len(self._scores))


def controller(options: BaseModel, problem: Problem) -> Strategy:
    """An LSTM policy, trained by REINFORCE."""
    return Controller(cast("ControllerOptions", options), problem)
