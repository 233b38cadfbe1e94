"""Parts of `benchmarks/` for tests."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from helpers.places import REPOSITORY

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = REPOSITORY / "benchmarks"


def scripts(*names: str) -> list[ModuleType]:
    """Modules of that folder, imported as when one of its scripts runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), str(FOLDER / "studies"), *sys.path])
        return [importlib.import_module(name) for name in names]
