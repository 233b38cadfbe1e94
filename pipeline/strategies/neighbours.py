"""Architectures at random, and architectures near others: what strategies propose from.

All of it happens in canonical form, so two results that differ differ in a choice that matters. Spaces are never
enumerated: they may have more architectures than any list could hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    import numpy as np

    from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value

Move = tuple[str, "Value"]
"""One active choice, made otherwise: its label and the other value."""

_DRAWS = 64


def random_architecture(space: SearchSpace, generator: np.random.Generator) -> Architecture:
    """Uniform over the space's architectures, whatever their number."""
    return space.at(_random_rank(space.size(), generator))


def random_untried(space: SearchSpace, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
    """An architecture whose id isn't among the tried ones; None when there is none.

    Uniform as long as drawing finds one. Where nearly all are tried it is the next one from a random place on,
    which takes at most one step more than there are tried ones.
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


def drawn_untried(space: SearchSpace, tried: Set[str], generator: np.random.Generator) -> Architecture | None:
    """An architecture whose id isn't among the tried ones, drawn choice by choice; None when there is none.

    What a search begins with: of a space with a depth nearly all architectures have the greatest one, so of uniform
    draws hardly any is small, and a front lacks its cheap end.
    """
    for _ in range(_DRAWS):
        made = changed(space, {}, {}, generator)
        if architecture_id(made) not in tried:
            return made
    return random_untried(space, tried, generator)


def moves(space: SearchSpace, architecture: Mapping[str, Value]) -> list[Move]:
    """Every way to make one active choice otherwise, in the order of the choices."""
    active = [choice for choice in space.choices if choice.label in architecture]
    return [
        (choice.label, value) for choice in active for value in choice.values if value != architecture[choice.label]
    ]


def changed(
    space: SearchSpace, architecture: Mapping[str, Value], changes: Mapping[str, Value], generator: np.random.Generator
) -> Architecture:
    """The architecture with some choices made otherwise.

    Choices that become active are drawn at random: with their first values everything that grows would grow alike,
    and all their combinations would be too many to try. Choices that become inactive are dropped.
    """
    made: Architecture = {}
    for choice in space.choices:
        if choice.is_active(made):
            known = changes.get(choice.label, architecture.get(choice.label))
            made[choice.label] = _drawn(choice, generator) if known is None else known
    return made


def mutated(
    space: SearchSpace, architecture: Mapping[str, Value], generator: np.random.Generator, rate: float | None = None
) -> Architecture:
    """The architecture with each active choice made otherwise with a probability; it may come out unchanged.

    Args:
        space: of the architecture.
        architecture: canonical.
        generator: of the draws.
        rate: the probability; by default one over the number of choices that can be made otherwise.
    """
    open_choices = [c for c in space.choices if c.label in architecture and len(c.values) > 1]
    if rate is None:
        rate = 1.0 / max(1, len(open_choices))
    struck = [choice for choice in open_choices if generator.random() < rate]
    return changed(
        space, architecture, {c.label: _drawn(c, generator, architecture[c.label]) for c in struck}, generator
    )


def crossed(
    space: SearchSpace, first: Mapping[str, Value], second: Mapping[str, Value], generator: np.random.Generator
) -> Architecture:
    """Uniform crossover: each active choice as either of the parents has made it.

    Where one parent alone has made a choice, the child takes it from that one; where neither has, since a condition
    is met by one's half and the other's half together, it is drawn.
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
    """Uniform from 0 to size - 1; numpy's own draws end at 64 bits."""
    bits = (size - 1).bit_length()
    while True:
        rank = int.from_bytes(generator.bytes((bits + 7) // 8), "big") >> (-bits % 8)
        if rank < size:
            return rank
