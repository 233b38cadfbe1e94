"""Weights of a trained network on disk, as safetensors with facts on their training; never a pickle."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from latency_models.files import kind_of
from pipeline.errors import CheckpointError
from pipeline.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_MOST_HEADER_BYTES = 10**7


@dataclass(frozen=True)
class Checkpoint:
    """Facts on stored weights.

    Attributes:
        architecture: the trial's id.
        recipe: a digest of all that decides their training.
        accuracy: validation accuracy of these weights, 0 to 1.
        epochs: number of epochs trained.
    """

    architecture: str
    recipe: str
    accuracy: float
    epochs: int


def save(path: Path, model: nn.Module, facts: Checkpoint) -> None:
    """Write weights and facts, whole or not at all.

    Raises:
        CheckpointError: they can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    metadata = {key: str(value) for key, value in vars(facts).items()}
    try:
        with replacing(path) as unfinished:
            save_model(model, str(unfinished), metadata=metadata)
    except SafetensorError as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error


def read_facts(path: Path) -> Checkpoint:
    """Read the facts of a file.

    Raises:
        CheckpointError: it is damaged, or not one of ours.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
        return Checkpoint(
            architecture=facts["architecture"],
            recipe=facts["recipe"],
            accuracy=float(facts["accuracy"]),
            epochs=int(facts["epochs"]),
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of a run: {error}; delete it to train again"
        ) from error


def load_into(path: Path, model: nn.Module, architecture: str) -> Checkpoint:
    """Load the weights of a file into a network.

    Raises:
        CheckpointError: the file is damaged or belongs to another architecture.
    """
    _check_size(path, model)
    facts = read_facts(path)
    if facts.architecture != architecture:
        raise CheckpointError(
            f"{path} holds the weights of {facts.architecture}, not of {architecture}; delete it to train again"
        )
    try:
        load_model(model, str(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path} doesn't fit architecture {architecture}: {first}; delete it to train again"
        ) from error
    return facts


def _check_size(path: Path, model: nn.Module) -> None:
    """Check that a file can hold the weights of a network, before anything of it is read.

    Raises:
        CheckpointError: it is no file, or far larger than the weights.
    """
    most = sum(value.numel() * value.element_size() for value in model.state_dict().values()) + _MOST_HEADER_BYTES
    try:
        seen = path.lstat()
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    if not stat.S_ISREG(seen.st_mode):
        raise CheckpointError(f"{path} is {kind_of(seen.st_mode)}, not a file; delete it to train again")
    if seen.st_size > most:
        raise CheckpointError(
            f"{path} has {seen.st_size} bytes, more than weights of this network take; delete it to train again"
        )
