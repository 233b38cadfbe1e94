"""Integer codes: thousands of architectures as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.spaces.base import Architecture, Choice, Value

Codes = npt.NDArray[np.int16]
"""(architectures, choices): the index of each choice's value, -1 where the choice is inactive."""


class IntegerEncoder:
    """Encodes one space's architectures as rows of integers, and samples and mutates these.

    All codes are in canonical form: rows differ in active choices only.

    Attributes:
        choices: of the space.
        sizes: (choices,), the number of values of each.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = tuple(choices)
        self.sizes = np.array([len(choice.values) for choice in self.choices], dtype=np.int16)
        self._indices = [{_typed(v): n for n, v in enumerate(choice.values)} for choice in self.choices]
        column = self._columns = {choice.label: n for n, choice in enumerate(self.choices)}
        self._conditions = [
            [(column[label], self._listed(column[label], values)) for label, values in choice.requires]
            for choice in self.choices
        ]

    def _listed(self, column: int, values: Sequence[Value]) -> npt.NDArray[np.bool_]:
        """Mask over a choice's values: which are among the given ones; the last entry, index -1, is for inactive."""
        wanted = {_typed(value) for value in values}
        return np.array([_typed(value) in wanted for value in self.choices[column].values] + [False])

    def encode(self, architectures: Sequence[Mapping[str, Value]]) -> Codes:
        """Codes of canonical architectures."""
        rows = []
        for architecture in architectures:
            row = [-1] * len(self.choices)
            for label, value in architecture.items():
                if label in self._columns:
                    column = self._columns[label]
                    row[column] = self._indices[column][type(value), value]
            rows.append(row)
        return np.array(rows, dtype=np.int16).reshape(len(rows), len(self.choices))

    def decode(self, codes: Codes) -> list[Architecture]:
        """Architectures of codes: the inverse of `encode`."""
        pairs = [(choice.label, choice.values) for choice in self.choices]
        return [
            {label: values[place] for (label, values), place in zip(pairs, row, strict=True) if place >= 0}
            for row in codes.tolist()
        ]

    def every(self) -> Codes:
        """Codes of all architectures, in the order of their ranks in the space."""
        codes = np.full((1, len(self.choices)), -1, dtype=np.int16)
        for column in range(len(self.choices)):
            times = np.where(self._active(codes, column), self.sizes[column], 0)
            codes = np.repeat(codes, np.maximum(times, 1), axis=0)
            ends = np.cumsum(np.maximum(times, 1))
            within = np.arange(len(codes)) - np.repeat(ends - np.maximum(times, 1), np.maximum(times, 1))
            codes[:, column] = np.where(np.repeat(times > 0, np.maximum(times, 1)), within, -1)
        return codes

    def sample(self, count: int, generator: np.random.Generator) -> Codes:
        """Random codes, each choice uniform over its values; some may be equal.

        Not uniform over architectures, of which nearly all have the greatest depth where there is one.
        """
        return self._completed(np.full((count, len(self.choices)), -1, dtype=np.int16), generator)

    def mutate(self, parents: Codes, changes: npt.NDArray[np.int64], generator: np.random.Generator) -> Codes:
        """Copies of the parents, each with `changes` (parents,) times one active choice changed.

        Choices that become active are drawn at random, those that become inactive are dropped.
        """
        children = parents.copy()
        for step in range(int(changes.max(initial=0))):
            rows = np.flatnonzero(changes > step)
            children[rows] = self._completed(self._with_one_change(children[rows], generator), generator)
        return children

    def _with_one_change(self, codes: Codes, generator: np.random.Generator) -> Codes:
        lots = np.where((codes >= 0) & (self.sizes > 1), generator.random(codes.shape), -1.0)
        columns = lots.argmax(axis=1)
        rows = np.flatnonzero(lots.max(axis=1, initial=-1.0) >= 0)
        sizes = self.sizes[columns[rows]]
        steps = 1 + (generator.random(len(rows)) * (sizes - 1)).astype(np.int16)
        codes[rows, columns[rows]] = (codes[rows, columns[rows]] + steps) % sizes
        return codes

    def _completed(self, codes: Codes, generator: np.random.Generator) -> Codes:
        """Codes with inactive choices dropped and missing ones drawn."""
        drawn = (generator.random(codes.shape) * self.sizes).astype(np.int16)
        for column in range(codes.shape[1]):
            own = codes[:, column]
            filled = np.where(own < 0, drawn[:, column], own)
            codes[:, column] = np.where(self._active(codes, column), filled, -1)
        return codes

    def _active(self, codes: Codes, column: int) -> npt.NDArray[np.bool_]:
        active = np.ones(len(codes), dtype=bool)
        for earlier, listed in self._conditions[column]:
            active &= listed[codes[:, earlier]]
        return active


def keys(codes: Codes) -> list[bytes]:
    """A hashable key of each row; keys are equal where rows are."""
    content, width = codes.tobytes(), codes.shape[1] * codes.itemsize
    return [content[row * width : (row + 1) * width] for row in range(len(codes))]


def _typed(value: Value) -> tuple[type, Value]:
    """A value with its type: 1, 1.0 and True are equal, but different values of a choice."""
    return type(value), value
