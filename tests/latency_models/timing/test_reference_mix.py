from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.cost_graphs import small_net
from helpers.stub_timers import REFERENCE_NS
from latency_models.timing.reference_mix import (
    ReferenceMix,
    WeightedReference,
    add_memory_probe,
    interpolate,
    memory_share,
    working_set_bytes,
)
from latency_models.timing.reference_models import MEMORY_PROBE, PROBE_WORKING_SET_BYTES, REFERENCES, reference_model
from latency_models.timing.reference_store import ReferenceTime

if TYPE_CHECKING:
    from pathlib import Path


def shares(ns: float, *, both: bool = True) -> dict[str, float]:
    return interpolate(ns, REFERENCE_NS.__getitem__, both=both)


def test_a_time_halfway_between_two_takes_half_of_each() -> None:
    halfway = (REFERENCE_NS["ref-3"] * REFERENCE_NS["ref-4"]) ** 0.5
    assert shares(halfway) == {"ref-3": pytest.approx(0.5), "ref-4": pytest.approx(0.5)}
    assert len(shares(halfway, both=False)) == 1


def test_shares_move_without_a_jump() -> None:
    before = shares(1.0e6)
    after = shares(1.01e6)
    assert before.keys() == after.keys() == {"ref-4", "ref-5"}
    assert all(abs(before[name] - after[name]) < 0.01 for name in before)


@pytest.mark.parametrize("name", [spec.name for spec in REFERENCES])
def test_the_time_of_a_reference_takes_that_reference(name: str) -> None:
    assert shares(REFERENCE_NS[name]) == {name: 1.0}


def test_beyond_all_references_the_last_one_counts() -> None:
    assert shares(1.0) == {"ref-1": 1.0}
    assert shares(1e12) == {"ref-7": 1.0}


@pytest.mark.parametrize(
    ("working_set", "share"),
    [(0, 0.0), (1_835_000, 0.0), (PROBE_WORKING_SET_BYTES, 0.9), (10**9, 0.9), (6_867_504, 0.5)],
)
def test_the_probe_takes_what_the_working_set_suggests(working_set: int, share: float) -> None:
    assert memory_share(working_set, 1 << 20) == pytest.approx(share, abs=1e-6)
    assert memory_share(working_set, None) == memory_share(working_set, 1 << 20)


def test_caches_larger_than_the_probe_leave_it_out() -> None:
    assert memory_share(10**8, 16 << 20) == 0.0


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.5, 0.9])
def test_shares_sum_to_one(share: float) -> None:
    mixed = add_memory_probe({"ref-3": 0.3, "ref-4": 0.7}, share)
    assert sum(mixed.values()) == pytest.approx(1.0)
    assert (MEMORY_PROBE.name in mixed) == (share > 0)
    assert min(mixed.values()) > 0


def test_a_mix_of_several_is_their_geometric_mean() -> None:
    times = [ReferenceTime(ms, 0.0) for ms in (1.0, 16.0)]
    mix = ReferenceMix((WeightedReference("ref-4", 0.75, times[0]), WeightedReference("ref-5", 0.25, times[1])))
    assert mix.ms == pytest.approx(2.0)
    assert mix.name == "ref-4 75%, ref-5 25%"
    assert ReferenceMix((WeightedReference("ref-4", 1.0, times[0]),)).name == "ref-4"


def test_a_working_set_is_weights_and_activations(tmp_path: Path) -> None:
    content = small_net().SerializeToString()
    weights = 4 * (4 * 27 + 4 + 20 + 5)
    found = working_set_bytes(content, 1)
    assert found is not None
    assert weights + 4 * 4 * 64 <= found < weights + 4 * 16 * 64 * 3
    (tmp_path / "net.onnx").write_bytes(content)
    assert working_set_bytes(tmp_path / "net.onnx", 1) == found
    assert (working_set_bytes(content, 4) or 0) > found
    assert working_set_bytes(content[:100], 1) is None


def test_the_probes_working_set_is_stated_right() -> None:
    found = working_set_bytes(reference_model(MEMORY_PROBE.name), 1)
    assert found == pytest.approx(PROBE_WORKING_SET_BYTES, rel=0.05)
