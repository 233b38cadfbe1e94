"""What of a NAS-Bench-201 cell its accuracy depends on, as numbers for a surrogate.

Many cells are the same function: an operator that no path from input to output uses changes nothing, and what the
other operators do depends on the paths that they are on. A cell adds up its paths like an ensemble of chains of
operators (Veit, Wilber & Belongie, Residual networks behave like ensembles of relatively shallow networks, 2016);
encodings of cells by their paths are known from White, Neiswanger & Savani, BANANAS, 2021. Here, beside the used
operators themselves: how many of each kind there are along all paths, and along the path that has most of it; how long
the longest path is, by which it is seen how deep a cell is; and how many paths there are.
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
"""A one-hot over this: what differs in it is 1 apart."""
Groups = tuple[npt.NDArray[np.float64], ...]


def _paths(node: int = 0, before: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The edges of each way from a node to the output."""
    if node == 3:
        return [before]
    return [way for edge, (source, to) in enumerate(EDGES) if source == node for way in _paths(to, (*before, edge))]


PATHS = _paths()


def path_features(cells: Sequence[Sequence[int]] | npt.NDArray[np.int64]) -> Groups:
    """Cells (n, 6) as `nasbench201_features.parse` gives them → groups of order 1.

    Returns:
        (n, 30), which operator is on which edge, `none` where it isn't used; (n, 5), how many of each operator but
        `none` are along all paths that lead to the output, and how many such paths there are; (n, 5), the most of each
        that one of them has, and whether there is one; (n, 3), the longest path by convolutions and by edges, the
        number of paths.
    """
    cell = np.asarray(cells, dtype=int).reshape(-1, len(EDGES))
    used = leading_operators(cell)
    one_hot = np.hstack([used == operator for operator in range(len(OPERATORS))])
    along = np.stack([_along(used, path) for path in PATHS])
    return one_hot / SQRT_2, along.sum(axis=0) / 2, along.max(axis=0) / 2, depth_and_width(used)


def _along(used: npt.NDArray[np.int64], path: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """(n, 5): of a path without `none`, how many of each operator it has, and 1; otherwise 0."""
    operators = used[:, path]
    leads = (operators != 0).all(axis=1)
    counts = [(operators == operator).sum(axis=1) for operator in range(1, len(OPERATORS))]
    return np.asarray(np.stack([*counts, np.ones(len(used))], axis=1) * leads[:, None])
