from __future__ import annotations

from pathlib import Path

import pytest

from helpers.places import shared_data
from latency_models.timing import reference_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, with calibrations that are as short as they get."""
    monkeypatch.setattr(reference_store, "CALIBRATION_S", 0.01)
    monkeypatch.setattr(reference_store, "SESSIONS", 2)
    return tmp_path / "data" / "references.json"


@pytest.fixture(scope="session")
def onnx_models() -> Path:
    """The folder of real models, where the checkout has one beside it."""
    return shared_data("onnx_models")
