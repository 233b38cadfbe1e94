from __future__ import annotations

import os
from pathlib import Path

import pytest

from latency_models.timing import reference_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, with calibrations that are as short as they get."""
    monkeypatch.setattr(reference_store, "_CALIBRATION_S", 0.01)
    monkeypatch.setattr(reference_store, "_SESSIONS", 2)
    return tmp_path / "data" / "references.json"


@pytest.fixture(scope="session")
def onnx_models() -> Path:
    """The folder of real models, where the checkout has one beside it."""
    default = Path(__file__).parents[2].parent / "shared"
    folder = Path(os.environ.get("HWNAS_SHARED", default)) / "data" / "onnx_models"
    if not folder.is_dir():
        pytest.skip(f"no real models at {folder}; HWNAS_SHARED tells where they are")
    return folder
