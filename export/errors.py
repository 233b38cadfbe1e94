"""What can go wrong between a trained network and a file that can be trusted."""

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
    """A model file that can't be read, or that the checker or ONNX Runtime refuses."""

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
    """A preprocessing record with a wrong field, or images that it does not fit."""


class UnsupportedModuleError(ExportError):
    """The quick graph builder has no rule for this part of a network (the exporter may have one)."""

    def __init__(self, where: str, what: str) -> None:
        self.where = where
        self.what = what
        place = f" at {where!r}" if where else ""
        super().__init__(f"the quick graph builder can't write {what}{place}")


class UnknownActivationError(ExportError):
    """No activation of that name is in the table."""

    exit_code = 2

    def __init__(self, name: str, valid: Iterable[str], more: str = "") -> None:
        self.name = name
        self.valid = tuple(sorted(valid))
        near = difflib.get_close_matches(name, self.valid, n=1)
        self.nearest = near[0] if near else None
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ";"
        super().__init__(f"unknown activation {name!r}{hint} valid: {', '.join(self.valid)}{more}")


class CustomActivationError(ExportError):
    """A user's own activation that can't be one."""

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
    """No calibration method of that name."""

    exit_code = 2

    def __init__(self, name: str, valid: Iterable[str]) -> None:
        self.name = name
        self.valid = tuple(valid)
        near = difflib.get_close_matches(name, self.valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        super().__init__(f"unknown calibration method {name!r}{hint} valid: {', '.join(self.valid)}")


def _one_line(text: str) -> str:
    """Collapse the many-line messages of protobuf, the checker and the runtime."""
    return " ".join(text.split())
