"""Shared weights and the state of their training on disk: safetensors with facts as JSON, never a pickle."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from latency_models.files import kind_of
from pipeline.errors import EXIT_CHECK_FAILED, HwnasError
from pipeline.evaluators.supernet.shared_weights import SharedWeights
from pipeline.evaluators.supernet.training import Moments, SupernetState
from pipeline.files import check_plain, replacing

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_WEIGHT, _FIRST, _SECOND = "weight/", "first/", "second/"
_MOST_HEADER_BYTES = 10**7
_COPIES = 3
"""Weights, first and second moments."""


class SupernetFileError(HwnasError):
    """A file of shared weights that is missing or damaged."""

    exit_code = EXIT_CHECK_FAILED


class OtherSupernetError(HwnasError):
    """Shared weights of another space, or trained by another recipe."""


def save(path: Path, shared: SharedWeights, state: SupernetState, recipe: str) -> None:
    """Write shared weights and how far their training is, whole or not at all.

    Args:
        path: of the file.
        shared: the weights.
        state: of their training.
        recipe: a digest of all that decides the training.

    Raises:
        SupernetFileError: it can't be written.
    """
    tensors = {f"{_WEIGHT}{place}": parameter.detach() for place, parameter in shared.parameters.items()}
    for place, moments in state.moments.items():
        tensors[f"{_FIRST}{place}"], tensors[f"{_SECOND}{place}"] = moments.first, moments.second
    facts = {
        "recipe": recipe,
        "epoch": state.epoch,
        "losses": state.losses,
        "steps": {place: moments.steps for place, moments in state.moments.items()},
    }
    try:
        with replacing(path) as unfinished:
            save_file(
                {name: values.contiguous() for name, values in tensors.items()},
                unfinished,
                {"facts": json.dumps(facts)},
            )
    except SafetensorError as error:
        raise SupernetFileError(f"{path} can't be written: {error}") from error


def load_into(path: Path, shared: SharedWeights, recipe: str | None = None) -> SupernetState:
    """Load a file's values into shared weights of the same space.

    Args:
        path: of the file.
        shared: freshly made for the space.
        recipe: the digest that the file must have; None takes any.

    Returns:
        How far the training was.

    Raises:
        SupernetFileError: the file is missing or damaged.
        OtherSupernetError: it is of another space or recipe.
    """
    _check_size(path, shared)
    wanted = {place: tuple(parameter.shape) for place, parameter in shared.parameters.items()}
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            if recipe is not None and facts["recipe"] != recipe:
                raise OtherSupernetError(f"{path} was trained by another config; delete it to train anew")
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        places = {name.removeprefix(_WEIGHT): name for name in found if name.startswith(_WEIGHT)}
        if {place: tuple(found[name].shape) for place, name in places.items()} != wanted:
            raise OtherSupernetError(f"{path} has the weights of another space")
        state = _state(facts, found, shared)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SupernetFileError(
            f"{path} is damaged or no file of shared weights: {error}; delete it to train anew"
        ) from error
    with torch.no_grad():
        for place, parameter in shared.parameters.items():
            parameter.copy_(found[f"{_WEIGHT}{place}"])
    return state


def read_weights(path: Path) -> SharedWeights:
    """Read the shared weights alone; whether a network fits them shows when it is cut from them.

    Raises:
        SupernetFileError: the file is missing, damaged, or none of shared weights.
    """
    try:
        check_plain(path)
        with safe_open(str(path), framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(_WEIGHT)]  # noqa: SIM118 - no mapping
            tensors = {name.removeprefix(_WEIGHT): file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise SupernetFileError(f"{path} is missing, damaged, or no file of shared weights: {error}") from error
    if not tensors:
        raise SupernetFileError(f"{path} has no shared weights")
    return SharedWeights(tensors)


def _state(facts: dict[str, Any], found: dict[str, Tensor], shared: SharedWeights) -> SupernetState:
    """The state of a training, checked: a stranger may have written it.

    Raises:
        ValueError: it can't be one.
    """
    epoch, losses, steps = facts["epoch"], facts["losses"], facts["steps"]
    if not (type(epoch) is int and epoch >= 0 and len(losses) == epoch):
        raise ValueError("its epochs and its losses don't belong together")
    moments = {}
    for place, count in steps.items():
        first, second = found[f"{_FIRST}{place}"], found[f"{_SECOND}{place}"]
        if not (type(count) is int and count >= 0 and first.shape == second.shape == shared.parameters[place].shape):
            raise ValueError(f"what the optimizer remembers of {place} doesn't fit")
        moments[place] = Moments(count, first, second)
    return SupernetState(epoch, [tuple(float(loss) for loss in each) for each in losses], moments)


def _check_size(path: Path, shared: SharedWeights) -> None:
    """Check that a file can be one of these weights, before anything of it is read.

    Raises:
        SupernetFileError: it is no file, or far larger.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in shared.parameters.values())
    try:
        seen = path.lstat()
    except OSError as error:
        raise SupernetFileError(f"{path} can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(seen.st_mode):
        raise SupernetFileError(f"{path} is {kind_of(seen.st_mode)}, not a file; delete it to train anew")
    if seen.st_size > _COPIES * weights + _MOST_HEADER_BYTES:
        raise OtherSupernetError(f"{path} has {seen.st_size} bytes, more than the weights of this space take")
