"""What to trade off and what must hold: directions, limits, Pareto front, hypervolume, knee, and the one number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

MAXIMISED = frozenset({"accuracy"})
FAILED_SCORE = -2.0
"""The lowest score there is: infeasible ones lie in (-1, 0), feasible ones are not negative."""


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
    """Volume that the rows dominate below a reference point, by slicing along the last objective.

    Exact for any number of objectives (Zitzler & Thiele, 1998); exponential in it, meant for two to four.

    Args:
        losses: (rows, objectives), smaller is better; rows that don't dominate the reference count nothing.
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
    """By how much each broken limit is broken, as a share of the limit; empty when all hold.

    Metrics that are not known yet break nothing.
    """
    return {
        name: values[name] / limit - 1.0 for name, limit in limits.items() if name in values and values[name] > limit
    }


def reward(
    values: Mapping[str, float], objectives: Sequence[str], exponent: float, targets: Mapping[str, float]
) -> float:
    """Accuracy × Π (cost / target)^exponent (Tan et al., MnasNet, 2019), not negative.

    Args:
        values: every objective's value.
        objectives: names; `accuracy` and at least one cost.
        exponent: not positive; how much a cost matters.
        targets: a cost's target where one is known; a missing one scales all rewards alike and changes no order.
    """
    factor = 1.0
    for name in objectives:
        if name not in MAXIMISED:
            factor *= (max(values[name], 1e-12) / targets.get(name, 1.0)) ** exponent
    return values["accuracy"] * factor


def infeasible_score(broken: Mapping[str, float]) -> float:
    """A finite score in (-1, 0), lower the further the limits are broken."""
    total = sum(broken.values())
    return -total / (1.0 + total) if math.isfinite(total) else -1.0 + 1e-12


def knee(losses: npt.NDArray[np.float64], front: Sequence[int]) -> list[int]:
    """The front's members in the order in which they balance the objectives, best first.

    Members at least as good as the median row in every objective come before the others. Within both groups the
    order is the distance to the ideal point, each objective scaled by the front's own range (Branke et al.,
    Finding knees in multi-objective optimization, 2004, use the same scaling).

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
