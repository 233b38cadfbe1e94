import itertools
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from helpers.cost_graphs import model as graph
from helpers.cost_graphs import small_net, value
from helpers.stub_timers import REFERENCE_NS, DrawnTimer
from latency_models.devices.device import Device
from latency_models.devices.environment import capture
from latency_models.errors import InvalidModelError, MixedEnvironmentsError
from latency_models.timing.meter import Latency, LatencyMeter, same_environment
from latency_models.timing.reference_models import ANCHOR, MEMORY_PROBE, reference_model
from latency_models.timing.reference_store import ReferenceStore

SMALL = small_net().SerializeToString()
LARGER = small_net(side=64).SerializeToString()


def meter_of(store: Path, timer: DrawnTimer) -> LatencyMeter:
    return LatencyMeter(Device(), store=store, timer=timer)


# ---- with the real timer


def test_a_measurement_holds_together(meter: LatencyMeter) -> None:
    latency = meter.measure(SMALL, budget_s=0.05)
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms
    assert min(latency.samples_ms) <= latency.p50_ms <= latency.p99_ms <= max(latency.samples_ms)
    assert latency.latency_ms == pytest.approx(latency.ratio * latency.reference_ms)
    assert latency.p50_ms == pytest.approx(np.percentile(latency.samples_ms, 50))
    assert latency.p99_ms == pytest.approx(np.percentile(latency.samples_ms, 99))
    assert latency.environment.threads == 1
    assert len(latency.reference_samples_ms) > 0


def test_the_record_is_json_with_raw_samples_only_on_request(meter: LatencyMeter) -> None:
    latency = meter.measure(SMALL, budget_s=0.02)
    short, whole = latency.as_dict(), latency.as_dict(samples=True)
    assert json.loads(json.dumps(whole)) == whole
    assert "samples_ms" not in short
    assert whole["samples_ms"] == list(latency.samples_ms)
    assert {"latency_ms", "latency_low_ms", "latency_high_ms", "latency_p50_ms", "latency_p99_ms"} <= set(short)


def test_a_reference_against_itself_is_about_one(meter: LatencyMeter) -> None:
    latency = meter.measure(reference_model("ref-3"), budget_s=0.2)
    assert "ref-3" in latency.reference
    assert 0.5 < latency.ratio < 2.0


def test_comparing_tells_a_larger_model_from_a_smaller_one(meter: LatencyMeter) -> None:
    ratio = meter.compare(LARGER, SMALL, budget_s=0.2)
    other = meter.compare(SMALL, LARGER, budget_s=0.2)
    assert ratio.low > 1.0 > other.high
    assert ratio.different
    assert other.different


def test_several_threads_are_timed_by_the_wall(store: Path) -> None:
    with LatencyMeter(Device(threads=2), store=store) as meter:
        latency = meter.measure(SMALL, budget_s=0.02)
    assert latency.latency_ms > 0
    assert latency.environment.threads == 2


@pytest.mark.parametrize("content", [SMALL[:200], b""], ids=["truncated", "empty"])
def test_a_bad_model_is_refused_before_any_calibration(store: Path, content: bytes) -> None:
    with LatencyMeter(Device(), store=store) as meter, pytest.raises(InvalidModelError):
        meter.measure(content)
    assert not store.exists()


def test_inputs_are_fed(meter: LatencyMeter) -> None:
    # Zeros are one step, a large number very many: what is fed decides.
    repeat = helper.make_node("Tile", ["one", "n"], ["y"])
    content = graph([repeat], [value("one", [1]), value("n", [1], 7)], [value("y", ["k"])]).SerializeToString()
    few, many = ({"one": np.ones(1, np.float32), "n": np.array([n])} for n in (1, 3_000_000))
    slow = meter.measure(content, inputs=many, budget_s=0.03)
    fast = meter.measure(content, inputs=few, budget_s=0.03)
    assert slow.low_ms > fast.high_ms


# ---- with drawn times


@pytest.mark.parametrize("ms", [0.05, 0.2, 2.0, 60.0])
@pytest.mark.parametrize("budget_s", [0.06, 1.0])
def test_a_latency_is_on_the_scale_of_the_references(store: Path, ms: float, budget_s: float) -> None:
    latency = meter_of(store, DrawnTimer({SMALL: ms * 1e6})).measure(SMALL, budget_s=budget_s)
    assert latency.latency_ms == pytest.approx(ms, rel=0.01)
    assert latency.low_ms < ms < latency.high_ms


def test_a_slower_clock_changes_nothing_and_is_said(store: Path) -> None:
    timer = DrawnTimer({SMALL: 3e5})
    meter = meter_of(store, timer)
    before = meter.measure(SMALL, budget_s=0.5)
    timer.slowdown = lambda: 1.5
    after = meter.measure(SMALL, budget_s=0.5)
    assert after.latency_ms == pytest.approx(before.latency_ms, rel=0.005)
    assert not before.warnings
    assert any("50% slower than when its reference was timed" in warning for warning in after.warnings)


def test_cold_first_runs_do_not_count(store: Path) -> None:
    timer = DrawnTimer({SMALL: 2e6})
    meter = meter_of(store, timer)
    meter.measure(SMALL, budget_s=0.5)
    timer.first = 10.0
    latency = meter.measure(SMALL, budget_s=0.5)
    assert latency.latency_ms == pytest.approx(2.0, rel=0.01)
    assert latency.p99_ms < 3.0


def test_a_large_model_is_corrected_for_memory_contention(store: Path) -> None:
    large = reference_model(MEMORY_PROBE.name)
    timer = DrawnTimer({})
    meter = meter_of(store, timer)
    before = meter.measure(large, budget_s=1.0)
    timer.contention = 1.3
    after = meter.measure(large, budget_s=1.0)
    assert MEMORY_PROBE.name in before.reference
    assert before.latency_ms == pytest.approx(0.9, rel=0.01)
    assert after.latency_ms == pytest.approx(0.9, rel=0.03)
    assert after.high_ms / after.low_ms > 1.2 > before.high_ms / before.low_ms
    assert any("memory is" in warning for warning in after.warnings)


def test_a_small_model_is_not_held_against_the_memory_probe(store: Path) -> None:
    latency = meter_of(store, DrawnTimer({SMALL: 3e5})).measure(SMALL, budget_s=1.0)
    assert MEMORY_PROBE.name not in latency.reference
    assert {"ref-3", "ref-4"} == {part.split()[0] for part in latency.reference.split(", ")}


def test_a_short_measurement_takes_one_session_and_one_reference(store: Path) -> None:
    timer = DrawnTimer({SMALL: 3e5})
    meter = meter_of(store, timer)
    meter.measure(SMALL, budget_s=0.06)
    timer.loads.clear()
    latency = meter.measure(SMALL, budget_s=0.06)
    assert timer.loads == [SMALL]
    assert latency.reference == "ref-4"


def test_a_long_measurement_loads_the_model_several_times(store: Path) -> None:
    timer = DrawnTimer({SMALL: 3e5})
    meter = meter_of(store, timer)
    meter.measure(SMALL, budget_s=1.0)
    assert timer.loads.count(SMALL) == 3
    assert SMALL not in [content for content, _ in timer.loaded.values()]


def test_the_interval_holds_how_sessions_differ(store: Path) -> None:
    # The stored times are the true ones, as a long calibration would find them.
    meter_of(store, DrawnTimer({SMALL: 3e5})).measure(SMALL, budget_s=0.5)
    held = 0
    for seed in range(60):
        timer = DrawnTimer({SMALL: 3e5}, session_sd=0.003)
        timer.rng = np.random.default_rng(seed)
        latency = meter_of(store, timer).measure(SMALL, budget_s=0.5)
        held += latency.low_ms <= 0.3 * 1.0035 and latency.high_ms >= 0.3 * 0.9965
    assert held >= 54


def test_a_meter_times_its_references_once(store: Path) -> None:
    timer = DrawnTimer({SMALL: 3e5})
    meter_of(store, timer).measure(SMALL, budget_s=0.06)
    again = DrawnTimer({SMALL: 3e5})
    meter_of(store, again).measure(SMALL, budget_s=0.06)
    assert timer.loads.count(reference_model(ANCHOR)) > 1
    assert again.loads.count(reference_model(ANCHOR)) == 0
    assert again.loads.count(reference_model("ref-4")) == 1


def test_a_machine_twenty_times_slower_finds_its_references(store: Path) -> None:
    slow = {reference_model(name): 20 * ns for name, ns in REFERENCE_NS.items()}
    timer = DrawnTimer({SMALL: 4e6, **slow})
    latency = meter_of(store, timer).measure(SMALL, budget_s=1.0)
    assert latency.latency_ms == pytest.approx(4.0, rel=0.01)
    assert {"ref-3", "ref-4"} == {part.split()[0] for part in latency.reference.split(", ")}


def test_min_runs_are_made_where_there_is_time(store: Path) -> None:
    meter = meter_of(store, DrawnTimer({SMALL: 1e5}))
    assert len(meter.measure(SMALL, budget_s=5.0, min_runs=1000).samples_ms) >= 1000


def test_a_meter_closes_its_timer(store: Path) -> None:
    timer = DrawnTimer({SMALL: 1e5})
    with meter_of(store, timer) as meter:
        meter.measure(SMALL, budget_s=0.02)
    assert timer.closed


def test_a_damaged_store_shows_in_the_warnings(store: Path) -> None:
    store.parent.mkdir()
    store.write_text("{", encoding="utf-8")
    latency = meter_of(store, DrawnTimer({SMALL: 1e5})).measure(SMALL, budget_s=0.02)
    assert any("damaged" in warning for warning in latency.warnings)
    assert ReferenceStore(store).known(latency.environment)


def test_each_model_comes_first_in_turn(store: Path) -> None:
    timer = DrawnTimer({SMALL: 1e5, LARGER: 2e5})
    joint = meter_of(store, timer).measure_together([SMALL, LARGER], budget_s=0.5)
    pairs = [each for each in timer.loads if each in (SMALL, LARGER)]
    assert pairs == [SMALL, LARGER, LARGER, SMALL] * 3
    assert joint.ratios[0].ratio == 1.0
    assert joint.ratios[1].ratio == pytest.approx(2.0, rel=0.01)
    assert [each.latency_ms for each in joint.latencies] == pytest.approx([0.1, 0.2], rel=0.01)


def test_a_model_that_differs_from_itself_by_session_is_not_different(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(0.0, 1e-5)  # else the machine's load decides how much is drawn
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    timer = DrawnTimer({SMALL: 1e5, LARGER: 1e5}, session_sd=0.01)
    ratios = [meter_of(store, timer).compare(LARGER, SMALL, budget_s=0.1) for _ in range(30)]
    assert sum(ratio.different for ratio in ratios) <= 4  # one or two are expected


# ---- records against each other


def record(ms: float, *, cpu_model: str = "a", half_width: float = 0.01) -> Latency:
    return Latency(
        latency_ms=ms,
        low_ms=ms * math.exp(-half_width),
        high_ms=ms * math.exp(half_width),
        p50_ms=ms,
        p99_ms=ms,
        ratio=1.0,
        reference="ref-3",
        reference_ms=ms,
        samples_ms=(),
        reference_samples_ms=(),
        warnings=(),
        environment=replace(capture(Device()), cpu_model=cpu_model),
    )


def test_records_of_one_environment_have_a_ratio() -> None:
    ratio = record(2.2, half_width=0.03).over(record(2.0, half_width=0.04))
    assert ratio.ratio == pytest.approx(1.1)
    assert (ratio.low, ratio.high) == (pytest.approx(1.1 * math.exp(-0.05)), pytest.approx(1.1 * math.exp(0.05)))


def test_records_of_different_environments_are_never_mixed() -> None:
    with pytest.raises(MixedEnvironmentsError, match="cpu_model is 'a' in one and 'b' in the other"):
        record(1.0).over(record(1.0, cpu_model="b"))
    same_environment([record(1.0), record(2.0)])
