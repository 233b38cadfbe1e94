"""Base of search spaces: choices, architectures in canonical form, and NNI's view of both."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import HwnasError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from latency_models.predictors.operators import Operator
    from pipeline.nni_types import ModelSpace

Value = str | int | float | bool
Architecture = dict[str, Value]
"""An architecture in canonical form: label of each active choice → its value, in the order of the space's choices."""


class ArchitectureError(HwnasError):
    """A mapping isn't an architecture of the space."""


@dataclass(frozen=True)
class Choice:
    """One decision of a search space.

    Attributes:
        label: its name, the same as in NNI. A choice of an activation ends with `activation`; what comes before is
            its place in the network, see `activation_place`.
        values: what may be chosen.
        requires: (label, values) of earlier choices. The choice is active only where each of them is active and has
            one of these values. An inactive choice doesn't change the network.
    """

    label: str
    values: tuple[Value, ...]
    requires: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def is_active(self, earlier: Mapping[str, Value]) -> bool:
        """Whether the choice is active, given the active choices before it."""
        return all(label in earlier and earlier[label] in values for label, values in self.requires)


@dataclass(frozen=True)
class Block:
    """A building block of a network that can be timed on its own.

    Attributes:
        kind: of block, within its space.
        settings: all that the space needs to build it; hashable.
        input_shape: (C, H, W).
        output_shape: (C, H, W).
        operators: its operators, for a latency predictor.
    """

    kind: str
    settings: tuple[Any, ...]
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    operators: tuple[Operator, ...] = field(repr=False)


@dataclass(frozen=True)
class BlockChain:
    """Consecutive blocks as a network, which is timed to learn what operators cost.

    Attributes:
        model: the network.
        input_shape: (C, H, W).
        operators: of the blocks, and of what was added around them.
    """

    model: nn.Module
    input_shape: tuple[int, int, int]
    operators: tuple[Operator, ...]


class SearchSpace(ABC):
    """Base of all search spaces.

    Order of calls: the constructor gets the config's section, the input's (C, H, W) and the number of classes, and
    sets `choices`. A search asks for `model_space()` once; each of NNI's samples becomes an architecture by
    `canonical`, and a network by `build`.

    Attributes:
        choices: all choices, conditions before what depends on them.
        buildable: whether architectures are networks; False for names in a table.
        quantities: whether numbers among the values are quantities, of which 3 and 5 are nearer than 3 and 7, or
            just names.
    """

    choices: tuple[Choice, ...]
    buildable: ClassVar[bool] = True
    quantities: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for old, new in (("pieces", "blocks"), ("probe", "chain")):
            if old in vars(cls):  # else its cost model would silently do without
                raise TypeError(f"{cls.__name__}.{old} is called {new} since hwnas 0.2; see SearchSpace.{new}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of channels that its stages may have, narrowest first; none where nobody tells."""
        return ()

    @abstractmethod
    def model_space(self) -> ModelSpace:
        """NNI's `ModelSpace` with the labels and values of `choices`."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        """Build the network of an architecture, with weights drawn from torch's global generator."""

    def blocks(self, architecture: Mapping[str, Value]) -> tuple[Block, ...] | None:
        """The network's blocks in order, or None where the space has no such description.

        With blocks, a latency predictor learns from the times of chains of blocks, otherwise from whole networks.
        """
        return None

    def key(self, architecture: Mapping[str, Value]) -> str:
        """The key of an architecture in published tables.

        Raises:
            ArchitectureError: there are no tables of this space, or none with this architecture.
        """
        raise ArchitectureError(f"{type(self).__name__} tells no names that a table could have")

    def features(self, architectures: Sequence[Mapping[str, Value]]) -> tuple[npt.NDArray[np.floating], ...] | None:
        """Features for surrogates of the accuracy, or None for those that any space has (`strategies.features`).

        Architectures with near features are expected to have similar accuracies. Own features are worth it where
        different choices make the same network, or where the accuracy depends on structure across choices.

        Args:
            architectures: in canonical form.

        Returns:
            Groups of related columns, each of shape (architectures, columns), scaled so that very different
            architectures are about 1 apart. The columns are the same for any architectures.
        """
        return None

    def chain(self, blocks: Sequence[Block]) -> BlockChain:
        """Build consecutive blocks of a network as a network of their own; all of them are the network itself.

        Raises:
            NotImplementedError: the space has no description by blocks.
        """
        raise NotImplementedError

    def canonical(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture of an NNI sample: its active choices.

        Raises:
            ArchitectureError: an active label is missing, or a value is not among its choices.
        """
        active: Architecture = {}
        for choice in self.choices:
            if choice.is_active(active):
                active[choice.label] = _value(choice, sample)
        return active

    def complete(self, architecture: Mapping[str, Value]) -> dict[str, Value]:
        """An NNI sample of an architecture, with the first value for each inactive choice."""
        active = self.canonical(architecture)
        return {choice.label: active.get(choice.label, choice.values[0]) for choice in self.choices}

    def size(self) -> int:
        """The exact number of architectures."""
        return self._count(0, ())

    def architectures(self) -> Iterator[Architecture]:
        """Yield every architecture once, in the order of ranks."""
        return map(self.at, range(self.size()))

    def at(self, rank: int) -> Architecture:
        """The architecture of a rank, 0 to size() - 1; the last choice varies fastest.

        Raises:
            IndexError: there are fewer architectures.
        """
        if not 0 <= rank < self.size():
            raise IndexError(f"rank {rank} of {self.size()} architectures")
        active: Architecture = {}
        for index, choice in enumerate(self.choices):
            if not choice.is_active(active):
                continue
            for value in choice.values:
                below = self._count(index + 1, self._conditions(index + 1, {**active, choice.label: value}))
                if rank < below:
                    active[choice.label] = value
                    break
                rank -= below
        return active

    def _count(self, index: int, conditions: tuple[tuple[str, Value], ...]) -> int:
        """Number of ways to complete the first `index` choices, given those that later conditions depend on."""
        if index == len(self.choices):
            return 1
        key = (index, conditions)
        if key not in self._counts:
            choice, active = self.choices[index], dict(conditions)
            values = choice.values if choice.is_active(active) else ()
            branches = [{**active, choice.label: value} for value in values] or [active]
            self._counts[key] = sum(self._count(index + 1, self._conditions(index + 1, b)) for b in branches)
        return self._counts[key]

    def _conditions(self, index: int, active: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
        """The active choices that conditions of choices from `index` on depend on."""
        return tuple((label, active[label]) for label in self._asked_from[index] if label in active)

    @cached_property
    def _counts(self) -> dict[tuple[int, tuple[tuple[str, Value], ...]], int]:
        return {}

    @cached_property
    def _asked_from(self) -> list[list[str]]:
        """For each index in `choices`, the labels in conditions from there on."""
        asked: list[list[str]] = [[]]
        for choice in reversed(self.choices):
            asked.append(list(dict.fromkeys([label for label, _ in choice.requires] + asked[-1])))
        return asked[::-1]


def architecture_id(architecture: Mapping[str, Value]) -> str:
    """A short, stable id of an architecture: the first 12 digits of the SHA-256 of its JSON."""
    labels = sorted(architecture)
    text = ",".join(map(_as_json, labels, map(architecture.__getitem__, labels)))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:12]


@lru_cache(maxsize=1 << 14, typed=True)  # typed: 1, 1.0 and True are equal, but not the same in JSON
def _as_json(label: str, value: Value) -> str:
    """A choice as it stands in JSON; the same few are asked for again and again."""
    return f"{json.dumps(label)}:{json.dumps(value)}"


def _value(choice: Choice, sample: Mapping[str, Any]) -> Value:
    if choice.label not in sample:
        raise ArchitectureError(f"the architecture lacks {choice.label}; valid: {_listed(choice.values)}")
    found = sample[choice.label]
    for value in choice.values:
        if value == found and type(value) is type(found):
            return value
    raise ArchitectureError(f"{choice.label}: found {found!r}{nearest(str(found), [str(v) for v in choice.values])}")


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(str(value) for value in values)


def trial_seed(run_seed: int, identity: str) -> int:
    """The seed of a trial, a function of the run's seed and the architecture's id alone."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{identity}".encode()).digest()[:4], "big")


def activations_of(architecture: Mapping[str, Any]) -> dict[str, str]:
    """Map each place (`network`, `stage0`, …) to the activation chosen there."""
    places = {label: activation_place(label) for label in architecture}
    return {place: str(architecture[label]) for label, place in places.items() if place is not None}


def activation_place(label: str) -> str | None:
    """The place whose activation a choice of this label decides; None if it decides something else.

    The label says it, so that a journal can be read without its space: `stage0_activation` decides the activation of
    `stage0`, `activation` that of the whole `network`.
    """
    return label.removesuffix("activation").rstrip("_") or "network" if label.endswith("activation") else None
