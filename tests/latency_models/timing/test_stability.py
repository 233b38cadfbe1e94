from dataclasses import replace

import numpy as np
import pytest

from latency_models.devices.device import Device
from latency_models.timing.stability import Evidence, change_over_time, warnings_of

QUIET = Evidence(
    wall_ns=np.full(100, 1e6),
    undisturbed_ns=np.full(100, 1e6),
    cpu_share=1.0,
    half_width=0.001,
    drift=1.0,
    change=1.0,
    size=1.0,
)
TWO_KINDS = np.repeat([1e6, 1.1e6], 50)


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (QUIET, None),
        (replace(QUIET, cpu_share=0.5), "a core for 50% of the time"),
        (replace(QUIET, wall_ns=np.full(100, 2e6)), "median run took 100% longer"),
        (replace(QUIET, undisturbed_ns=TWO_KINDS, wall_ns=TWO_KINDS), "two kinds, of 1 and 1.1 ms (50% are slow ones)"),
        (replace(QUIET, half_width=0.05), "±5.00% only, not to the ±1.00% asked for"),
        (replace(QUIET, drift=2.0), "100% slower than when its reference was timed"),
        (replace(QUIET, drift=0.5), "100% faster than when its reference was timed"),
        (replace(QUIET, change=1.25), "got 25% slower while it was timed: it may be throttling"),
        (replace(QUIET, contention=1.3), "memory is 30% slower"),
        (replace(QUIET, contention=1.05), None),
        (replace(QUIET, size=0.2), "takes 5 times its time"),
    ],
)
def test_each_sign_gives_one_warning(evidence: Evidence, said: str | None) -> None:
    found = warnings_of(evidence, Device(), 0.01)
    assert len(found) == (0 if said is None else 1)
    assert said is None or said in found[0]


def test_where_runs_leave_their_thread_its_share_of_a_core_says_nothing() -> None:
    assert warnings_of(replace(QUIET, cpu_share=0.1), Device(threads=2), 0.01) == []


def test_a_change_is_that_of_the_last_third_over_the_first() -> None:
    assert change_over_time(np.array([1.0] * 3 + [7.0] * 3 + [1.5] * 3)) == pytest.approx(1.5)
    assert change_over_time(np.array([1.0, 9.0])) == 1.0
