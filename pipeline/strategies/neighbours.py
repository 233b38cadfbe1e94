"""Random architectures, neighbours, mutation and crossover.

All architectures are in canonical form, so different results differ in an active choice. Spaces are never enumerated:
they may have more architectures than any list could hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    import numpy as np

    from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value

Move = tuple[str, "Value"]
"""A change of one active choice: its label and its new value."""

_DRAWS = 64


def random_architecture(space: SearchSpace, generator: np.random.Generator) -> Architecture:
    """Draw an architecture uniformly from the space, whatever its size."""
    return space.at(_random_rank(space.size(), generator))


def untried_at_random(space: SearchSpace, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
    """Draw an untried architecture, uniform over architectures; None when all were tried.

    Where nearly all were tried, it is the next untried one from a random rank on, which takes at most one step more
    than there are tried ones.
    """
    size = space.size()
    for _ in range(_DRAWS):
        drawn = space.at(_random_rank(size, generator))
        if architecture_id(drawn) not in tried:
            return drawn
    start = _random_rank(size, generator)
    for step in range(min(size, len(tried) + 1)):
        found = space.at((start + step) % size)
        if architecture_id(found) not in tried:
            return found
    return None


def untried_by_choice(space: SearchSpace, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
    """Draw an untried architecture, each choice uniform over its values; None when all were tried.

    Searches begin with these: nearly all architectures have the greatest depth, so that among uniform draws hardly
    any is small, and a front lacks its cheap end.
    """
    for _ in range(_DRAWS):
        made = change(space, {}, {}, generator)
        if architecture_id(made) not in tried:
            return made
    return untried_at_random(space, tried, generator)


def moves(space: SearchSpace, architecture: Mapping[str, Value]) -> list[Move]:
    """All changes of one active choice, in the order of the choices."""
    active = [choice for choice in space.choices if choice.label in architecture]
    return [
        (choice.label, value) for choice in active for value in choice.values if value != architecture[choice.label]
    ]


def change(
    space: SearchSpace, architecture: Mapping[str, Value], changes: Mapping[str, Value], generator: np.random.Generator
) -> Architecture:
    """The architecture with some choices changed.

    Choices that become active are drawn at random: with their first values all grown networks would grow alike.
    Choices that become inactive are dropped.
    """
    made: Architecture = {}
    for choice in space.choices:
        if choice.is_active(made):
            known = changes.get(choice.label, architecture.get(choice.label))
            made[choice.label] = _drawn(choice, generator) if known is None else known
    return made


def mutate(
    space: SearchSpace, architecture: Mapping[str, Value], generator: np.random.Generator, rate: float | None = None
) -> Architecture:
    """A mutant of the architecture: each active choice is changed with a probability, perhaps none.

    Args:
        space: of the architecture.
        architecture: canonical.
        generator: draws the changes.
        rate: the probability; by default one over the number of active choices with several values.
    """
    open_choices = [c for c in space.choices if c.label in architecture and len(c.values) > 1]
    if rate is None:
        rate = 1.0 / max(1, len(open_choices))
    mutated = [choice for choice in open_choices if generator.random() < rate]
    return change(
        space, architecture, {c.label: _drawn(c, generator, architecture[c.label]) for c in mutated}, generator
    )


def crossover(
    space: SearchSpace, first: Mapping[str, Value], second: Mapping[str, Value], generator: np.random.Generator
) -> Architecture:
    """Cross two parents uniformly: each active choice of the child is one parent's, at random.

    A choice that is active in one parent alone comes from that one. One that is active in neither is drawn; that
    happens where the child meets a condition by choices of both.
    """
    made: Architecture = {}
    for choice in space.choices:
        if not choice.is_active(made):
            continue
        candidates = [parent[choice.label] for parent in (first, second) if choice.label in parent]
        made[choice.label] = (
            candidates[generator.integers(len(candidates))] if candidates else _drawn(choice, generator)
        )
    return made


def _drawn(choice: Choice, generator: np.random.Generator, other_than: Value | None = None) -> Value:
    values = [value for value in choice.values if other_than is None or value != other_than]
    return values[int(generator.integers(len(values)))]


def _random_rank(size: int, generator: np.random.Generator) -> int:
    """Draw uniformly from 0 to size - 1; numpy's own draws end at 64 bits."""
    bits = (size - 1).bit_length()
    while True:
        rank = int.from_bytes(generator.bytes((bits + 7) // 8), "big") >> (-bits % 8)
        if rank < size:
            return rank
