"""Architectures as rows of whole numbers, thousands at a time: what pools of candidates are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.spaces.base import Architecture, Choice, Value

Codes = npt.NDArray[np.int16]
"""(architectures, choices): the place of each choice's value, -1 where the choice is inactive."""


class IntegerCodes:
    """Codes of one space's architectures, and what can be done with them at once.

    Everything here is canonical: rows differ only in choices that matter.

    Attributes:
        choices: of the space.
        sizes: (choices,), how many values each has.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = tuple(choices)
        self.sizes = np.array([len(choice.values) for choice in self.choices], dtype=np.int16)
        self._places = [{_typed(v): n for n, v in enumerate(choice.values)} for choice in self.choices]
        column = {choice.label: n for n, choice in enumerate(self.choices)}
        self._conditions = [
            [(column[label], self._listed(column[label], values)) for label, values in choice.requires]
            for choice in self.choices
        ]

    def _listed(self, column: int, values: Sequence[Value]) -> npt.NDArray[np.bool_]:
        """For each place of a column whether its value is one of these; the last entry, -1, is for inactive."""
        wanted = {_typed(value) for value in values}
        return np.array([_typed(value) in wanted for value in self.choices[column].values] + [False])

    def codes(self, architectures: Sequence[Mapping[str, Value]]) -> Codes:
        """Of canonical architectures."""
        found = np.full((len(architectures), len(self.choices)), -1, dtype=np.int16)
        for row, architecture in enumerate(architectures):
            for column, choice in enumerate(self.choices):
                if choice.label in architecture:
                    found[row, column] = self._places[column][_typed(architecture[choice.label])]
        return found

    def architectures(self, codes: Codes) -> list[Architecture]:
        """The inverse of `codes`."""
        pairs = [(choice.label, choice.values) for choice in self.choices]
        return [
            {label: values[place] for (label, values), place in zip(pairs, row, strict=True) if place >= 0}
            for row in codes.tolist()
        ]

    def every(self) -> Codes:
        """All architectures, in the order of their ranks in the space."""
        codes = np.full((1, len(self.choices)), -1, dtype=np.int16)
        for column in range(len(self.choices)):
            times = np.where(self._active(codes, column), self.sizes[column], 0)
            codes = np.repeat(codes, np.maximum(times, 1), axis=0)
            ends = np.cumsum(np.maximum(times, 1))
            within = np.arange(len(codes)) - np.repeat(ends - np.maximum(times, 1), np.maximum(times, 1))
            codes[:, column] = np.where(np.repeat(times > 0, np.maximum(times, 1)), within, -1)
        return codes

    def drawn(self, count: int, generator: np.random.Generator) -> Codes:
        """Random ones, choice by choice, some of them perhaps alike.

        Not uniform over architectures: of a space with a depth, nearly all have the greatest one.
        """
        return self._settled(np.full((count, len(self.choices)), -1, dtype=np.int16), generator)

    def mutated(self, parents: Codes, changes: npt.NDArray[np.int64], generator: np.random.Generator) -> Codes:
        """Children with one active choice made otherwise, as often as `changes` (parents,) says.

        Choices that become active are drawn at random, those that become inactive are dropped.
        """
        children = parents.copy()
        for step in range(int(changes.max(initial=0))):
            rows = np.flatnonzero(changes > step)
            children[rows] = self._settled(self._one_otherwise(children[rows], generator), generator)
        return children

    def _one_otherwise(self, codes: Codes, generator: np.random.Generator) -> Codes:
        lots = np.where((codes >= 0) & (self.sizes > 1), generator.random(codes.shape), -1.0)
        columns = lots.argmax(axis=1)
        rows = np.flatnonzero(lots.max(axis=1, initial=-1.0) >= 0)
        sizes = self.sizes[columns[rows]]
        steps = 1 + (generator.random(len(rows)) * (sizes - 1)).astype(np.int16)
        codes[rows, columns[rows]] = (codes[rows, columns[rows]] + steps) % sizes
        return codes

    def _settled(self, codes: Codes, generator: np.random.Generator) -> Codes:
        """With the inactive choices dropped and the missing ones drawn."""
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
    """Something hashable for each row, equal where the rows are."""
    content, width = codes.tobytes(), codes.shape[1] * codes.itemsize
    return [content[row * width : (row + 1) * width] for row in range(len(codes))]


def _typed(value: Value) -> tuple[type, Value]:
    """1, 1.0 and True are equal, but different values of a choice."""
    return type(value), value
