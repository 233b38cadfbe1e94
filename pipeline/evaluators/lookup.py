"""The evaluator `table`: accuracy and costs from a published table."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from latency_models.files import read_file
from pipeline.errors import HwnasError, nearest
from pipeline.trials.objectives import excess
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.config.evaluator import TableEvaluatorOptions
    from pipeline.spaces.base import Architecture, SearchSpace, Value


_MOST_BYTES = 2 * 10**9


class TableError(HwnasError):
    """A published table that can't be used.

    Args:
        option: of the evaluator that is wrong.
        problem: in words, with valid values.
    """

    def __init__(self, option: str, problem: str) -> None:
        self.option, self.problem = option, problem
        super().__init__(f"{option}: {problem}")


@dataclass(frozen=True)
class PublishedTable:
    """A published table in memory.

    Attributes:
        path: of its file.
        rows: key → row.
        columns: name → (rows,) numbers; NaN where the table has none.
    """

    path: Path
    rows: Mapping[str, int]
    columns: Mapping[str, npt.NDArray[np.float64]]


def read_table(path: Path, key: str, columns: Mapping[str, str]) -> PublishedTable:
    """Read the named columns of a CSV file with a header; a file that ends with `.gz` is packed with gzip.

    Args:
        path: the file.
        key: the column of the rows' names.
        columns: column → the option that names it, for errors.

    Raises:
        TableError: no such file or column, a damaged file, or two rows of one name.
    """
    reader = csv.reader(io.StringIO(_content(path), newline=""), strict=True)
    try:
        names, *lines = list(reader) or [[]]
    except csv.Error as error:
        raise TableError("path", f"{path} is no table of comma-separated values: {error}") from error
    places = {}
    for column, option in {key: "key", **columns}.items():
        if column not in names:
            raise TableError(option, f"{path} has no column {column!r}{nearest(column, names)}")
        places[column] = names.index(column)
    rows = {line[places[key]]: number for number, line in enumerate(lines) if len(line) > places[key]}
    if len(rows) < len(lines):
        raise TableError("key", f"{len(lines) - len(rows)} of {len(lines)} rows of {path} have the key of another one")
    return PublishedTable(path, rows, {column: _numbers(lines, places[column]) for column in columns})


def _content(path: Path) -> str:
    try:
        packed = read_file(path, _MOST_BYTES)
        return (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode("utf-8-sig")
    except FileNotFoundError:
        others = [str(other) for other in path.parent.glob("*.csv*")] if path.parent.is_dir() else []
        hint = nearest(str(path), sorted(others)) if others else ""
        raise TableError("path", f"there is no file {path}{hint}") from None
    except OSError as error:
        raise TableError("path", f"{path} can't be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TableError("path", f"{path} is damaged: {error}") from error


def _numbers(lines: Iterable[Sequence[str]], place: int) -> npt.NDArray[np.float64]:
    return np.array([_number(line[place]) if len(line) > place else np.nan for line in lines], dtype=float)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


class Lookup:
    """Looks trials up in a table, within the search's own process.

    A row is valid if its accuracy is from 0 to 1 and its costs are finite and not negative. An architecture without a
    valid row is a failed trial.

    Args:
        table: with the columns that the options name.
        space: of the architectures, which are the rows by their keys.
        options: with the names of the columns.
        metrics: the costs that a search needs.
        limits: metric → the highest value that is allowed.

    Raises:
        TableError: a cost has no column, the accuracies aren't from 0 to 1, or the table isn't of this space.
    """

    builds: ClassVar[bool] = False

    def __init__(
        self,
        table: PublishedTable,
        space: SearchSpace,
        options: TableEvaluatorOptions,
        metrics: Sequence[str],
        limits: Mapping[str, float],
    ) -> None:
        self.known = TableCosts(table, space, options, metrics)
        self._space, self._rows, self._limits, self._options = space, table.rows, limits, options
        self._path = table.path
        accuracy = table.columns[options.accuracy] * options.scale
        self._accuracy = np.where(np.isfinite(accuracy) & (accuracy >= 0), accuracy, np.nan)
        if not np.isfinite(self._accuracy).any():
            raise TableError("accuracy", f"column {options.accuracy!r} of {table.path} holds no accuracy")
        if (most := float(np.nanmax(self._accuracy))) > 1:
            raise TableError(
                "scale",
                f"column {options.accuracy!r} of {table.path} reaches {most / options.scale:g}, which times"
                f" {options.scale:g} is {most:g}; accuracies are from 0 to 1: a column in per cent takes 0.01",
            )
        if self._row(space.at(0)) is None and self._row(space.at(space.size() - 1)) is None:
            raise TableError(
                "key",
                f"column {options.key!r} of {table.path} holds keys like {next(iter(table.rows))!r}, and the space asks"
                f" for {space.key(space.at(0))!r}",
            )

    def run(self, architecture: Mapping[str, Value]) -> TrialResult:
        """The trial of an architecture: its costs and, if it keeps the limits, its accuracy from the table."""
        row = self._row(architecture)
        if row is None:
            return self._failed(architecture, "no row")
        costs = {name: float(values[row]) for name, values in self.known.columns.items()}
        if missing := [name for name, value in costs.items() if np.isnan(value)]:
            return self._failed(architecture, f"no valid {' and no '.join(missing)}")
        if broken := excess(costs, self._limits):
            return TrialResult("infeasible", costs, {"excess": broken})
        accuracy = float(self._accuracy[row])
        if np.isnan(accuracy):
            return self._failed(architecture, f"no valid accuracy ({self._options.accuracy})")
        return TrialResult("ok", {"accuracy": accuracy, **costs})

    def valid(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Accuracies (rows,) and costs (rows, metrics) of all valid rows."""
        costs = np.stack([*self.known.columns.values()], axis=1)
        whole = np.isfinite(self._accuracy) & np.isfinite(costs).all(axis=1)
        return self._accuracy[whole], costs[whole]

    def _row(self, architecture: Mapping[str, Value]) -> int | None:
        return self._rows.get(self._space.key(architecture))

    def _failed(self, architecture: Mapping[str, Value], what: str) -> TrialResult:
        return TrialResult("failed", error=f"{self._path} has {what} of {self._space.key(architecture)}")


class TableCosts:
    """The costs of all architectures in a table; see `pipeline.strategies.problem.KnownCosts`.

    Attributes:
        columns: metric → (rows,); NaN where the table has no valid value.
    """

    def __init__(
        self, table: PublishedTable, space: SearchSpace, options: TableEvaluatorOptions, metrics: Sequence[str]
    ) -> None:
        costs: Mapping[str, str] = {str(name): column for name, column in options.costs.items()}
        if missing := [name for name in metrics if name not in costs]:
            raise TableError("costs", f"has no column of {', '.join(missing)}, which the search asks for")
        self.metrics = tuple(metrics)
        self.columns: dict[str, npt.NDArray[np.float64]] = {}
        for name in metrics:
            values = table.columns[costs[name]]
            self.columns[name] = np.where(np.isfinite(values) & (values >= 0), values, np.nan)
            if np.isnan(self.columns[name]).all():
                raise TableError(f"costs.{name}", f"column {costs[name]!r} of {table.path} holds no cost")
        self._space, self._rows = space, table.rows
        # One more row, of unknown costs, for architectures without a row.
        self._matrix = np.vstack([np.stack([*self.columns.values()], axis=1), np.full(len(metrics), np.nan)])

    def costs(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs (architectures, metrics); NaN where the table has no valid value."""
        return self._matrix[[self._rows.get(self._space.key(each), -1) for each in architectures]]
