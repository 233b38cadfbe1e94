"""The prior covariance between the times of operators, and between those of networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.predictors.operators import Operator

_SAME = 1e-9


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters of the process, relative variances of operators' times about their lines.

    Attributes:
        kind: of a deviation that all operators of a kind share.
        shape: of one that varies smoothly with the logarithms of the sizes.
        own: of each operator's own.
        reach: the length scale of `shape`.
        misfit: relative standard deviation of a network's time from the sum of its operators' times.
    """

    kind: float = 0.01
    shape: float = 0.02
    own: float = 0.002
    reach: float = 1.0
    misfit: float = 0.01

    def logs(self) -> np.ndarray:
        """The logarithms of all five, (5,)."""
        return np.log([self.kind, self.shape, self.own, self.reach, self.misfit])


def covariance_of_few(
    kinds: Sequence[str], log_sizes: Sequence[np.ndarray], line_ms: np.ndarray, hyper: Hyper
) -> np.ndarray:
    """Covariances of a few operators' times with each other, without a loop over kinds: a prediction waits for it."""
    ids: dict[str, int] = {}
    groups = np.array([ids.setdefault(kind, len(ids)) for kind in kinds])
    sizes = np.zeros((len(kinds), max(map(len, log_sizes))))
    for row, own in zip(sizes, log_sizes, strict=True):
        row[: len(own)] = own
    distance = ((sizes[:, None] - sizes[None]) ** 2).sum(axis=2)
    return np.asarray(_relative(distance, hyper) * (groups[:, None] == groups[None]) * np.outer(line_ms, line_ms))


def _relative(distance: np.ndarray, hyper: Hyper) -> np.ndarray:
    """Relative covariance of two operators of a kind at squared distances between their logarithmic sizes."""
    smooth = hyper.kind + hyper.shape * np.exp(-distance / (2.0 * hyper.reach**2))
    return np.asarray(smooth + hyper.own * (distance < _SAME))


def covariance(
    some: Sequence[Operator], others: Sequence[Operator], some_ms: np.ndarray, others_ms: np.ndarray, hyper: Hyper
) -> np.ndarray:
    """Covariances (len(some), len(others)) of operators' times; `*_ms` are the times by their lines."""
    matrix = np.zeros((len(some), len(others)))
    columns = _by_kind(others)
    for kind, rows in _by_kind(some).items():
        if kind not in columns:
            continue
        a, b = _log_sizes(some, rows), _log_sizes(others, columns[kind])
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        matrix[np.ix_(rows, columns[kind])] = _relative(distance, hyper) * np.outer(
            some_ms[rows], others_ms[columns[kind]]
        )
    return matrix


def gram_matrix(operators: Sequence[Operator], counts: np.ndarray, prior_ms: np.ndarray, hyper: Hyper) -> np.ndarray:
    """Covariances (n, n) of networks with `counts` (n, operators). Kinds are independent, so each adds its own."""
    gram = np.zeros((len(counts), len(counts)))
    for columns in map(np.array, _by_kind(operators).values()):
        rows = np.flatnonzero(counts[:, columns].any(axis=1))
        own, amounts = [operators[at] for at in columns], counts[np.ix_(rows, columns)]
        between = covariance(own, own, prior_ms[columns], prior_ms[columns], hyper)
        gram[np.ix_(rows, rows)] += amounts @ between @ amounts.T
    return gram


def _by_kind(operators: Sequence[Operator]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for at, operator in enumerate(operators):
        found.setdefault(operator.kind, []).append(at)
    return found


def _log_sizes(operators: Sequence[Operator], rows: Sequence[int]) -> np.ndarray:
    sizes = np.array([operators[row].sizes for row in rows], float)
    return np.asarray(np.log(sizes.reshape(len(rows), -1)))
