from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from latency_graphs import small_net

from latency_models import timing
from latency_models.clock import Budget, burst, stays_in_thread
from latency_models.device import Device
from latency_models.errors import InvalidModelError
from latency_models.reference import reference_model
from latency_models.reference_store import ReferenceStore, ReferenceTime
from latency_models.runner import Runner
from latency_models.statistics import Ratio
from latency_models.timing import LatencyMeter

SMALL = small_net().SerializeToString()
LARGER = small_net(side=64).SerializeToString()


class Counting(Runner):
    """Counts its runs; the garbage collector has to be off in each."""

    def __init__(self) -> None:
        self.runs = 0
        self.collected = False

    @property
    def input_names(self) -> tuple[str, ...]:
        return ()

    def run(self) -> None:
        self.runs += 1
        self.collected |= gc.isenabled()


def test_a_measurement_holds_together(store: Path) -> None:
    latency = LatencyMeter(Device(), store=store).measure(SMALL, budget_s=0.05)
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms
    assert min(latency.samples_ms) <= latency.p50_ms <= latency.p99_ms <= max(latency.samples_ms)
    assert latency.latency_ms == pytest.approx(latency.ratio * latency.reference_ms)
    assert latency.p50_ms == pytest.approx(np.percentile(latency.samples_ms, 50))
    assert latency.p99_ms == pytest.approx(np.percentile(latency.samples_ms, 99))
    assert latency.environment.threads == 1
    assert len(latency.reference_samples_ms) > 0


def test_the_record_is_json_with_raw_samples_only_on_request(store: Path) -> None:
    latency = LatencyMeter(Device(), store=store).measure(SMALL, budget_s=0.02)
    short, whole = latency.as_dict(), latency.as_dict(samples=True)
    assert json.loads(json.dumps(whole)) == whole
    assert "samples_ms" not in short
    assert whole["samples_ms"] == list(latency.samples_ms)
    assert {"latency_ms", "latency_low_ms", "latency_high_ms", "latency_p50_ms", "latency_p99_ms"} <= set(short)


def test_a_meter_times_its_reference_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(name: str, device: Device) -> ReferenceTime:
        asked.append(name)
        return ReferenceTime(1.0, 0.0)

    monkeypatch.setattr(timing, "calibrate", counted)
    model = reference_model("ref-4")
    first = LatencyMeter(Device(), store=store)
    first.measure(model, budget_s=0.02)
    first.measure(model, budget_s=0.02)
    LatencyMeter(Device(), store=store).measure(model, budget_s=0.02)
    assert len(asked) == len(set(asked))


def test_a_reference_against_itself_is_about_one(store: Path) -> None:
    latency = LatencyMeter(Device(), store=store).measure(reference_model("ref-3"), budget_s=0.2)
    assert latency.reference == "ref-3"
    assert 0.5 < latency.ratio < 2.0


def test_comparing_tells_a_larger_model_from_a_smaller_one(store: Path) -> None:
    ratio = LatencyMeter(Device(), store=store).compare(LARGER, SMALL, budget_s=0.2)
    assert ratio.low > 1.0
    assert ratio.different


def test_comparing_has_the_first_model_on_top(store: Path) -> None:
    ratio = LatencyMeter(Device(), store=store).compare(SMALL, LARGER, budget_s=0.2)
    assert ratio.high < 1.0


def test_comparing_takes_each_model_first_in_turn(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever comes first looks 3 times as slow: no difference between the models.
    monkeypatch.setattr(timing, "ratio_of_rounds", lambda target, reference: Ratio(3.0, 3.0, 3.0))
    ratio = LatencyMeter(Device(), store=store).compare(SMALL, LARGER, budget_s=0.01)
    assert ratio.ratio == pytest.approx(1.0)
    assert not ratio.different


def test_several_threads_are_timed_by_the_wall(store: Path) -> None:
    latency = LatencyMeter(Device(threads=2), store=store).measure(SMALL, budget_s=0.02)
    assert latency.latency_ms > 0
    assert latency.environment.threads == 2


def test_a_bad_model_is_refused_before_any_calibration(store: Path) -> None:
    with pytest.raises(InvalidModelError):
        LatencyMeter(Device(), store=store).measure(SMALL[:200])
    assert not store.exists()


def test_a_damaged_store_shows_in_the_warnings(store: Path) -> None:
    store.parent.mkdir()
    store.write_text("{", encoding="utf-8")
    latency = LatencyMeter(Device(), store=store).measure(SMALL, budget_s=0.02)
    assert any("damaged" in warning for warning in latency.warnings)
    assert ReferenceStore(store).known(latency.environment)


def test_rounds_alternate_and_go_on_for_the_runs_asked_for() -> None:
    target, reference = Counting(), Counting()
    budget = Budget(60.0, in_thread=False)
    rounds = timing._alternate(
        target, reference, 1e6, 0.5e6, in_thread=False, budget=budget, target_half_width=9e9, min_runs=100
    )
    assert target.runs >= 100
    assert reference.runs == 2 * target.runs
    assert rounds.target_ns.shape == (target.runs // 2, 2, 2)
    assert not target.collected
    assert gc.isenabled()


def test_a_spent_budget_leaves_the_least_number_of_rounds() -> None:
    target, reference = Counting(), Counting()
    budget = Budget(0.0, in_thread=False)
    timing._alternate(target, reference, 5e7, 5e7, in_thread=False, budget=budget)
    assert target.runs == reference.runs == timing._MIN_ROUNDS


def rounds_of(target_ns: float, reference_ns: float, *, slow: float = 1.0, share: float = 1.0) -> timing._Rounds:
    target = np.full((10, 2, 3), target_ns)
    target[:, 0] *= slow
    ratio = target_ns / reference_ns
    return timing._Rounds(target, np.full((10, 2, 3), reference_ns), Ratio(ratio, ratio, ratio), share)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        (rounds_of(1e6, 1e6), None),
        (rounds_of(1e6, 1e6, share=0.5), "a core for 50%"),
        (rounds_of(1e6, 1e6, slow=2.0), "100% longer"),
        (rounds_of(2e6, 2e6), "100% slower than when its reference was timed"),
        (rounds_of(2e5, 1e6), "takes 5 times its time"),
    ],
    ids=["none", "busy", "spread", "drift", "size"],
)
def test_doubts_are_said(rounds: timing._Rounds, said: str | None) -> None:
    doubts = timing._doubts(rounds, ReferenceTime(1.0, 0.0), Device(), 0.01)
    assert len(doubts) == (0 if said is None else 1)
    assert said is None or said in doubts[0]


def test_a_wide_interval_is_said() -> None:
    rounds = timing._Rounds(np.full((5, 2, 1), 1e6), np.full((5, 2, 1), 1e6), Ratio(1.0, 0.95, 1.05), cpu_share=1.0)
    doubts = timing._doubts(rounds, ReferenceTime(1.0, 0.0), Device(), 0.01)
    assert doubts == ["the runs settle it to ±5.0% only, not to the ±1.0% asked for"]


def test_time_without_interruptions_is_never_longer_than_by_the_wall() -> None:
    walls, alone = burst(lambda: None, 50, in_thread=True)
    assert (alone <= walls).all()
    walls, alone = burst(lambda: None, 50, in_thread=False)
    assert (alone == walls).all()


def test_an_interruption_is_left_out_where_the_run_stays_in_its_thread() -> None:
    import time

    walls, alone = burst(lambda: time.sleep(0.01), 2, in_thread=True)
    assert (walls >= 10e6).all()
    assert (alone < 10e6).all()


def test_only_one_thread_on_a_cpu_stays_in_its_thread() -> None:
    assert stays_in_thread(Device())
    assert not stays_in_thread(Device(threads=2))
    assert not stays_in_thread(Device("cuda"))
