"""What a search space is: a table of choices, the canonical form of an architecture, and NNI's view of both."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import HwnasError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from pipeline.nni_types import ModelSpace

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


class SearchSpace(ABC):
    """Base of all spaces.

    Order of calls: the constructor gets the config's section, the input's (C, H, W) and the number of classes and
    sets `choices`, conditions before what depends on them. A search asks for `model_space()` once; each sample of
    NNI's becomes an architecture through `canonical`, and a network through `build`.
    """

    choices: tuple[Choice, ...]

    @abstractmethod
    def model_space(self) -> ModelSpace:
        """The NNI `ModelSpace` whose labels and values are those of `choices`."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        """A freshly initialised network, drawn from torch's global generator."""

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

    def architectures(self) -> Iterator[Architecture]:
        """Every architecture once, the last choice varying fastest."""

        def extend(index: int, active: Architecture) -> Iterator[Architecture]:
            if index == len(self.choices):
                yield dict(active)
                return
            choice = self.choices[index]
            if not choice.is_active(active):
                yield from extend(index + 1, active)
                return
            for value in choice.values:
                yield from extend(index + 1, {**active, choice.label: value})

        return extend(0, {})

    def sample_count(self) -> int:
        """Number of NNI samples, inactive differences counted: an upper bound of the number of architectures."""
        return math.prod(len(choice.values) for choice in self.choices)


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
