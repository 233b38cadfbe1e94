"""Blocks of channels: found in times that are made up, and once by timing this machine."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.stub_timers import DrawnTimer
from latency_models.channel_blocks import (
    BLOCKS,
    DENSE,
    DEPTHWISE,
    WIDTHS,
    Block,
    block_of,
    find_channel_blocks,
    off_block,
)
from latency_models.devices.device import Device
from latency_models.errors import InvalidModelError
from latency_models.timing.meter import LatencyMeter
from latency_models.timing.statistics import Ratio


def in_blocks(block: int, power: int = 2) -> Callable[[int], float]:
    """Times that grow with the number of whole blocks, and a call's own time."""
    return lambda width: (math.ceil(width / block) * block) ** power + 20.0


def timed(time_of: Callable[[int], float], half_width: float = 0.01, noise: float = 0.0) -> dict[int, Ratio]:
    """Ratios to 32 channels whose intervals are as wide, and whose values are off as much, as is asked for."""
    rng = np.random.default_rng(1)
    ratios = {}
    for width in WIDTHS:
        value = time_of(width) / time_of(32) * math.exp(noise * rng.standard_normal())
        ratios[width] = Ratio(value, value * (1 - half_width), value * (1 + half_width))
    return ratios


class TestTheBlock:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_clean_steps_of_dense_convolutions(self, block: int) -> None:
        assert block_of(timed(in_blocks(block)), DENSE).channels == block

    @pytest.mark.parametrize("block", BLOCKS)
    def test_clean_steps_of_depthwise_convolutions(self, block: int) -> None:
        assert block_of(timed(in_blocks(block, power=1), half_width=0.002), DEPTHWISE).channels == block

    def test_widths_that_leave_the_layout_cost_even_more(self) -> None:
        def time_of(width: int) -> float:
            return in_blocks(16)(width) * (1.0 if width % 4 == 0 else 1.4)

        assert block_of(timed(time_of), DENSE).channels == 16

    def test_noise_within_the_intervals_changes_nothing(self) -> None:
        for block in (16, 8):
            assert block_of(timed(in_blocks(block), half_width=0.06, noise=0.03), DENSE).channels == block

    def test_the_times_are_kept_as_evidence(self) -> None:
        found = block_of(timed(in_blocks(16)), DENSE)
        rows = found.rows()
        assert [row["channels"] for row in rows] == list(WIDTHS)
        assert next(row for row in rows if row["channels"] == 24)["relative_time"] == pytest.approx(1.0)


class TestNoBlock:
    def check(self, found: Block, *words: str) -> None:
        assert found.channels is None
        for word in words:
            assert word in found.unavailable

    def test_where_more_channels_cost_nothing(self) -> None:
        self.check(block_of(timed(lambda width: 1.0), DENSE), "hardly differ between 64 and 128 channels")

    def test_where_half_a_block_costs_half_its_step(self) -> None:
        def time_of(width: int) -> float:
            return 0.5 * in_blocks(16)(width) + 0.5 * in_blocks(1)(width)

        self.check(block_of(timed(time_of, half_width=0.05), DENSE), "24 channels cost", "of what 32 do")

    def test_where_noise_hides_the_steps(self) -> None:
        self.check(block_of(timed(in_blocks(16), half_width=0.8), DENSE), "too noisy to tell")

    def test_where_steps_are_of_different_sizes(self) -> None:
        def time_of(width: int) -> float:
            return in_blocks(16)(width) if width <= 32 else in_blocks(8)(width)

        self.check(block_of(timed(time_of), DENSE), "some widths cost as if in blocks of 16 channels")


class DeviceOfBlocks:
    """A meter of a device whose times are drawn: dense blocks of 16, depthwise ones of 8."""

    def __init__(self, store: Path, noise: float) -> None:
        ns = {DENSE.network(width): 100.0 * in_blocks(16)(width) for width in WIDTHS}
        ns |= {DEPTHWISE.network(width): 3000.0 * in_blocks(8, power=1)(width) for width in WIDTHS}
        self.timer = DrawnTimer(ns, noise=noise)
        self.meter = LatencyMeter(Device(), store=store, timer=self.timer)


class TestTiming:
    def test_all_widths_take_turns_under_one_clock(self, store: Path) -> None:
        device = DeviceOfBlocks(store, noise=0.002)
        found = find_channel_blocks(device.meter, budget_s=0.2)
        assert (found.dense.channels, found.depthwise.channels) == (16, 8)
        rotation = max(device.timer.asked, key=lambda asked: len(asked[0]))
        assert len(rotation[0]) > len(WIDTHS)  # every width, and the references

    def test_a_slowdown_in_the_middle_fools_nobody(self, store: Path) -> None:
        device = DeviceOfBlocks(store, noise=0.01)
        steps = iter(range(10**9))
        device.timer.slowdown = lambda: 1.0 + 0.8 * (next(steps) // 7 % 2)
        assert find_channel_blocks(device.meter, budget_s=0.2).dense.channels == 16

    def test_what_the_device_runs_is_what_is_timed(self, store: Path) -> None:
        device, seen = DeviceOfBlocks(store, noise=0.002), []

        def prepare(model: bytes) -> bytes:
            seen.append(model)
            return model

        find_channel_blocks(device.meter, prepare, budget_s=0.1)
        assert len(seen) == 2 * len(WIDTHS)

    def test_a_device_that_cant_run_them_has_a_reason(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuses(*_: object, **__: object) -> None:
            raise InvalidModelError("model", "no such kernel")

        device = DeviceOfBlocks(store, noise=0.002)
        monkeypatch.setattr(device.meter, "measure_together", refuses)
        found = find_channel_blocks(device.meter)
        document = found.as_dict()
        assert document["dense"] is document["depthwise"] is None
        assert "no such kernel" in document["dense_unavailable"]
        assert document["evidence"] == {"dense": [], "depthwise": []}

    def test_this_machine(self, meter: LatencyMeter) -> None:
        document = find_channel_blocks(meter, budget_s=1.5).as_dict()
        for name in ("dense", "depthwise"):
            assert document[name] in BLOCKS if document[name] is not None else document[f"{name}_unavailable"]
            assert [row["channels"] for row in document["evidence"][name]] == list(WIDTHS)
        dense = {row["channels"]: row["relative_time"] for row in document["evidence"]["dense"]}
        assert dense[128] > 4 * dense[32]
        if document["dense"] is not None:
            assert dense[2 * document["dense"]] > 1.2 * dense.get(document["dense"], 0.0)


def test_widths_that_are_no_multiples() -> None:
    assert off_block((8, 16, 24, 32), 16) == (8, 24)
    assert off_block((8, 16), 8) == ()
