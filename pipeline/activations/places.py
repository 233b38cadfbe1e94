"""Activation modules of a network, and the decisions of its architecture that they belong to."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from export.activations import table as activations
from export.activations.modules import sites_of
from pipeline.spaces.base import activation_place, activations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from pipeline.spaces.base import Architecture, SearchSpace, Value

# Different types, so that one of them differs from whatever a place has.
_STAND_INS = ("relu", "tanh")


def places_of(space: SearchSpace, architecture: Architecture) -> dict[str, str]:
    """Map the path of each activation module to the place that decides it; modules that the space fixes are left out.

    A place's modules are those that change when the place gets another activation. Where the space offers no other, a
    copy of the space with one more value is used.
    """
    with torch.random.fork_rng(devices=[]):
        before = _kinds(space.build(architecture))
        owners: dict[str, str] = {}
        for place in activations_of(architecture):
            for other in _others(space, architecture, label_of(architecture, place)):
                after = _kinds(other)
                changed = [path for path in before if path in after and before[path] != after[path]]
                owners.update(dict.fromkeys(changed, place))
                if changed:
                    break
        return {path: owners[path] for path in before if path in owners}


def label_of(architecture: Mapping[str, Value], place: str) -> str:
    """The label of a place's decision."""
    return next(label for label in architecture if activation_place(label) == place)


def name_of(module: nn.Module, units: int) -> str:
    """The activation's name in the table, else that of its type."""
    rows = [(name, row.create(units)) for name, row in activations.ACTIVATIONS.items()]
    same_type = [(name, made) for name, made in rows if type(made) is type(module)]
    exact = [name for name, made in same_type if repr(made) == repr(module)]
    return next(iter([*exact, *(name for name, _ in same_type), type(module).__name__]))


def _others(space: SearchSpace, architecture: Architecture, label: str) -> Iterator[nn.Module]:
    """Build the network with other activations in one place, as far as the space accepts them."""
    values = next(choice.values for choice in space.choices if choice.label == label)
    for value in values:
        if value != architecture[label]:
            yield space.build({**architecture, label: value})
    for value in _STAND_INS:
        if value not in values:
            try:
                yield _with_value(space, label, value).build({**architecture, label: value})
            except (KeyError, ValueError):
                continue


def _with_value(space: SearchSpace, label: str, value: Value) -> SearchSpace:
    wider = copy.copy(space)
    wider.choices = tuple(
        replace(choice, values=(*choice.values, value)) if choice.label == label else choice for choice in space.choices
    )
    return wider


def _kinds(network: nn.Module) -> dict[str, tuple[str, str]]:
    """Map each activation module's path to its type and description, which tell it from others."""
    return {path: (type(module).__qualname__, repr(module)) for path, module in sites_of(network).items()}
