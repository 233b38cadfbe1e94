"""What a search space is: a table of choices, the canonical form of an architecture, and NNI's view of both."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import HwnasError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from latency_models.predictors.operators import Operator
    from pipeline.nni_types import ModelSpace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import nn

from typing import TYPE_CHECKING

Value = str | int | float | bool
Architecture = dict[str, Value]
"""One point of a space in canonical form: active label → chosen value, in the order of the space's choices."""


class ArchitectureError(HwnasError):
    """A mapping that is no architecture of the space."""


@dataclass(frozen=True)
class Choice:
    """One decision.

    Attributes:
        label: NNI's label.
        values: what may be chosen.
        requires: the decision is active only where each of these earlier labels is active and has one of the
            named values. An inactive decision doesn't change the network.
    """

    label: str
    values: tuple[Value, ...]
    requires: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def is_active(self, earlier: Mapping[str, Value]) -> bool:
        """Whether it matters, given the active decisions before it."""
        return all(label in earlier and earlier[label] in values for label, values in self.requires)


@dataclass(frozen=True)
class Piece:
    """A part of a network that can be timed on its own.

    Attributes:
        kind: what it is within its space.
        settings: what the space needs to build it; hashable.
        input_shape: (C, H, W).
        output_shape: (C, H, W).
        operators: what it does, as a cost model sees it.
    """

    kind: str
    settings: tuple[Any, ...]
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    operators: tuple[Operator, ...] = field(repr=False)


@dataclass(frozen=True)
class Probe:
    """A network that is timed to learn what its operators cost."""

    model: nn.Module
    input_shape: tuple[int, int, int]
    operators: tuple[Operator, ...]


class SearchSpace(ABC):
    """Base of all spaces.

    Order of calls: the constructor gets the config's section, the input's (C, H, W) and the number of classes and
    sets `choices`, conditions before what depends on them. A search asks for `model_space()` once; each sample of
    NNI's becomes an architecture through `canonical`, and a network through `build`.

    Attributes:
        choices: all decisions, conditions before what depends on them.
        buildable: whether architectures are networks; False for names in a table.
        quantities: whether numbers among the values are quantities, of which 3 and 5 are nearer than 3 and 7; False
            where they are names.
    """

    choices: tuple[Choice, ...]
    buildable: ClassVar[bool] = True
    quantities: ClassVar[bool] = True

    @abstractmethod
    def model_space(self) -> ModelSpace:
        """The NNI `ModelSpace` whose labels and values are those of `choices`."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        """A freshly initialised network, drawn from torch's global generator."""

    def pieces(self, architecture: Mapping[str, Value]) -> tuple[Piece, ...] | None:
        """The network's pieces in order, None where the space doesn't tell them.

        A cost model of a space that tells them is learnt from the times of pieces, otherwise from whole networks.
        """
        return None

    def key(self, architecture: Mapping[str, Value]) -> str:
        """The name that a published table gives an architecture.

        Raises:
            ArchitectureError: tables know nothing of this space, or not of this architecture.
        """
        raise ArchitectureError(f"{type(self).__name__} tells no names that a table could have")

    def features(self, architectures: Sequence[Mapping[str, Value]]) -> tuple[npt.NDArray[np.floating], ...] | None:
        """What a surrogate of the accuracy should see of architectures, None for what any space's choices tell.

        Strategies that model the accuracy call two architectures near when these are. Worth telling where different
        choices make the same network, or where effects are of a structure that single choices don't show.

        Args:
            architectures: in canonical form.

        Returns:
            Groups of columns (architectures, columns) that belong together, scaled so that architectures that differ
            much are about 1 apart; as many columns for any architectures.
        """
        return None

    def probe(self, chain: Sequence[Piece]) -> Probe:
        """Consecutive pieces of a network as a network of their own; with all pieces, the network itself.

        Raises:
            NotImplementedError: the space tells no pieces.
        """
        raise NotImplementedError

    def canonical(self, sample: Mapping[str, Any]) -> Architecture:
        """An NNI sample, or an architecture, without its inactive choices.

        Raises:
            ArchitectureError: an active label is missing, or a value is not among its choices.
        """
        active: Architecture = {}
        for choice in self.choices:
            if choice.is_active(active):
                active[choice.label] = _value(choice, sample)
        return active

    def complete(self, architecture: Mapping[str, Value]) -> dict[str, Value]:
        """An NNI sample: the architecture with the first value for each inactive label."""
        active = self.canonical(architecture)
        return {choice.label: active.get(choice.label, choice.values[0]) for choice in self.choices}

    def size(self) -> int:
        """The exact number of architectures."""
        return self._count(0, ())

    def architectures(self) -> Iterator[Architecture]:
        """Every architecture once, the last choice varying fastest."""
        return map(self.at, range(self.size()))

    def at(self, rank: int) -> Architecture:
        """The architecture of a rank, 0 to size() - 1, the last choice varying fastest.

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
        """Ways to complete the first `index` choices, of which only those named in later conditions matter."""
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
        """The part of the earlier choices that a choice from `index` on depends on."""
        return tuple((label, active[label]) for label in self._asked_from[index] if label in active)

    @cached_property
    def _counts(self) -> dict[tuple[int, tuple[tuple[str, Value], ...]], int]:
        return {}

    @cached_property
    def _asked_from(self) -> list[list[str]]:
        """For each place in `choices`: the labels that conditions from there on name, in order."""
        asked: list[list[str]] = [[]]
        for choice in reversed(self.choices):
            asked.append(list(dict.fromkeys([label for label, _ in choice.requires] + asked[-1])))
        return asked[::-1]


def architecture_id(architecture: Mapping[str, Value]) -> str:
    """A short, stable name: the start of the SHA-256 of the canonical JSON."""
    text = json.dumps(dict(architecture), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
    """The training seed: a function of the run's seed and the architecture alone."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{identity}".encode()).digest()[:4], "big")


def activations_of(architecture: Mapping[str, Any]) -> dict[str, str]:
    """Where → activation: the architecture's choices of activations alone."""
    return {
        label.removesuffix("activation").rstrip("_") or "network": str(value)
        for label, value in architecture.items()
        if label.endswith("activation")
    }
