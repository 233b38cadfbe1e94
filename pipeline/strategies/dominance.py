"""Ranks of trials with several objectives, limits and failures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from pipeline.trials.objectives import as_losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.trials.journal import TrialRecord


class DominanceRanks:
    """Trials under constrained domination (Deb, Pratap, Agarwal & Meyarivan, 2002).

    Feasible trials dominate each other as usual (Pareto) and dominate all infeasible ones. An infeasible trial
    dominates those that break the limits further, which its score says, and failed ones.

    Attributes:
        violations: (trials,), 0 for feasible ones.
        losses: (trials, objectives), smaller is better; 0 where a trial isn't feasible.
        beats: (trials, trials), whether the row's trial dominates the column's.
    """

    def __init__(self, records: Sequence[TrialRecord], objectives: Sequence[str]) -> None:
        self.violations = np.array([violation(record) for record in records], dtype=float)
        feasible = self.violations == 0
        self.losses = np.zeros((len(records), len(objectives)))
        self.losses[feasible] = as_losses([r.objectives for r in records if violation(r) == 0], objectives)
        no_worse = np.all(self.losses[:, None] <= self.losses[None], axis=2)
        dominates = no_worse & ~no_worse.T & feasible[:, None] & feasible[None]
        self.beats: npt.NDArray[np.bool_] = dominates | (self.violations[:, None] < self.violations[None])

    def has_duplicate(self, trial: int) -> bool:
        """Whether another feasible trial has the same objectives as this feasible one."""
        same = (self.losses == self.losses[trial]).all(axis=1) & (self.violations == 0)
        return int(same.sum()) > 1

    def ranks(self) -> npt.NDArray[np.int64]:
        """Index of each trial's front, shape (trials,); 0 for non-dominated trials."""
        ranks = np.zeros(len(self.violations), dtype=np.int64)
        left = np.ones(len(ranks), dtype=bool)
        rank = 0
        while left.any():
            front = left & ~self.beats[left].any(axis=0)
            ranks[front] = rank
            left &= ~front
            rank += 1
        return ranks

    def crowding(self, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Crowding distance of each trial within its front, shape (trials,); infinite at the front's ends."""
        distances = np.zeros(len(ranks))
        for rank in range(int(ranks.max(initial=-1)) + 1):
            members = np.flatnonzero(ranks == rank)
            distances[members] = _crowding(self.losses[members])
        return distances


def violation(record: TrialRecord) -> float:
    """Degree to which a trial breaks limits: 0 if feasible, up to 1 if infeasible, more if it failed."""
    return 0.0 if record.status == "ok" else max(-record.score, sys.float_info.min)


def _crowding(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distances[order[[0, -1]]] = np.inf
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distances
