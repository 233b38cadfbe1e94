import pytest

from helpers.stub_timers import DrawnTimer
from latency_models.timing.interleaving import StopRule, burst_runs, interleave, warm_up
from latency_models.timing.timers import Rounds


def loaded(noise: float = 0.002, **ns: float) -> tuple[DrawnTimer, list[int]]:
    timer = DrawnTimer({name.encode(): value for name, value in ns.items()}, noise=noise)
    return timer, [timer.load(name.encode(), 1) for name in ns]


@pytest.mark.parametrize(("pilot_ns", "runs"), [(1.0, 400), (7e3, 286), (5e5, 4), (2e6, 3), (9e6, 2), (5e8, 1)])
def test_a_burst_is_two_milliseconds_or_a_few_runs(pilot_ns: float, runs: int) -> None:
    assert burst_runs(pilot_ns) == runs


def test_warming_up_goes_on_while_runs_get_faster() -> None:
    timer, (handle,) = loaded(a=1e5)
    factors = iter([2.0] + [1.5] * 3 + [1.2] * 3 + [1.0] * 100)
    timer.slowdown = lambda: next(factors)
    assert warm_up(timer, handle, 60.0) == pytest.approx(1e5, rel=0.01)
    assert len(timer.asked) == 5  # the first runs, three times faster, once no more


def test_warming_up_ends_with_its_budget() -> None:
    timer, (handle,) = loaded(a=1e5)
    assert warm_up(timer, handle, 0.0) > 0
    assert len(timer.asked) == 1


def test_rounds_go_on_until_the_budget_is_spent() -> None:
    timer, handles = loaded(a=1e6, b=2e6)
    rounds = interleave(timer, handles, [4, 2], StopRule(budget_s=0.8, cycle_s=0.008))
    assert [each.shape[1:] for each in rounds.times_ns] == [(2, 4), (2, 2)]
    assert rounds.count == len(rounds.times_ns[1])
    spent_s = sum(float(each[:, 1].sum()) for each in rounds.times_ns) / 1e9
    assert 0.8 <= spent_s < 1.2
    assert {asked[0] for asked in timer.asked} == {tuple(handles)}


def test_it_is_asked_after_16_rounds_and_then_at_twice_as_many() -> None:
    timer, handles = loaded(a=1e6, b=1e6)
    checks: list[int] = []

    def enough(rounds: Rounds) -> bool:
        checks.append(rounds.count)
        return rounds.count >= 64

    rounds = interleave(timer, handles, [2, 2], StopRule(budget_s=60.0, cycle_s=0.004, enough=enough))
    assert checks == [16, 32, 64]
    assert rounds.count == 64


def test_least_rounds_come_before_enough() -> None:
    timer, handles = loaded(a=1e6, b=1e6)
    rounds = interleave(timer, handles, [2, 2], StopRule(60.0, 0.004, least_rounds=50, enough=lambda rounds: True))
    assert rounds.count == 64


def test_a_spent_budget_leaves_a_few_rounds() -> None:
    timer, handles = loaded(a=1e6, b=1e6)
    assert interleave(timer, handles, [1, 1], StopRule(budget_s=0.0, cycle_s=1.0)).count == 5


def test_the_share_of_a_core_is_handed_on() -> None:
    timer, handles = loaded(a=1e6)
    timer.cpu_share = 0.5
    assert interleave(timer, handles, [2], StopRule(0.01, 0.002)).cpu_share == pytest.approx(0.5)
