"""Architectures as feature vectors, whose distances a surrogate sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spaces.base import Choice, SearchSpace
    from pipeline.strategies.integer_codes import Codes, IntegerEncoder
    from pipeline.strategies.problem import KnownScores

Single = npt.NDArray[np.float32]
Rows = TypeVar("Rows", npt.NDArray[np.int64], npt.NDArray[np.bool_])


_TYPICAL = 6.0
"""Largest mean squared distance within a group: with a hundred choices all architectures would be far apart."""

_SCORE_SPREAD = 2.0
"""Distance between the lowest and the highest score."""


@dataclass(frozen=True)
class Features:
    """Feature vectors of n architectures.

    Attributes:
        x: (n, features), of order 1, group after group.
        linear: (n, features + 1), inputs of the kernel's linear part: standardised to unit variance in total, and a
            constant.
    """

    x: Single
    linear: Single

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Rows) -> Features:
        """The features of some rows."""
        return Features(self.x[rows], self.linear[rows])

    def joined(self, others: Features) -> Features:
        """These features, then the others'."""
        return Features(np.vstack([self.x, others.x]), np.vstack([self.linear, others.linear]))


class Featurizer:
    """Computes features of architectures: those of `SearchSpace.features`, or else two groups that any space has.

    The first group encodes each choice: one-hot, or for quantities a column for each threshold, so that neighbouring
    quantities are nearer; and a column `inactive` for choices with conditions. The second counts how often each value
    occurs among choices with the same values: blocks of a network share their effects.

    Zero-cost scores are one more group: for each the share of the sample that scores lower.

    Args:
        space: the search space.
        encoder: its integer codes.
        sample: codes of architectures that are the reference for scales and ranks.
        proxies: zero-cost scores, if there are any.

    Attributes:
        sample: the sample's features.
        sizes: columns of each group; a surrogate gives each a length scale of its own.
    """

    def __init__(
        self, space: SearchSpace, encoder: IntegerEncoder, sample: Codes, proxies: KnownScores | None = None
    ) -> None:
        self._space, self._encoder, self._proxies = space, encoder, proxies
        self._ranks: list[_Ranks] = []
        self._tables = [_columns(choice, space.quantities) for choice in encoder.choices]
        self._kinds = _kinds(encoder.choices)
        self._own = space.features(encoder.decode(sample[:1])) is not None
        scores = self._scores(sample)
        self._ranks = [_Ranks(column) for column in scores.T]
        groups = self._groups(sample, scores)
        self._units = [max(1.0, math.sqrt(2 * float(group.var(axis=0).sum()) / _TYPICAL)) for group in groups]
        self.sizes = tuple(group.shape[1] for group in groups)
        x = self._in_units(groups)
        self._centre, width = x.mean(axis=0), x.std(axis=0)
        varies = width > 1e-5
        self._scale = (varies / np.where(varies, width, 1) / math.sqrt(x.shape[1])).astype(np.float32)
        self.sample = self._with_linear(x)

    def features(self, codes: Codes) -> Features:
        """Features of architectures; those of one don't depend on the others."""
        return self._with_linear(self._in_units(self._groups(codes, self._scores(codes))))

    def _with_linear(self, x: Single) -> Features:
        constant = np.full((len(x), 1), 0.5, dtype=np.float32)
        return Features(x, np.hstack([(x - self._centre) * self._scale, constant]))

    def _scores(self, codes: Codes) -> npt.NDArray[np.float64]:
        """Zero-cost scores, shape (n, proxies)."""
        if self._proxies is None or not len(codes):
            return np.empty((len(codes), len(self._proxies.names) if self._proxies else 0))
        return self._proxies.scores(self._encoder.decode(codes))

    def _groups(self, codes: Codes, scores: npt.NDArray[np.float64]) -> list[Single]:
        groups = self._of_choices(codes)
        if not self._ranks:
            return groups
        return [*groups, np.column_stack([rank(column) for rank, column in zip(self._ranks, scores.T, strict=True)])]

    def _of_choices(self, codes: Codes) -> list[Single]:
        if self._own:
            own = self._space.features(self._encoder.decode(codes))
            assert own is not None  # a space has features of all its architectures, or of none
            return [group.astype(np.float32) for group in own]
        values = [table[column] for table, column in zip(self._tables, codes.T, strict=True) if table.shape[1]]
        groups = [np.hstack(values) if values else np.zeros((len(codes), 1), dtype=np.float32)]
        counts = [self._counts(codes, members) for members in self._kinds]
        return [*groups, np.hstack(counts)] if counts else groups

    def _in_units(self, groups: list[Single]) -> Single:
        return np.hstack([group / np.float32(unit) for group, unit in zip(groups, self._units, strict=True)])

    def _counts(self, codes: Codes, members: Sequence[int]) -> Single:
        """Counts of each value over choices of one kind, shape (n, values), scaled to order 1."""
        one_hot = np.eye(self._encoder.sizes[members[0]] + 1, dtype=np.float32)[:, :-1]
        counts: Single = one_hot[codes[:, members]].sum(axis=1) / np.float32(math.sqrt(len(members) / 2))
        return counts


class _Ranks:
    """A score's rank as a feature: the share of a sample that scores lower; ties count half, NaN is in the middle."""

    def __init__(self, sample: npt.NDArray[np.float64]) -> None:
        self._sorted = np.sort(sample[~np.isnan(sample)])

    def __call__(self, values: npt.NDArray[np.float64]) -> Single:
        less = sum(np.searchsorted(self._sorted, values, side) for side in ("left", "right"))
        shares = _SCORE_SPREAD * less / (2 * max(1, len(self._sorted)))
        return np.where(np.isnan(values), _SCORE_SPREAD / 2, shares).astype(np.float32)


def _kinds(choices: Sequence[Choice]) -> list[list[int]]:
    """Groups of choices, by index, that have the same values."""
    kinds: dict[tuple[tuple[type, object], ...], list[int]] = {}
    for place, choice in enumerate(choices):
        kinds.setdefault(tuple((type(value), value) for value in choice.values), []).append(place)
    return [members for values, members in kinds.items() if len(members) > 1 and len(values) > 1]


def _columns(choice: Choice, quantities: bool) -> Single:
    """Features of each value of a choice, shape (values + 1, columns); the last row is for the inactive choice."""
    count = len(choice.values)
    if count < 2:
        return np.zeros((2, 0), dtype=np.float32)  # whether it is active follows from its condition
    if quantities and count > 2 and all(isinstance(v, (int, float)) and type(v) is not bool for v in choice.values):
        ranks = np.append(np.argsort(np.argsort(np.array(choice.values, dtype=float))), -1)
        columns = (ranks[:, None] >= np.arange(1, count)) / math.sqrt(count - 1)
    else:
        columns = np.eye(count + 1)[:, :count] / math.sqrt(2)
    if choice.requires:
        columns = np.hstack([columns, np.eye(count + 1)[:, count:] / math.sqrt(2)])
    return columns.astype(np.float32)
