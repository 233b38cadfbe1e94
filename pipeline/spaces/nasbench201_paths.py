"""Features of a NAS-Bench-201 cell for surrogates of its accuracy.

Many cells are the same function: an operator that is on no path from input to output changes nothing. A cell adds up
its paths like an ensemble of chains of operators (Veit, Wilber & Belongie, Residual networks behave like ensembles of
relatively shallow networks, 2016); encodings by paths are known from White, Neiswanger & Savani, BANANAS, 2021. Here,
beside the used operators themselves: the number of each operator along all paths and along the path with most of it,
the length of the longest path, and the number of paths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.spaces.nasbench201_features import EDGES, OPERATORS, depth_and_width, leading_operators

if TYPE_CHECKING:
    from collections.abc import Sequence

SQRT_2 = math.sqrt(2)
"""Divisor of a one-hot encoding, so that different values are 1 apart."""
Groups = tuple[npt.NDArray[np.float64], ...]


def _paths(node: int = 0, before: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The edges of each path from a node to the output."""
    if node == 3:
        return [before]
    return [path for edge, (source, to) in enumerate(EDGES) if source == node for path in _paths(to, (*before, edge))]


PATHS = _paths()


def path_features(cells: Sequence[Sequence[int]] | npt.NDArray[np.int64]) -> Groups:
    """Groups of features, of order 1, of cells (n, 6) from `nasbench201_features.parse`.

    Returns:
        (n, 30), the operator of each edge, `none` where it isn't used; (n, 5), the number of each operator but `none`
        along all paths to the output, and of such paths; (n, 5), the largest number of each on one path, and whether
        there is a path; (n, 3), the longest path by convolutions and by edges, and the number of paths.
    """
    cell = np.asarray(cells, dtype=int).reshape(-1, len(EDGES))
    used = leading_operators(cell)
    one_hot = np.hstack([used == operator for operator in range(len(OPERATORS))])
    along = np.stack([_along(used, path) for path in PATHS])
    return one_hot / SQRT_2, along.sum(axis=0) / 2, along.max(axis=0) / 2, depth_and_width(used)


def _along(used: npt.NDArray[np.int64], path: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Number of each operator on a path without `none`, and 1, shape (n, 5); 0 for a path with `none`."""
    operators = used[:, path]
    leads = (operators != 0).all(axis=1)
    counts = [(operators == operator).sum(axis=1) for operator in range(1, len(OPERATORS))]
    return np.asarray(np.stack([*counts, np.ones(len(used))], axis=1) * leads[:, None])
