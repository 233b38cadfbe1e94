"""Strategies without an engine: small spaces, and a loop that asks and answers as an engine would."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture, Choice, SearchSpace, architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord
from pipeline.trials.objectives import FAILED_SCORE, infeasible_score


class Choices(SearchSpace):
    """A space that is nothing but its choices."""

    def __init__(self, *choices: Choice) -> None:
        self.choices = choices

    def model_space(self) -> Any:
        raise NotImplementedError

    def build(self, architecture: Any) -> Any:
        raise NotImplementedError


def deep(blocks: int = 4, values: int = 3) -> Choices:
    """A depth of 1 to `blocks`, and for each block two choices that matter only within the depth."""
    made = [Choice("depth", tuple(range(1, blocks + 1)))]
    for block in range(1, blocks + 1):
        within = () if block == 1 else (("depth", tuple(range(block, blocks + 1))),)
        made += [Choice(f"block{block}.{name}", tuple(range(values)), within) for name in ("kind", "width")]
    return Choices(*made)


def huge() -> Choices:
    """More than 10¹² architectures, of numbers, words and truth values, some of them conditional."""
    mixed: list[Choice] = [Choice("big", (False, True)), Choice("scale", (0.5, 1.0, 2.0))]
    for site in range(24):
        mixed.append(Choice(f"op{site}", ("conv", "pool", "skip")))
        mixed.append(Choice(f"act{site}", ("relu", "silu"), ((f"op{site}", ("conv",)),)))
    return Choices(*mixed)


def flat(choices: int = 6, values: int = 4) -> Choices:
    """Independent choices with as many values each."""
    return Choices(*(Choice(f"c{index}", tuple(range(values))) for index in range(choices)))


def record_of(architecture: Architecture, result: TrialResult, number: int) -> TrialRecord:
    """What an engine would tell; the accuracy is the score of a feasible trial."""
    if result.status == "failed":
        score = FAILED_SCORE
    elif result.status == "infeasible":
        score = infeasible_score(result.details["excess"])
    else:
        score = result.objectives["accuracy"]
    identity = architecture_id(architecture)
    details = dict(result.details)
    return TrialRecord(
        number, identity, architecture, result.status, score, result.objectives, "", 0.0, 0.0, details=details
    )


def drive(
    strategy: ProposingStrategy, judge: Callable[[Architecture], TrialResult], trials: int, workers: int = 1
) -> list[TrialRecord]:
    """Ask and answer; with several workers the one that was asked for last is answered first."""
    running: list[Architecture] = []
    while len(strategy.history) < trials:
        if len(running) < workers and len(strategy.history) + len(running) < trials:
            proposed = strategy.propose(np.random.default_rng([strategy.problem.seed, strategy.index]))
            if proposed is not None:
                assert strategy.problem.space.canonical(proposed) == proposed
                assert architecture_id(proposed) not in strategy.tried()
                strategy.index += 1
                strategy.pending.append(proposed)
                running.append(proposed)
                continue
        if not running:
            break
        ended = running.pop()
        record = record_of(ended, judge(ended), len(strategy.history))
        strategy.hear(record)
    return strategy.history


def problem_of(space: SearchSpace, seed: int = 0, objectives: tuple[str, ...] = ("accuracy", "macs")) -> Problem:
    """A problem without limits."""
    return Problem(space, seed, objectives)


def accuracy_of(architecture: Architecture) -> float:
    """The share of choices with the value 0."""
    return list(architecture.values()).count(0) / len(architecture)


def judged(accuracy: float, macs: float = 1.0) -> TrialResult:
    """A trial that ended well."""
    return TrialResult("ok", {"accuracy": accuracy, "macs": macs}, {})
