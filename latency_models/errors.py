"""Errors of measuring and predicting costs, in words for the user."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class CostError(Exception):
    """The base of all errors of this package. `exit_code` is the command line's."""

    exit_code = 2


class InvalidModelError(CostError):
    """A model is missing, empty, truncated or no ONNX, or it can't be run: an unknown operator, unfitting inputs."""

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        self.reason = reason
        super().__init__(f"{model}: {reason}")


class UnknownShapeError(CostError):
    """A cost depends on the shape of a value that the graph leaves open."""


class UncountableOperatorError(UnknownShapeError):
    """A cost depends on operators for which nobody has written down what they do."""

    def __init__(self, operators: Iterable[str]) -> None:
        self.operators = tuple(operators)
        super().__init__(f"the multiply-accumulates of {', '.join(self.operators)} can't be counted")


class InputError(CostError):
    """Sizes or values that were given for a model's inputs don't fit it."""


class DeviceError(CostError):
    """An unknown device, or a setting that the device doesn't have."""


class TimerError(CostError):
    """A timer can't be started or reached, or ended in the middle."""


class MixedEnvironmentsError(CostError):
    """Measurements belong to different environments, so they can't be compared or combined."""


class ObjectiveUnavailableError(CostError):
    """A device can't measure an objective of the search."""

    def __init__(self, objective: str, device: str, reason: str) -> None:
        self.objective = objective
        self.device = device
        self.reason = reason
        super().__init__(f"objective {objective!r} can't be had on device {device!r}: {reason}")


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> str:
    """A sentence on an unknown name: the name, the nearest match, and all valid names."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint}; valid: {', '.join(names)}"
