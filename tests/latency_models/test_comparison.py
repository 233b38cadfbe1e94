from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.cost_graphs import small_net
from helpers.stub_timers import DrawnTimer
from latency_models.comparison import compare
from latency_models.devices.device import Device
from latency_models.errors import InvalidModelError
from latency_models.timing.meter import LatencyMeter

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = (small_net(side=side).SerializeToString() for side in (8, 16, 32))


def test_every_file_is_held_against_the_first(store: Path) -> None:
    meter = LatencyMeter(Device(), store=store, timer=DrawnTimer({A: 2e5, B: 1e5, C: 2e5}))
    rows = [each.as_dict() for each in compare([A, B, C], Device(), meter=meter, budget_s=1.0)]
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 0.5, 1.0], rel=0.01)
    assert [row["different"] for row in rows] == [False, True, False]
    assert (rows[0]["ratio_low"], rows[0]["ratio_high"]) == (1.0, 1.0)
    assert rows[1]["ratio_low"] < 0.5 < rows[1]["ratio_high"]  # type: ignore[operator]
    for row, content in zip(rows, (A, B, C), strict=True):
        assert row["size_bytes"] == len(content)
        assert {"latency_ms", "latency_low_ms", "latency_p99_ms", "macs", "params", "warnings"} <= row.keys()


def test_files_of_very_different_size_have_their_own_references(store: Path) -> None:
    meter = LatencyMeter(Device(), store=store, timer=DrawnTimer({A: 2e4, B: 2e7}))
    small, large = compare([A, B], Device(), meter=meter, budget_s=2.0)
    assert small.profile.latency.reference != large.profile.latency.reference
    assert large.ratio.ratio == pytest.approx(1000, rel=0.01)
    assert large.profile.latency.latency_ms == pytest.approx(20, rel=0.01)


def test_a_file_that_cannot_be_run_is_named(store: Path, tmp_path: Path) -> None:
    good, missing = tmp_path / "good.onnx", tmp_path / "missing.onnx"
    good.write_bytes(A)
    with pytest.raises(InvalidModelError, match=r"missing\.onnx"):
        compare([good, missing], Device(), meter=LatencyMeter(Device(), store=store))
    assert not store.exists()
