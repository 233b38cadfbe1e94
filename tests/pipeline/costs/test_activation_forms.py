"""The fastest forms of activations: timed once for a device, kept, and timed anew where the file is damaged."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latency_models.devices.device import Device
from latency_models.timing.statistics import Ratio
from pipeline.costs.activation_forms import forms_of


class StandInMeter:
    """Times the forms after the first at the given ratios, and counts what it was asked for."""

    device = Device()

    def __init__(self, *ratios: float) -> None:
        self.ratios, self.asked = ratios, 0

    def environment(self) -> SimpleNamespace:
        return SimpleNamespace(fingerprint="0123456789abcdef0123")

    def measure_together(self, models: Sequence[bytes], *, budget_s: float) -> SimpleNamespace:
        self.asked += 1
        ratios = [1.0, *self.ratios, *(1.5,) * len(models)][: len(models)]
        return SimpleNamespace(ratios=[Ratio(each, each, each) for each in ratios])


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def forms(meter: StandInMeter, *names: str) -> dict[str, str]:
    space: Any = SimpleNamespace(choices=(SimpleNamespace(label="stage0_activation", values=names),))
    return forms_of(space, meter)  # type: ignore[arg-type]


def test_what_was_timed_once_is_kept() -> None:
    meter = StandInMeter(0.8, 0.9, 1.5)
    timed = forms(meter, "mish", "relu")
    assert list(timed) == ["mish"]
    assert meter.asked == 1
    assert forms(meter, "mish") == timed
    assert meter.asked == 1


def test_most_activations_have_nothing_to_time() -> None:
    meter = StandInMeter()
    assert forms(meter, "relu", "silu", "hardswish", "leaky_relu", "gelu") == {}
    assert meter.asked == 0


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    meter = StandInMeter()
    forms(meter, "mish")
    (path,) = tmp_path.rglob("activation_forms/*.json")
    path.write_text("{")
    forms(meter, "mish")
    assert meter.asked == 2
