"""Features of a NAS-Bench-201 cell (Dong and Yang 2020) for predicting its latency by a `FeatureModel`.

A cell has four nodes and an operator on each of the six edges between them. A device may run all six, or leave out what
changes no result: operators whose output is unused, or that see only zeros. So the same counts come in several
variants, and the model finds out which of them its device follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.predictors.feature_kernel import FeatureGroup
from pipeline.spaces.base import ArchitectureError

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_NONE, _SKIP, _CONV_1, _CONV_3, _POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and destination of each edge, in the order of the architecture's string."""

FEATURE_GROUPS = (
    FeatureGroup("operators", 4),
    FeatureGroup("used operators", 5),
    FeatureGroup("kept operators", 5),
    FeatureGroup("edges", 24, weight=0.3),
    FeatureGroup("used edges", 24, weight=0.3),
    FeatureGroup("shape", 16, weight=0.3),
)


def parse(architecture: str) -> tuple[int, ...]:
    """Indices in `OPERATORS` of the six edges of `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        ArchitectureError: not such a string.
    """
    nodes = [node.strip("|").split("|") for node in architecture.split("+")]
    found = [edge.rpartition("~") for node in nodes for edge in node]
    sources = [str(source) for source, _ in EDGES]
    if [len(node) for node in nodes] != [1, 2, 3] or [source for _, _, source in found] != sources:
        raise ArchitectureError(f"{architecture!r} is no NAS-Bench-201 cell: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    unknown = [name for name, _, _ in found if name not in OPERATORS]
    if unknown:
        raise ArchitectureError(f"unknown operator {unknown[0]!r} in {architecture!r}; valid: {', '.join(OPERATORS)}")
    return tuple(OPERATORS.index(name) for name, _, _ in found)


def cell_key(operators: Sequence[str]) -> str:
    """The architecture's string from the names of its six operators: the inverse of `parse`."""
    nodes = [
        "".join(
            f"|{name}~{source}"
            for name, (source, destination) in zip(operators, EDGES, strict=True)
            if destination == node
        )
        for node in (1, 2, 3)
    ]
    return "+".join(f"{node}|" for node in nodes)


def features(cells: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Features (n, 78), in the columns of `FEATURE_GROUPS`, of cells (n, 6) from `parse`."""
    cell = np.asarray(cells, dtype=int).reshape(-1, 6)
    used, kept = _used(cell), _kept(cell)
    # Without a path from input to output, the output is constant, and all operators can be left out.
    connected = _connected(cell)[:, None]
    parts = (
        _counts(cell),
        np.hstack([_counts(used), connected]) * connected,
        np.hstack([_counts(kept), connected]),
        _one_hot(cell),
        _one_hot(used) * connected,
        _shape(used) * connected,
    )
    return np.hstack(parts).astype(float)


def leading_operators(cell: np.ndarray) -> np.ndarray:
    """Cells (n, 6) without operators that don't lead to the output; all `none` where the input doesn't."""
    return np.asarray(_used(cell) * _connected(cell)[:, None])


def depth_and_width(cell: np.ndarray) -> np.ndarray:
    """Longest path by convolutions and by edges, and number of paths, shape (n, 3), of cells (n, 6)."""
    columns = [_longest_path(cell, _is_conv(cell)), _longest_path(cell, cell != _NONE), _paths(cell)]
    return np.stack(columns, axis=1)


def _counts(cell: np.ndarray) -> np.ndarray:
    """Number of each operator but `none`, shape (n, 4)."""
    return np.stack([(cell == operator).sum(axis=1) for operator in range(1, 5)], axis=1)


def _one_hot(cell: np.ndarray) -> np.ndarray:
    """Whether an edge has an operator but `none`, shape (n, 24), operator by operator."""
    return np.hstack([cell == operator for operator in range(1, 5)])


def _is_conv(cell: np.ndarray) -> np.ndarray:
    return np.asarray((cell == _CONV_1) | (cell == _CONV_3))


def _connected(cell: np.ndarray) -> np.ndarray:
    """Mask of cells, shape (n,): whether a path without `none` leads from input to output."""
    return _reached(cell)[:, 3]


def _reached(cell: np.ndarray) -> np.ndarray:
    """Mask of nodes, shape (n, 4): whether a path without `none` leads from the input to a node."""
    reached = np.zeros((len(cell), 4), dtype=bool)
    reached[:, 0] = True
    for edge, (source, destination) in enumerate(EDGES):
        reached[:, destination] |= reached[:, source] & (cell[:, edge] != _NONE)
    return reached


def _used(cell: np.ndarray) -> np.ndarray:
    """Cells without the operators whose results don't reach the output."""
    return _pruned(cell, np.ones(len(cell), dtype=bool), np.zeros(cell.shape, dtype=bool))


def _kept(cell: np.ndarray) -> np.ndarray:
    """Cells like `_used`, but with convolutions that absorb a multiplication by zero and so stay.

    A graph optimiser that folds constant factors into convolutions does so with the only summand of a node that only
    `none` follows. Where the output is constant, only these convolutions stay.
    """
    # Zeros go through skips and are then no summand; convolutions and pooling of zeros are run.
    nonzero = np.zeros((len(cell), 4), dtype=bool)
    nonzero[:, 0] = True
    summand = np.zeros(cell.shape, dtype=bool)
    for edge, (source, destination) in enumerate(EDGES):
        summand[:, edge] = (cell[:, edge] >= _CONV_1) | ((cell[:, edge] == _SKIP) & nonzero[:, source])
        nonzero[:, destination] |= summand[:, edge]
    roots = np.zeros(cell.shape, dtype=bool)
    for node in (1, 2):
        into = [edge for edge, (_, destination) in enumerate(EDGES) if destination == node]
        out_of = [edge for edge, (source, _) in enumerate(EDGES) if source == node]
        folded = (cell[:, out_of] == _NONE).all(axis=1) & (summand[:, into].sum(axis=1) == 1)
        roots[:, into] = folded[:, None] & _is_conv(cell[:, into])
    connected, reached = _connected(cell), _reached(cell)
    sees_input = reached[:, [source for source, _ in EDGES]]
    return _pruned(cell, connected, roots & (connected[:, None] | sees_input))


def _pruned(cell: np.ndarray, output: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Cells with the operators that lead to the output, where `output` (n,), or to an edge of `roots` (n, 6)."""
    needed = np.zeros((len(cell), 4), dtype=bool)
    needed[:, 3] = output
    stays = np.zeros(cell.shape, dtype=bool)
    for edge in (5, 4, 3, 2, 1, 0):
        source, destination = EDGES[edge]
        stays[:, edge] = (cell[:, edge] != _NONE) & (needed[:, destination] | roots[:, edge])
        needed[:, source] |= stays[:, edge]
    return np.where(stays, cell, _NONE)


def _shape(used: np.ndarray) -> np.ndarray:
    """Structure of the used operators, shape (n, 16).

    Longest path by convolutions and by edges, number of paths; convolutions out of each node; convolutions and
    poolings beyond the first out of the same node, which can be shared; additions at each node; which nodes are used;
    number of nodes behind a convolution; 1.
    """
    convolutions, pools = _out_of(_is_conv(used)), _out_of(used == _POOL)
    summands = _into(used != _NONE)
    columns = [
        *depth_and_width(used).T,
        *convolutions.T,
        np.maximum(convolutions - 1, 0).sum(axis=1),
        np.maximum(pools - 1, 0).sum(axis=1),
        *np.maximum(summands - 1, 0).T,
        *(summands > 0).T,
        (_into(_is_conv(used)) > 0).sum(axis=1),
        np.ones(len(used)),
    ]
    return np.stack(columns, axis=1)


def _out_of(marked: np.ndarray) -> np.ndarray:
    """Number of marked edges (n, 6) out of the nodes 0, 1, 2, shape (n, 3)."""
    return np.stack(
        [marked[:, [e for e, (source, _) in enumerate(EDGES) if source == node]].sum(1) for node in range(3)], 1
    )


def _into(marked: np.ndarray) -> np.ndarray:
    """Number of marked edges (n, 6) into the nodes 1, 2, 3, shape (n, 3)."""
    return np.stack([marked[:, [e for e, (_, to) in enumerate(EDGES) if to == node]].sum(1) for node in range(1, 4)], 1)


def _paths(cell: np.ndarray) -> np.ndarray:
    """Number of paths from input to output, shape (n,)."""
    paths = np.zeros((len(cell), 4))
    paths[:, 0] = 1
    for edge, (source, destination) in enumerate(EDGES):
        paths[:, destination] += np.where(cell[:, edge] != _NONE, paths[:, source], 0)
    return paths[:, 3]


def _longest_path(cell: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Largest number of `counted` edges (n, 6) on a path from input to output, shape (n,); 0 without a path."""
    longest = np.full((len(cell), 4), -np.inf)
    longest[:, 0] = 0
    for edge, (source, destination) in enumerate(EDGES):
        through = np.where(cell[:, edge] != _NONE, longest[:, source] + counted[:, edge], -np.inf)
        longest[:, destination] = np.maximum(longest[:, destination], through)
    return np.asarray(np.maximum(longest[:, 3], 0))
