"""Rules that stop a training early, each a function of its learning curve and its peers'.

Only accuracies after the same number of epochs are compared: with a one-cycle learning rate those of early epochs are
low for everybody.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from pipeline.config.evaluator import StoppingOptions
from pipeline.errors import EvaluatorError
from pipeline.evaluators.learning_curve import LearningCurve, peers_of
from pipeline.trials.objectives import pareto_front

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from pydantic import BaseModel

    from pipeline.trials.journal import TrialRecord

    Losses = npt.NDArray[np.float64]


def stopping_of(section: BaseModel, evaluator: object) -> StoppingOptions:
    """The checked rule of an evaluator's section; the rule `none` where the evaluator can't stop.

    Raises:
        EvaluatorError: a third party's section holds something else than a rule.
    """
    given: Any = getattr(section, "stopping", None)
    if given is None or not getattr(evaluator, "stops", False):
        return StoppingOptions()
    if isinstance(given, StoppingOptions):
        return given
    try:
        return StoppingOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("evaluator", "stopping", *first["loc"]))
        raise EvaluatorError(
            f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {first['input']!r};"
            f" keys: {', '.join(StoppingOptions.model_fields)}"
        ) from None


def peers_for(section: BaseModel, records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """The peers of a training, see `peers_of`; none where the evaluator's section has no rule that compares."""
    given: Any = getattr(section, "stopping", None)
    rule = given.get("rule") if isinstance(given, dict) else getattr(given, "rule", None)
    return [] if rule in (None, "none") else peers_of(records)


def verdict(options: StoppingOptions, own: LearningCurve, peers: Sequence[LearningCurve], epochs: int) -> str | None:
    """The reason why a training ends here, in words; None while it goes on.

    Args:
        options: the config's section.
        own: the training so far, at least one epoch.
        peers: earlier trainings, including stopped ones.
        epochs: of a whole training.
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
    """Stop a training whose best accuracy is below the median of its peers' running averages.

    With costs only peers that cost no more in anything are compared, since only they can dominate: a stopped training
    is dominated by half of them, and one that nobody dominates is never stopped.

    *Golovin et al., Google Vizier, KDD 2017.*

    Args:
        own: the training so far.
        peers: earlier trainings; those that were stopped before this epoch don't count.
        min_peers: with fewer the rule stops nothing.

    Returns:
        The reason in words; None while the training goes on.
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
    """Stop a training that isn't among the best 1/factor of all that reached this epoch.

    This is a rung of asynchronous successive halving. With costs trainings are ranked by non-dominated fronts, and
    within a front that has too many, points far from each other come first. Unlike in the paper, a training that nobody
    dominates is never stopped, however many these are: each is a part of the result. Nor is one that is as accurate as
    the best, though more expensive.

    *Li et al., A system for massively parallel hyperparameter tuning, MLSys 2020; with costs: Schmucker et al.,
    Multi-objective asynchronous successive halving, 2021.*

    Args:
        own: the training so far.
        peers: earlier trainings; those that were stopped before this epoch don't count.
        factor: at least 2.
        min_peers: with fewer the rule stops nothing.

    Returns:
        The reason in words; None while the training goes on.
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
    """Whether the first row of the losses (rows, objectives) is on the first front or among the best `keep`."""
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
    """Order points so that every prefix is spread out: farthest-point sampling (Clarkson, 2006).

    It begins with the smallest value of the first column; each column is scaled by its range.

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
