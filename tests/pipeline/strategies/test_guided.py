"""`guided` and `bayesian`: what they find, what they never ask for, and what they do when costs have to be learnt."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from helpers.driven import Choices, accuracy_of, deep, drive, flat, huge, judged, record_of
from helpers.places import REPOSITORY, shared_data
from pipeline.bench.config import load_bench
from pipeline.bench.curves import value_at
from pipeline.bench.run import Task, Workbench
from pipeline.config.strategy import BayesianOptions, GuidedOptions
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture, Choice, SearchSpace, architecture_id
from pipeline.strategies import posterior
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.bayesian import Bayesian
from pipeline.strategies.guided import Guided
from pipeline.strategies.integer_codes import IntegerEncoder
from pipeline.strategies.pool import Pool, _in_turn
from pipeline.strategies.pool_surrogate import PoolSurrogate
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord
from pipeline.trials.objectives import as_losses, hypervolume, pareto_front

Judge = Callable[[Architecture], TrialResult]


class Known:
    """Costs by a function, with some that aren't known."""

    def __init__(self, unknown: Callable[[Architecture], bool] = lambda _: False, metrics: tuple[str, ...] = ("macs",)):
        self.metrics, self._unknown = metrics, unknown

    def costs(self, architectures: Sequence[Architecture]) -> Any:
        rows = [[np.nan if self._unknown(a) else cost_of(a, name) for name in self.metrics] for a in architectures]
        return np.array(rows, dtype=float).reshape(len(rows), len(self.metrics))


def cost_of(architecture: Architecture, metric: str = "macs") -> float:
    """Larger values cost more; `params` weighs them otherwise."""
    values = [value for value in architecture.values() if isinstance(value, int)]
    weights = range(1, len(values) + 1) if metric == "params" else range(len(values), 0, -1)
    return 1.0 + sum(weight * value for weight, value in zip(weights, values, strict=True))


def error_of(architecture: Architecture) -> float:
    """Falls with every value, by ever less, and there are pairs that fit each other."""
    values = [int(value) for value in architecture.values()]
    fits = sum(one == other for one, other in itertools.pairwise(values))
    return float(0.05 + 0.5 * np.exp(-0.25 * sum(values) - 0.1 * fits))


def judge(architecture: Architecture) -> TrialResult:
    return TrialResult(
        "ok", {"accuracy": 1 - error_of(architecture), **{m: cost_of(architecture, m) for m in ("macs", "params")}}
    )


def limited(limit: float) -> Judge:
    def judge_with_limit(architecture: Architecture) -> TrialResult:
        if (cost := cost_of(architecture)) > limit:
            return TrialResult("infeasible", {"macs": cost}, {"excess": {"macs": cost / limit - 1}})
        return judge(architecture)

    return judge_with_limit


def guided(space: SearchSpace, seed: int = 0, known: Any = None, limits: Any = None, **options: Any) -> Guided:
    objectives = options.pop("objectives", ("accuracy", "macs"))
    problem = Problem(space, seed, objectives, limits or {}, known)
    return Guided(GuidedOptions(name="guided", **options), problem)


def bayesian(space: SearchSpace, seed: int = 0, **options: Any) -> Bayesian:
    return Bayesian(BayesianOptions(name="bayesian", **options), Problem(space, seed, ("accuracy", "macs")))


def volume(records: Sequence[TrialRecord], objectives: tuple[str, ...] = ("accuracy", "macs")) -> float:
    ok = [record.objectives for record in records if record.status == "ok"]
    return hypervolume(as_losses(ok, objectives), np.array([-0.5, *[40.0] * (len(objectives) - 1)]))


def random_records(space: SearchSpace, count: int, seed: int, judged_by: Judge = judge) -> list[TrialRecord]:
    ranks = np.random.default_rng(seed).choice(space.size(), count, replace=False)
    return [record_of(space.at(int(r)), judged_by(space.at(int(r))), n) for n, r in enumerate(ranks)]


class TestFinds:
    space = flat(6, 4)

    def test_more_of_the_front_than_random_search(self) -> None:
        """All seeds of the one are beyond all seeds of the other, with half as many trials."""
        ours = [volume(drive(guided(self.space, seed, Known()), judge, 30)) for seed in range(3)]
        randoms = [volume(random_records(self.space, 60, seed)) for seed in range(3)]
        assert min(ours) > max(randoms)

    def test_the_front_when_costs_have_to_be_learnt(self) -> None:
        ours = [volume(drive(guided(self.space, seed), judge, 30)) for seed in range(3)]
        randoms = [volume(random_records(self.space, 30, seed)) for seed in range(3)]
        assert min(ours) > np.mean(randoms) + 1
        assert np.mean(ours) > max(randoms)

    def test_three_objectives(self) -> None:
        names = ("accuracy", "macs", "params")
        known = Known(metrics=("macs", "params"))
        for known_costs in (known, Known(metrics=("params",))):
            strategy = guided(self.space, known=known_costs, objectives=names)
            assert volume(drive(strategy, judge, 40), names) > volume(random_records(self.space, 80, 0), names)

    def test_the_best_accuracy_within_limits(self) -> None:
        limit = 14.0
        errors = [error_of(a) for a in self.space.architectures() if cost_of(a) <= limit]
        for known in (Known(), None):
            found = drive(guided(self.space, known=known, limits={"macs": limit}, aim="accuracy"), limited(limit), 80)
            reached = [1 - r.objectives["accuracy"] for r in found if r.status == "ok"]
            assert min(reached[:40]) <= np.sort(errors)[2]

    def test_the_pick_decides_the_aim_once(self) -> None:
        auto = GuidedOptions(name="guided")
        assert auto.resolved(trials=30, pick="most-accurate").aim == "accuracy"
        assert auto.resolved(trials=30, pick="knee").aim == "front"
        assert GuidedOptions(name="guided", aim="front").resolved(trials=30, pick="most-accurate").aim == "front"

    def test_aim_tells_front_and_accuracy_apart(self) -> None:
        limit = 30.0
        found = {}
        for aim in ("front", "accuracy"):
            strategy = guided(self.space, known=Known(), limits={"macs": limit}, aim=aim)
            found[aim] = drive(strategy, limited(limit), 40)
        cheap = {aim: np.mean([r.objectives["macs"] for r in records[8:]]) for aim, records in found.items()}
        assert cheap["front"] < cheap["accuracy"] - 3
        assert volume(found["front"]) > volume(found["accuracy"])

    def test_a_large_space_by_a_pool_that_follows(self) -> None:
        space = huge()
        strategy = guided(space, objectives=("accuracy", "macs"))
        found = drive(strategy, lambda a: judged(accuracy_of_huge(a), 1.0 + list(a.values()).count("conv")), 60)
        randoms = [accuracy_of_huge(a) for a in random_architectures(space, 2000)]
        assert max(record.objectives["accuracy"] for record in found) > max(randoms)
        assert len(strategy.pool) <= 5000

    def test_as_much_when_few_candidates_follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As after hundreds of trials, when most candidates keep what was predicted of them at the last fit."""
        monkeypatch.setattr(posterior, "ALL_FOLLOWED", 10)
        self.test_more_of_the_front_than_random_search()
        self.test_the_front_when_costs_have_to_be_learnt()
        self.test_a_large_space_by_a_pool_that_follows()

    @pytest.mark.parametrize("aim", ["front", "accuracy"])
    def test_mutates_the_front_of_all_trials(self, aim: str) -> None:
        strategy = guided(self.space, objectives=("accuracy", "macs"), limits={"macs": 30.0}, aim=aim)
        for trials in range(20, 60, 8):
            drive(strategy, limited(30.0), trials)
            strategy.propose(np.random.default_rng(0))
            names = ("accuracy", "macs") if aim == "front" else ("accuracy",)
            rows = [row for row, record in enumerate(strategy.history) if record.status == "ok"]
            losses = as_losses([strategy.history[row].objectives for row in rows], names)
            assert strategy.parents() == [rows[place] for place in pareto_front(losses)]

    def test_bayesian_beats_random_search(self) -> None:
        def one_number(architecture: Architecture) -> TrialResult:
            return judged(accuracy_of(architecture))

        for options in ({}, {"acquisition": "ucb"}):
            ours = [drive(bayesian(self.space, seed, **options), one_number, 40) for seed in range(3)]
            assert min(max(record.score for record in records) for records in ours) >= 5 / 6
        randoms = [random_records(self.space, 40, seed, one_number) for seed in range(3)]
        assert max(max(record.score for record in records) for records in randoms) < 1


def accuracy_of_huge(architecture: Architecture) -> float:
    wanted = {"conv": 1.0, "skip": 0.4, "silu": 0.5, True: 1.0, 2.0: 1.0}
    return min(1.0, sum(wanted.get(value, 0.0) for value in architecture.values()) / 40)  # type: ignore[call-overload]


def random_architectures(space: SearchSpace, count: int) -> list[Architecture]:
    encoder = IntegerEncoder(space.choices)
    return encoder.decode(encoder.sample(count, np.random.default_rng(0)))


def test_the_published_figures_on_nasbench201() -> None:
    """One search of the real table; twenty seeds and six devices had .952 and .977 in the mean."""
    path = shared_data("nasbench201.csv.gz")
    config = REPOSITORY / "configs" / "bench-nasbench201.yaml"
    changes = [f"evaluator.path={path}", "strategies=[guided]", "report_at=[25, 50]"]
    bench = Workbench(load_bench(config, changes), "the test's config")
    result = bench.run(Task(0, "fpga_ms", 0))
    assert value_at(result.hypervolume, 25) > 0.9
    assert value_at(result.hypervolume, 50) > 0.955


class TestLimits:
    space = flat(4, 3)

    def test_what_is_known_to_break_a_limit_is_never_asked_for(self) -> None:
        limit = 9.0
        within = [a for a in self.space.architectures() if cost_of(a) <= limit]
        strategy = guided(self.space, known=Known(), limits={"macs": limit})
        found = drive(strategy, limited(limit), 1000)
        assert len(found) == len(within) < self.space.size()
        assert all(record.status == "ok" for record in found)

    def test_limits_that_are_learnt_are_broken_less_and_less(self) -> None:
        space, limit = flat(6, 4), 14.0
        found = drive(guided(space, limits={"macs": limit}), limited(limit), 100)
        broken = [record.status == "infeasible" for record in found]
        share = np.mean([cost_of(a) > limit for a in space.architectures()])
        assert share > 0.9
        assert np.mean(broken[40:]) < 0.6

    def test_a_limit_that_only_a_handful_of_a_large_space_keeps(self) -> None:
        """No random sample has one; the pool goes towards them."""
        space = flat(20, 5)
        known = Known()
        limit = 60.0  # the mean is over 400
        assert min(known.costs(random_architectures(space, 2000))[:, 0]) > limit
        found = drive(guided(space, known=known, limits={"macs": limit}), limited(limit), 12)
        assert [record.status for record in found] == ["ok"] * 12

    def test_ends_when_nothing_can_keep_a_limit(self) -> None:
        for space in (flat(4, 3), flat(20, 5)):
            assert drive(guided(space, known=Known(), limits={"macs": 0.5}), limited(0.5), 5) == []

    def test_unknown_costs_come_last(self) -> None:
        def unknown(architecture: Architecture) -> bool:
            return architecture["c0"] == 2

        found = drive(guided(self.space, known=Known(unknown)), judge, 1000)
        assert len(found) == self.space.size()
        late = [unknown(record.architecture) for record in found]
        assert late == sorted(late)


class TestFailures:
    def test_a_region_that_fails_is_left(self) -> None:
        """What is large fails, and is what looks best otherwise."""
        space = flat(6, 4)

        def fails(architecture: Architecture) -> TrialResult:
            return TrialResult("failed", error="x") if cost_of(architecture) > 30 else judge(architecture)

        found = drive(guided(space, known=Known()), fails, 80)
        failed = [record.status == "failed" for record in found]
        assert np.mean([cost_of(a) > 30 for a in space.architectures()]) > 0.5
        assert np.mean(failed[30:]) < 0.3

    def test_one_failure_changes_no_prediction(self) -> None:
        space = flat(4, 3)
        strategies = [guided(space, known=Known()) for _ in range(2)]
        for strategy in strategies:
            drive(strategy, judge, 24)
        proposals = []
        for strategy, fails in zip(strategies, (False, True), strict=True):
            if fails:
                bad = next(a for a in space.architectures() if architecture_id(a) not in strategy.tried())
                record = record_of(bad, TrialResult("failed", error="x"), 24)
                strategy.hear(record)
            proposals.append(strategy.propose(np.random.default_rng(5)))
        assert proposals[0] == proposals[1] != bad


class TestBatches:
    @pytest.mark.parametrize("make", [guided, bayesian])
    def test_are_no_copies_of_each_other(self, make: Callable[..., ProposingStrategy]) -> None:
        """Eight that run at a time are nearly as far apart as eight that were asked for one after the other."""
        space = flat(8, 4)

        def spread(workers: int) -> float:
            strategy = make(space)
            drive(strategy, judge, 24)
            found = drive(strategy, judge, 32, workers)[24:]
            codes = IntegerEncoder(space.choices).encode([record.architecture for record in found])
            assert len({record.id for record in found}) == 8
            return float((codes[:, None] != codes[None]).sum(axis=2).sum() / (8 * 7))

        assert spread(8) > max(1.5, 0.7 * spread(1))

    def test_a_belief_moves_the_next_proposal_away(self) -> None:
        """Without taking the pending one for done, the second would be the first's twin."""
        choices = [Choice(f"c{n}", (0, 1, 2, 3)) for n in range(5)]
        space = Choices(*choices, Choice("irrelevant", tuple(range(8))))

        def plain(architecture: Architecture) -> TrialResult:
            relevant = {k: v for k, v in architecture.items() if k != "irrelevant"}
            return judged(1 - error_of(relevant), cost_of(relevant))

        strategy = guided(space)
        drive(strategy, plain, 40)
        batch = []
        for _ in range(6):
            proposed = strategy.propose(np.random.default_rng([0, strategy.index]))
            assert proposed is not None
            strategy.index += 1
            strategy.pending.append(proposed)
            batch.append(tuple(value for label, value in proposed.items() if label != "irrelevant"))
        assert len(set(batch)) >= 5

    @pytest.mark.parametrize("workers", [1, 3, 8])
    def test_results_in_any_order_and_exhaustion(self, workers: int) -> None:
        space = deep(2, 3)
        for strategy in (guided(space, known=Known()), guided(space), bayesian(space)):
            found = drive(strategy, judge_deep, 1000, workers)
            assert len({record.id for record in found}) == len(found) == space.size()

    def test_what_was_believed_is_forgotten(self) -> None:
        """With the same results in the same order, those that were pending in between change no later proposal."""
        space = flat(5, 3)
        alone, beside = guided(space, known=Known()), guided(space, known=Known())
        for strategy in (alone, beside):
            drive(strategy, judge, 20)
        beside.pending = [a for a in space.architectures() if architecture_id(a) not in beside.tried()][:4]
        beside.propose(np.random.default_rng(0))
        beside.pending = []
        for strategy in (alone, beside):
            drive(strategy, judge, 26)
        assert [r.id for r in alone.history] == [r.id for r in beside.history]


def judge_deep(architecture: Architecture) -> TrialResult:
    return judged(accuracy_of(architecture), cost_of(architecture))


class TestPool:
    def problem(self, space: SearchSpace) -> Problem:
        return Problem(space, 0, ("accuracy", "macs"), {}, Known())

    def test_small_spaces_are_whole(self) -> None:
        pool = Pool(self.problem(flat(7, 4)), np.random.default_rng(0))
        assert pool.whole
        assert len(pool) == 4**7

    def test_a_pool_is_a_function_of_its_generator(self) -> None:
        pools = [Pool(self.problem(flat(9, 4)), np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert (pools[0].codes == pools[1].codes).all()
        assert not np.array_equal(pools[0].codes, pools[2].codes)

    def test_renewing(self) -> None:
        pool = Pool(self.problem(flat(12, 4)), np.random.default_rng(0))
        fixed, ranking = pool.codes[: pool.fixed].copy(), np.arange(len(pool), dtype=float)
        tried: set[bytes] = set()
        for step in range(12):
            before = pool.codes
            kept = pool.renew(ranking, pool.codes[:3], tried, np.random.default_rng(step))
            assert (pool.codes[: len(kept)] == before[kept]).all()
            assert len(kept) < len(pool) <= 5000
            assert len(np.unique(pool.codes, axis=0)) == len(pool)
            assert (pool.featurizer.features(pool.codes).x == pool.features.x).all()
            assert pool.known == pytest.approx(Known().costs(pool.encoder.decode(pool.codes)))
            tried.add(pool.codes[-1].tobytes())
            ranking = np.random.default_rng(step).random(len(pool))
        assert (pool.codes[: pool.fixed] == fixed).all()
        assert not pool.untried({pool.codes[5].tobytes()})[5]
        mutants = pool.codes[pool.fixed :]
        assert not tried - {pool.codes[-1].tobytes()} & {row.tobytes() for row in mutants[:-500]}

    def test_the_worst_mutants_go(self) -> None:
        pool = Pool(self.problem(flat(12, 4)), np.random.default_rng(0))
        for step in range(8):
            ranking = -pool.known[:, 0]
            pool.renew(ranking, pool.codes[:0], set(), np.random.default_rng(step))
        assert np.median(pool.known[pool.fixed :]) < np.percentile(pool.known[: pool.fixed], 1)


@pytest.mark.parametrize(
    ("parents", "children", "expected"),
    [(2, 5, [0, 1, 0, 1, 0]), (3, 3, [0, 1, 2]), (6, 3, [0, 2, 4]), (100, 4, [0, 25, 50, 75])],
)
def test_children_come_from_all_parts_of_a_pools_parents(parents: int, children: int, expected: list[int]) -> None:
    assert _in_turn(parents, children).tolist() == expected


def test_what_stopped_trials_would_have_come_to_is_judged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training that goes on tells more of it; the surrogate has to see all of them on one scale."""
    restarts: list[int] = []
    again = PoolSurrogate.restart

    def counted(self: PoolSurrogate) -> None:
        restarts.append(len(restarts))
        again(self)

    monkeypatch.setattr(PoolSurrogate, "restart", counted)

    def with_curve(stops: Callable[[int], bool]) -> int:
        restarts.clear()
        numbers = itertools.count()

        def judge_with_curve(architecture: Architecture) -> TrialResult:
            result, error = judge(architecture), error_of(architecture)
            early = 1 - min(1.0, error * (1.5 + 0.1 * (next(numbers) % 5)))
            if stops(int(architecture["c0"])):
                details = {"curve": [early], "stopped_after": 1, "epochs": 2, "stopped_by": "a rule"}
                return TrialResult("ok", {**result.objectives, "accuracy": early}, details)
            return TrialResult("ok", result.objectives, {"curve": [early, 1 - error]})

        drive(guided(flat(3, 3)), judge_with_curve, 20)
        return len(restarts)

    assert with_curve(lambda _: False) == 0
    assert with_curve(lambda value: value == 1) > 0
