"""Zero-cost scores from a published table, which may be in another file than the accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import nearest
from pipeline.evaluators.lookup import TableError, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pipeline.config.evaluator import TableEvaluatorOptions
    from pipeline.evaluators.lookup import PublishedTable
    from pipeline.spaces.base import Architecture, SearchSpace

Columns = dict[str, "npt.NDArray[np.float64]"]


class PublishedScores:
    """All scores in a table.

    Args:
        table: of the accuracies, with the architectures' keys.
        space: of the architectures.
        options: with the names of the columns.

    Attributes:
        columns: score → (rows of the table,); NaN where it has none, infinite where that was published.
        seconds: score → (rows of the table,), computing times, of the scores that have some.

    Raises:
        TableError: no such file or column, or files that have no row in common.
    """

    def __init__(self, table: PublishedTable, space: SearchSpace, options: TableEvaluatorOptions) -> None:
        self._rows, self._space = table.rows, space
        self.columns: Columns = {}
        self.seconds: Columns = {}
        if (proxies := options.proxies) is None:
            return
        path = Path(proxies.path or options.path).expanduser()
        key = proxies.key or options.key
        wanted = {column: f"proxies.columns.{name}" for name, column in proxies.columns.items()}
        timed = {column: f"proxies.seconds.{name}" for name, column in proxies.seconds.items()}
        try:
            other = read_table(path, key, {**timed, **wanted})
        except TableError as error:
            raise TableError(_option_of(error.option), error.problem) from error
        order = _joined(table, options, other, key)
        self.columns = {name: other.columns[column][order] for name, column in proxies.columns.items()}
        self.seconds = {name: other.columns[column][order] for name, column in proxies.seconds.items()}
        for values in (*self.columns.values(), *self.seconds.values()):
            values[order < 0] = np.nan

    def of(self, names: Sequence[str]) -> SelectedScores:
        """Select the scores for one search.

        Raises:
            TableError: the table has none of that name.
        """
        for name in names:
            if name not in self.columns:
                hint = nearest(name, self.columns) if self.columns else "; evaluator.proxies.columns names them"
                raise TableError("proxies", f"the table has no scores {name!r}{hint}")
        return SelectedScores(self, names, self._rows, self._space)


class SelectedScores:
    """The scores that one search uses; see `pipeline.strategies.problem.KnownScores`.

    Attributes:
        names: of the scores.
    """

    expensive: bool = False

    def __init__(
        self, published: PublishedScores, names: Sequence[str], rows: Mapping[str, int], space: SearchSpace
    ) -> None:
        self.names = tuple(names)
        self._rows, self._space = rows, space
        # One more row, of unknown scores, for architectures without a row.
        self._matrix = _stacked([published.columns[name] for name in names], np.nan)
        seconds = [published.seconds[name] for name in names if name in published.seconds]
        self._seconds = np.nan_to_num(_stacked(seconds, 0.0)) if seconds else None
        self._asked: set[int] = set()

    def scores(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Scores (architectures, names); NaN where the table has none."""
        rows = [self._rows.get(self._space.key(each), -1) for each in architectures]
        self._asked.update(rows)
        return self._matrix[rows]

    @property
    def seconds(self) -> float | None:
        """Seconds that computing all scores used so far took, each once; None where the table has no times."""
        if self._seconds is None:
            return None
        return float(self._seconds[sorted(self._asked)].sum())


def _stacked(columns: Sequence[npt.NDArray[np.float64]], unknown: float) -> npt.NDArray[np.float64]:
    return np.vstack([np.column_stack(columns), np.full(len(columns), unknown)])


def _joined(
    table: PublishedTable, options: TableEvaluatorOptions, other: PublishedTable, key: str
) -> npt.NDArray[np.int64]:
    """Row numbers of the other table (rows of the table,), matched by the column `key`; −1 for none."""
    try:
        names = table.rows if key == options.key else read_table(table.path, key, {}).rows
    except TableError as error:
        raise TableError("proxies.key", error.problem) from error
    order = np.full(len(table.rows), -1, dtype=np.int64)
    for name, row in names.items():
        order[row] = other.rows.get(name, -1)
    if (order < 0).all():
        theirs, ours = next(iter(other.rows), ""), next(iter(names), "")
        raise TableError(
            "proxies.key",
            f"column {key!r} of {other.path} holds entries like {theirs!r}, of {table.path} like {ours!r}",
        )
    return order


def _option_of(option: str) -> str:
    return option if option.startswith("proxies.") else f"proxies.{option}"
