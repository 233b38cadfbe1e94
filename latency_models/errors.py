"""What can go wrong when a cost is asked for, in words for the user."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class CostError(Exception):
    """A cost that can't be had. `exit_code` is the one that the command line ends with."""

    exit_code = 2


class InvalidModelError(CostError):
    """No loadable ONNX model, or one that can't be run: missing, empty, truncated, unknown op."""

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        self.reason = reason
        super().__init__(f"{model}: {reason}")


class UnknownShapeError(CostError):
    """An exact cost needs the shape of a value, and the graph doesn't settle it."""


class DeviceError(CostError):
    """An unknown device, or a setting that the device doesn't have."""


class TimerError(CostError):
    """What runs models under the clock can't be started or reached, or ended in the middle."""


class MixedEnvironmentsError(CostError):
    """Measurements of different environments, which can't be compared or put together."""


class ObjectiveUnavailableError(CostError):
    """The device can't give an objective that was asked for."""

    def __init__(self, objective: str, device: str, reason: str) -> None:
        self.objective = objective
        self.device = device
        self.reason = reason
        super().__init__(f"objective {objective!r} can't be had on device {device!r}: {reason}")


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> str:
    """One sentence on an unknown name: what was found, what is valid, and the nearest match."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint}; valid: {', '.join(names)}"
