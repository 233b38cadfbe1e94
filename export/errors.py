"""Errors on the way from a trained network to a file that can be trusted."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class ExportError(Exception):
    """Base of this package's errors: one line for the user, and the exit code of the command that met it."""

    exit_code = 3


class InvalidFileError(ExportError):
    """A model file that can't be read, or that the ONNX checker or ONNX Runtime refuses."""

    def __init__(self, source: Path | str, reason: str) -> None:
        self.source = source
        self.reason = _one_line(reason)
        super().__init__(f"{source} is not a valid ONNX model: {self.reason}")


class BundleError(ExportError):
    """A bundle directory that can't be written, or is not one."""

    def __init__(self, directory: Path | str, reason: str) -> None:
        self.directory = directory
        self.reason = _one_line(reason)
        super().__init__(f"bundle {directory}: {self.reason}")


class PreprocessingError(ExportError):
    """A preprocessing record with a wrong field, or images that don't fit it."""


class UnsupportedModuleError(ExportError):
    """A part of a network that the quick graph builder has no rule for; the exporter may have one."""

    def __init__(self, where: str, what: str) -> None:
        self.where = where
        self.what = what
        place = f" at {where!r}" if where else ""
        super().__init__(f"the quick graph builder can't write {what}{place}")


class UnknownActivationError(ExportError):
    """An activation's name that is not in the table."""

    exit_code = 2

    def __init__(self, name: str, valid: Iterable[str], more: str = "") -> None:
        self.name = name
        self.valid = tuple(sorted(valid))
        hint = did_you_mean(name, self.valid) or ";"
        super().__init__(f"unknown activation {name!r}{hint} valid: {', '.join(self.valid)}{more}")


class CustomActivationError(ExportError):
    """A user's own activation that can't be used as one."""

    exit_code = 2

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = _one_line(reason)
        super().__init__(f"activation {name!r} can't be used: {self.reason}")


class QuantizationError(ExportError):
    """A model that can't be quantised."""

    def __init__(self, reason: str) -> None:
        self.reason = _one_line(reason)
        super().__init__(f"the model can't be quantised: {self.reason}")


class UnknownMethodError(ExportError):
    """A calibration method's name that is not known."""

    exit_code = 2

    def __init__(self, name: str, valid: Iterable[str]) -> None:
        self.name = name
        self.valid = tuple(valid)
        hint = did_you_mean(name, self.valid) or ";"
        super().__init__(f"unknown calibration method {name!r}{hint} valid: {', '.join(self.valid)}")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The words "; did you mean 'x'?" with the nearest valid name; empty where none is near."""
    near = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _one_line(text: str) -> str:
    """Join the many-line messages of protobuf, the checker and the runtime into one line."""
    return " ".join(text.split())
