from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.places import shared_data
from latency_models.devices.device import Device
from latency_models.timing import reference_store
from latency_models.timing.meter import LatencyMeter


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, with calibrations that are as short as they get."""
    monkeypatch.setattr(reference_store, "CALIBRATION_S", 0.01)
    monkeypatch.setattr(reference_store, "SESSIONS", 2)
    return tmp_path / "data" / "references.json"


@pytest.fixture(scope="session")
def lasting_meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatencyMeter]:
    with LatencyMeter(Device(), store=tmp_path_factory.mktemp("references") / "references.json") as meter:
        yield meter


@pytest.fixture
def meter(lasting_meter: LatencyMeter, store: Path) -> LatencyMeter:
    """A meter of this machine's CPU that tests share, so that each reference is calibrated once, and briefly."""
    return lasting_meter


@pytest.fixture(scope="session")
def onnx_models() -> Path:
    """The folder of real models, where the checkout has one beside it."""
    return shared_data("onnx_models")
