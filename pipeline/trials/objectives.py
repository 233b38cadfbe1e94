"""Objectives and limits: directions, Pareto front, hypervolume, knee, and the score of a trial."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pipeline.trials.journal import TrialRecord

MAXIMISED = frozenset({"accuracy"})
FAILED_SCORE = -2.0
"""The lowest score: those of infeasible trials lie in (-1, 0), those of feasible ones are not negative."""


class Score(float):
    """The number that NNI's strategies compare, with the trial behind it for strategies with several objectives.

    Attributes:
        record: the trial.
    """

    record: TrialRecord

    @classmethod
    def of(cls, record: TrialRecord) -> Score:
        """The score of a trial's record."""
        score = cls(record.score)
        score.record = record
        return score


def as_losses(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Rows of objectives as a matrix (rows, names) in which smaller is better everywhere."""
    signs = [-1.0 if name in MAXIMISED else 1.0 for name in names]
    return np.array([[s * row[n] for s, n in zip(signs, names, strict=True)] for row in rows], dtype=float).reshape(
        len(rows), len(names)
    )


def pareto_front(losses: npt.NDArray[np.float64]) -> list[int]:
    """Indices of the rows that no other row dominates; of equal rows only the first.

    Args:
        losses: (rows, objectives), smaller is better.
    """
    # Sorted by the columns in turn, a row is dominated by none after it, and of equal rows the first comes first.
    kept = np.empty_like(losses)
    front: list[int] = []
    for i in np.lexsort(losses.T[::-1]) if losses.size else ():
        if not np.all(kept[: len(front)] <= losses[i], axis=1).any():
            kept[len(front)] = losses[i]
            front.append(int(i))
    return sorted(front)


def hypervolume(losses: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> float:
    """The volume that the rows dominate below a reference point, by slicing along the last objective.

    Exact for any number of objectives (Zitzler & Thiele, 1998); exponential in it, meant for two to four.

    Args:
        losses: (rows, objectives), smaller is better; rows that don't dominate the reference add nothing.
        reference: (objectives,).
    """
    rows = losses[np.all(losses < reference, axis=1)]
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(reference[0] - rows[:, 0].min())
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    edges = np.append(rows[:, -1], reference[-1])
    return float(
        sum(
            (edges[i + 1] - edges[i]) * hypervolume(rows[: i + 1, :-1], reference[:-1])
            for i in range(len(rows))
            if edges[i + 1] > edges[i]
        )
    )


def excess(values: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """Map each broken limit to its excess, as a share of the limit; metrics that aren't known yet break none."""
    return {
        name: values[name] / limit - 1.0 for name, limit in limits.items() if name in values and values[name] > limit
    }


def reward(
    values: Mapping[str, float], objectives: Sequence[str], exponent: float, targets: Mapping[str, float]
) -> float:
    """The reward accuracy × Π (cost / target)^exponent, at least 0 (Tan et al., MnasNet, CVPR 2019).

    Args:
        values: every objective's value.
        objectives: names; `accuracy` and at least one cost.
        exponent: at most 0; the weight of costs.
        targets: of costs, 1 by default; a target scales all rewards alike and changes no order.
    """
    factor = 1.0
    for name in objectives:
        if name not in MAXIMISED:
            factor *= (max(values[name], 1e-12) / targets.get(name, 1.0)) ** exponent
    return values["accuracy"] * factor


def infeasible_score(broken: Mapping[str, float]) -> float:
    """The score in (-1, 0) of a trial that breaks limits, lower the further it breaks them."""
    total = sum(broken.values())
    return -total / (1.0 + total) if math.isfinite(total) else -1.0 + 1e-12


def knee(losses: npt.NDArray[np.float64], front: Sequence[int]) -> list[int]:
    """The front's members by how well they balance the objectives, best first.

    Members at least as good as the median row in every objective come before the others. Both groups are sorted by
    their distance to the ideal point, each objective scaled by the front's own range, as in Branke et al., Finding
    knees in multi-objective optimization, 2004.

    Args:
        losses: (rows, objectives) of every feasible candidate, smaller is better.
        front: indices of the rows on the front.
    """
    median = np.median(losses, axis=0)
    points = losses[list(front)]
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    distance = np.linalg.norm(scaled, axis=1)
    beyond = ~np.all(points <= median, axis=1)
    return [front[i] for i in np.lexsort((distance, beyond))]
