"""When a training is ended early: rules over learning curves, each a function of a curve and its peers alone.

Only accuracies after the same number of epochs are compared: with a one-cycle learning rate those of early epochs are
low for everybody.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.trials.objectives import pareto_front

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.config.evaluator import StoppingOptions

    Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LearningCurve:
    """How a training went.

    Attributes:
        accuracies: on the validation images, 0 to 1, after each epoch.
        costs: what accuracy is traded off against, smaller is better, of all curves in the same order; empty where
            accuracy alone counts.
    """

    accuracies: tuple[float, ...]
    costs: tuple[float, ...] = ()


def verdict(options: StoppingOptions, own: LearningCurve, peers: Sequence[LearningCurve], epochs: int) -> str | None:
    """Why a training ends here, in words; None while it goes on.

    Args:
        options: the config's section.
        own: the training so far, at least one epoch.
        peers: earlier trainings, stopped ones among them.
        epochs: that it would have in all.
    """
    epoch = len(own.accuracies)
    if options.rule == "none" or not options.first <= epoch < epochs:
        return None
    if options.rule == "median":
        return median_rule(own, peers, options.min_peers)
    if not _is_rung(epoch, options.first, options.factor):
        return None
    return halving_rule(own, peers, options.factor, options.min_peers)


def median_rule(own: LearningCurve, peers: Sequence[LearningCurve], min_peers: int) -> str | None:
    """Whether the best accuracy so far is below the median of the peers' running averages (Golovin et al., Google
    Vizier, KDD 2017).

    With costs the peers are those that cost no more in anything: only they can dominate. So what is below their
    median is dominated by half of them, and what nobody dominates is never stopped.

    Args:
        own: the training so far.
        peers: earlier trainings; those that were stopped before this epoch don't count.
        min_peers: with fewer the rule says nothing.
    """
    epoch = len(own.accuracies)
    rivals = [peer for peer in _at(peers, epoch) if _costs_no_more(peer, own)]
    if len(rivals) < max(1, min_peers):
        return None
    middle = statistics.median(_running_average(peer.accuracies[:epoch]) for peer in rivals)
    best = max(own.accuracies)
    if best >= middle:
        return None
    who = "that cost no more" if own.costs else "before it"
    return f"best accuracy {best:.4f}, below {middle:.4f}, the median of {len(rivals)} trials {who}"


def halving_rule(own: LearningCurve, peers: Sequence[LearningCurve], factor: int, min_peers: int) -> str | None:
    """Whether the accuracy after this epoch isn't among the best 1/factor of all that got here: a rung of
    asynchronous successive halving, which stops what isn't promoted (Li et al., A system for massively parallel
    hyperparameter tuning, MLSys 2020).

    With costs the order is that of Schmucker et al., Multi-objective asynchronous successive halving, 2021: fronts
    of non-dominated ones, and within a front that has too many, points far from each other first. Unlike there, what
    nobody dominates is never stopped, however many that are: each of them is a part of the result. Nor is what is as
    accurate as the best, though dearer.

    Args:
        own: the training so far.
        peers: earlier trainings; those that were stopped before this epoch don't count.
        factor: at least 2.
        min_peers: with fewer the rule says nothing.
    """
    epoch = len(own.accuracies)
    rivals = _at(peers, epoch)
    if len(rivals) < max(1, min_peers):
        return None
    keep = max(1, (len(rivals) + 1) // factor)
    rows = [(-each.accuracies[epoch - 1], *each.costs) for each in (own, *rivals)]
    most_accurate = rows[0][0] == min(loss for loss, *_ in rows)
    if most_accurate or _is_kept(np.array(rows, dtype=float), keep):
        return None
    return f"accuracy {own.accuracies[-1]:.4f}, not among the best {keep} of {len(rows)} after epoch {epoch}"


def _is_rung(epoch: int, first: int, factor: int) -> bool:
    rung = first
    while rung < epoch:
        rung *= factor
    return rung == epoch


def _at(peers: Sequence[LearningCurve], epoch: int) -> list[LearningCurve]:
    return [peer for peer in peers if len(peer.accuracies) >= epoch]


def _costs_no_more(peer: LearningCurve, own: LearningCurve) -> bool:
    return all(theirs <= mine for theirs, mine in zip(peer.costs, own.costs, strict=True))


def _running_average(accuracies: Sequence[float]) -> float:
    return min(statistics.fmean(accuracies), max(accuracies))  # rounding mustn't lift an average above its values


def _is_kept(losses: Losses, keep: int) -> bool:
    """Whether the first of the rows (rows, objectives) is on the first front, or among the best `keep`."""
    rows, places, counts = np.unique(losses, axis=0, return_inverse=True, return_counts=True)
    own = int(np.ravel(places)[0])
    left, ahead = np.arange(len(rows)), 0
    while True:
        front = left[pareto_front(rows[left])]
        if own in front:
            break
        ahead += int(counts[front].sum())
        if ahead >= keep:
            return False
        left = np.setdiff1d(left, front, assume_unique=True)
    if ahead == 0 or ahead + int(counts[front].sum()) <= keep:
        return True
    spaced = front[spaced_order(rows[front])]
    return own in spaced[: keep - ahead]


def spaced_order(points: Losses) -> list[int]:
    """Points so that the first few of them are far from each other: the least one in the first column, then always
    the one that is farthest from those before, each column scaled by its range (Clarkson 2006, as in Schmucker et al.).

    Args:
        points: (points, objectives), at least one.
    """
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0, span, 1.0)
    order = [int(np.lexsort(points.T[::-1])[0])]
    distance = np.linalg.norm(scaled - scaled[order[0]], axis=1)
    while len(order) < len(points):
        distance[order[-1]] = -1.0
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
    return order
