"""Weights that all networks of a space share: each network's are slices of the largest ones at the same place.

The place of a parameter is its path within the network, with the type of each module on it, so that two kinds of block
at one place have weights of their own. A narrower layer has the first channels, a smaller kernel the middle of the
largest (Cai et al., Once-for-all, 2020). That is a matter of names and shapes alone: any space has shared weights.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.errors import HwnasError
from pipeline.evaluators.supernet.sampling import quantities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value

_SEED = 0


class SharedWeightsError(HwnasError):
    """A network of another space: it has parameters that the shared weights lack."""


class SharedWeights:
    """The largest parameter of each place, from which the networks' own are cut.

    Args:
        tensors: place → values; of networks of one space.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.parameters = {place: nn.Parameter(values) for place, values in tensors.items()}

    @classmethod
    def of(cls, space: SearchSpace) -> SharedWeights:
        """Freshly drawn weights for a space, from torch's global generator.

        Each place has the values of the first network that needs it at its largest size.
        """
        largest: dict[str, Tensor] = {}
        for architecture in covering(space):
            network = space.build(architecture)
            for name, place in _places(network):
                own, known = network.get_parameter(name).detach(), largest.get(place)
                if known is None:
                    largest[place] = own
                elif any(a > b for a, b in zip(own.shape, known.shape, strict=True)):
                    largest[place] = _enlarged(known, own)
        return cls(largest)

    def to(self, device: torch.device) -> SharedWeights:
        """The same weights on a device."""
        return SharedWeights({place: parameter.detach().to(device) for place, parameter in self.parameters.items()})

    def slices(self, network: nn.Module) -> dict[str, Tensor]:
        """Name of each of the network's parameters → its slice of the shared weights, a leaf that gradients end at.

        Raises:
            SharedWeightsError: the network has a parameter that isn't there, or is larger.
        """
        return {
            name: self.parameters[place].detach()[window].requires_grad_()
            for name, place, window in self._windows(network)
        }

    def add_gradients(self, network: nn.Module, gradients: Mapping[str, Tensor | None]) -> None:
        """Add the gradients of a network's slices to those of the shared weights.

        Args:
            network: whose slices they are.
            gradients: name of each of its parameters → gradient; None where it has no part in the loss.
        """
        for name, place, window in self._windows(network):
            gradient, whole = gradients[name], self.parameters[place]
            if gradient is None:
                continue
            if whole.grad is None:
                whole.grad = torch.zeros_like(whole)
            whole.grad[window].add_(gradient)

    def copy_into(self, network: nn.Module) -> None:
        """Give a network the shared values.

        Raises:
            SharedWeightsError: as for `slices`.
        """
        with torch.no_grad():
            for name, values in self.slices(network).items():
                network.get_parameter(name).copy_(values)

    def _windows(self, network: nn.Module) -> Iterator[tuple[str, str, tuple[slice, ...]]]:
        for name, place in _places(network):
            whole, shape = self.parameters.get(place), network.get_parameter(name).shape
            if (
                whole is None
                or whole.dim() != len(shape)
                or any(wanted > there for wanted, there in zip(shape, whole.shape, strict=True))
            ):
                there = "none" if whole is None else tuple(whole.shape)
                raise SharedWeightsError(
                    f"the shared weights have {there} at {place}, the network needs {tuple(shape)}"
                )
            yield name, place, _window(whole.shape, shape)


def covering(space: SearchSpace) -> Iterator[Architecture]:
    """Architectures that show each place at its largest: all quantities at their largest, names drawn at random.

    What is at a place may depend on several names, such as a block's kind and whether it has squeeze-excitation. The
    drawing goes on until any three names were together about three times, wherever they are.
    """
    draws = random.Random(_SEED)  # noqa: S311 - a sample, no secret
    named = [choice for choice in space.choices if _largest(choice) is None]
    counts = sorted((len(choice.values) for choice in named), reverse=True)
    fixed = {choice.label: _largest(choice) for choice in space.choices}
    for _ in range(10 * math.prod(counts[:3]) if named else 1):
        yield space.canonical({**fixed, **{choice.label: draws.choice(choice.values) for choice in named}})


def _largest(choice: Choice) -> Value | None:
    """The largest of quantities; None for names."""
    numbers = quantities(choice)
    return None if numbers is None else choice.values[numbers.index(max(numbers))]


def _places(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Name of each parameter, and its place; one that is used twice has one."""
    return _below(network, "", "")


def _below(module: nn.Module, path: str, place: str) -> Iterator[tuple[str, str]]:
    for name, _ in module.named_parameters(recurse=False):
        yield f"{path}{name}", f"{place}{name}"
    for name, child in module.named_children():
        yield from _below(child, f"{path}{name}.", f"{place}{name}:{type(child).__name__}.")


def _window(there: torch.Size, wanted: torch.Size) -> tuple[slice, ...]:
    """The first of the channels, and the middle of what comes after."""
    starts = [
        0 if number < 2 else (whole - part) // 2 for number, (whole, part) in enumerate(zip(there, wanted, strict=True))
    ]
    return tuple(slice(start, start + part) for start, part in zip(starts, wanted, strict=True))


def _enlarged(one: Tensor, other: Tensor) -> Tensor:
    """Values as large as the larger of two in each direction: those of `other`, and of `one` where it has more."""
    shape = torch.Size(max(a, b) for a, b in zip(one.shape, other.shape, strict=True))
    if other.shape == shape:
        return other
    whole = other.new_zeros(shape)
    whole[_window(shape, one.shape)] = one
    whole[_window(shape, other.shape)] = other
    return whole
