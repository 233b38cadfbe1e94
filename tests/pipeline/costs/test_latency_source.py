"""When a candidate's latency is predicted and when it is measured, with a stand-in for the clock."""

import json
import random
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest

from latency_models.devices.device import Device
from latency_models.devices.environment import Environment, capture
from latency_models.predictors.operator_model import Observation
from latency_models.predictors.operators import Operator
from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.costs.latency_predictor import BlockwisePredictor
from pipeline.costs.latency_source import SEARCH_MEASURE_S, UNSOUGHT_MEASURE_S, LatencySource
from pipeline.costs.predictor_file import CostModelError, Scope, identity_of, save
from pipeline.engines import trial
from pipeline.engines.trial import TrialRunner
from pipeline.evaluators.base import CandidateEvaluator
from pipeline.spaces.base import Architecture, SearchSpace
from pipeline.spaces.make import make_space

HALF_WIDTH = 0.01
# Not the space of any search in other tests, whose cost model would be found there.
SPACE = {"name": "convnet", "width": 8, "depths": [1, 2], "activations": ["relu", "tanh"]}


def operator_ms(operator: Operator) -> float:
    return 0.0005 + 1e-7 * sum(operator.work) * (1 + 0.2 * (len(operator.kind) % 3))


def true_ms(space: SearchSpace, architecture: Architecture) -> float:
    blocks = space.blocks(architecture)
    assert blocks is not None
    return sum(operator_ms(operator) for block in blocks for operator in block.operators)


@dataclass(frozen=True)
class Clock:
    """What a latency says of itself, as far as a search asks."""

    latency_ms: float
    low_ms: float
    high_ms: float
    p50_ms: float
    p99_ms: float
    reference: str = "a stand-in"
    warnings: tuple[str, ...] = ()


class StandInMeter:
    """Knows the time of each graph by its content; counts the measurements."""

    def __init__(self, device: Device | None = None) -> None:
        self.device, self.asked = device or Device(), 0
        self.times: dict[bytes, float] = {}
        self.budgets_s: set[float] = set()
        self.otherwise_ms: float | None = None

    def environment(self) -> Environment:
        return capture(self.device)

    def measure(self, content: bytes, **options: Any) -> Clock:
        self.asked += 1
        self.budgets_s.add(options["budget_s"])
        ms = self.times[content] if self.otherwise_ms is None else self.otherwise_ms
        return Clock(ms, ms * (1 - HALF_WIDTH), ms * (1 + HALF_WIDTH), ms, 2 * ms)


class Bench:
    """A source with what it needs; candidates are numbered architectures with accuracies of their own."""

    def __init__(self, count: int = 60, **changes: Any) -> None:
        sections: dict[str, Any] = {"data": {"name": "digits"}, "space": SPACE, "objectives": ["accuracy", "macs"]}
        self.config: RunConfig = parse_config(sections | changes, "the test's config")
        self.data = trial.load_data(self.config.data)
        self.space = make_space(self.config, self.data)
        rng = random.Random(0)
        self.candidates = [self.space.at(rng.randrange(self.space.size())) for _ in range(count)]
        self.accuracies = [rng.random() for _ in range(count)]
        self.meter = StandInMeter()
        for architecture in self.candidates:
            self.meter.times[self.content(architecture)] = true_ms(self.space, architecture)
        self.source = self.fresh()
        self.scope = Scope(identity_of(self.config, self.data), Device(), capture(Device()))

    def fresh(self) -> LatencySource:
        return LatencySource(self.config, self.data, self.space, self.meter)  # type: ignore[arg-type]

    @staticmethod
    def content(architecture: Architecture) -> bytes:
        return json.dumps(architecture).encode()

    def counted(self, architecture: Architecture) -> dict[str, float]:
        return {"macs": true_ms(self.space, architecture) * 1e6, "params": 1.0, "size_mb": 1.0, "peak_memory_mb": 1.0}

    def before(self, at: int) -> tuple[float, dict[str, Any]]:
        architecture = self.candidates[at]
        return self.source.before_training(architecture, self.counted(architecture), self.content(architecture))

    def after(self, at: int, accuracy: float, ms: float, details: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        architecture = self.candidates[at]
        objectives = {**self.counted(architecture), "latency_ms": ms, "accuracy": accuracy}
        return self.source.after_training(objectives, details, self.content(architecture))

    def judged(self, at: int, *, told: bool = True) -> dict[str, Any]:
        """The trial of a candidate, as a journal holds it; the source is told of it."""
        architecture, limit = self.candidates[at], dict(self.config.constraints).get("latency_ms", float("inf"))
        ms, details = self.before(at)
        objectives = {**self.counted(architecture), "latency_ms": ms}
        status = "infeasible"
        if ms <= limit:
            objectives["accuracy"] = self.accuracies[at]
            ms, details = self.source.after_training(objectives, details, self.content(architecture))
            objectives["latency_ms"] = ms
            status = "ok" if ms <= limit else "infeasible"
        row = {"architecture": architecture, "status": status, "objectives": objectives}
        trial: dict[str, Any] = json.loads(json.dumps({**row, "details": {"latency": details}}))
        if told:
            self.source.learn([trial])
        return trial

    def teach(self, count: int = 20) -> None:
        """As though the first candidates had been measured, and kept no limit."""
        for architecture in self.candidates[:count]:
            ms = true_ms(self.space, architecture)
            latency = {"source": "measured", "low_ms": ms * (1 - HALF_WIDTH), "high_ms": ms * (1 + HALF_WIDTH)}
            objectives = {**self.counted(architecture), "latency_ms": ms}
            row = {"architecture": architecture, "status": "infeasible", "objectives": objectives}
            self.source.learn([{**row, "details": {"latency": latency}}])


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    """A trial but for the seconds that its cost took."""
    latency = {key: value for key, value in row["details"]["latency"].items() if key != "cost_s"}
    return {**row, "details": {"latency": latency}}


class TestBeforeTraining:
    def test_measured_while_too_little_is_known_then_predicted(self) -> None:
        bench = Bench()
        sources = [bench.judged(at)["details"]["latency"]["source"] for at in range(30)]
        assert sources == ["measured"] * BlockwisePredictor.least_nets + ["predicted"] * (
            30 - BlockwisePredictor.least_nets
        )
        assert bench.meter.asked == BlockwisePredictor.least_nets

    @pytest.mark.parametrize(
        ("sections", "sought"),
        [
            ({}, False),
            ({"objectives": ["accuracy", "latency_ms"]}, True),
            ({"constraints": {"latency_ms": 5.0}}, True),
        ],
    )
    def test_what_is_only_told_is_measured_for_a_shorter_time(self, sections: dict[str, Any], sought: bool) -> None:
        bench = Bench(count=1, **sections)
        bench.judged(0)
        assert bench.meter.budgets_s == {SEARCH_MEASURE_S if sought else UNSOUGHT_MEASURE_S}
        assert UNSOUGHT_MEASURE_S < SEARCH_MEASURE_S

    def test_what_nobody_told_is_not_known(self) -> None:
        """Its trial may have run in another process, which mustn't know more than this one."""
        bench = Bench(objectives=["accuracy", "latency_ms"])
        rows = [bench.judged(at, told=False) for at in range(30)]
        assert {row["details"]["latency"]["source"] for row in rows} == {"measured"}
        bench.source.learn(rows)
        assert bench.before(40)[1]["source"] == "predicted"

    def test_a_measurement_is_told_whole(self) -> None:
        bench = Bench()
        ms, details = bench.before(0)
        assert ms == true_ms(bench.space, bench.candidates[0])
        assert details.keys() == {"source", "cost_s", *(field.name for field in fields(Clock))} - {"latency_ms"}
        assert details["low_ms"] == ms * (1 - HALF_WIDTH)
        assert details["cost_s"] > 0

    def test_a_prediction_is_told_with_its_interval(self) -> None:
        bench = Bench()
        bench.teach()
        ms, details = bench.before(40)
        assert details["predicted"] == {"latency_ms": ms, "low_ms": details["low_ms"], "high_ms": details["high_ms"]}
        assert details["low_ms"] < ms < details["high_ms"]
        assert ms == pytest.approx(true_ms(bench.space, bench.candidates[40]), rel=0.2)

    def test_predictions_are_good(self) -> None:
        bench = Bench()
        bench.teach(40)
        off = [bench.before(at)[0] / true_ms(bench.space, bench.candidates[at]) - 1 for at in range(40, 60)]
        assert np.abs(off).mean() < 0.05

    def test_a_measurement_has_the_prediction_beside_it_and_improves_the_model(self) -> None:
        bench = Bench(objectives=["accuracy", "latency_ms"])
        bench.teach()
        before, details = bench.before(40)
        predicted = details["predicted"]
        truth, details = bench.after(40, 0.5, before, details)
        objectives = {**bench.counted(bench.candidates[40]), "latency_ms": truth, "accuracy": 0.5}
        row = {"architecture": bench.candidates[40], "status": "ok", "objectives": objectives}
        bench.source.learn([{**row, "details": {"latency": details}}])
        assert details["source"] == "measured"
        assert details["predicted"] == predicted
        assert truth == true_ms(bench.space, bench.candidates[40]) != predicted["latency_ms"]
        after, details = bench.before(40)
        assert details["source"] == "predicted"
        assert abs(after - truth) < abs(before - truth)

    def test_measured_where_the_interval_straddles_the_limit(self) -> None:
        free = Bench()
        free.teach()
        predicted = [free.before(at)[1] for at in range(20, 60)]
        middle = sorted(details["predicted"]["latency_ms"] for details in predicted)[20]
        bench = Bench(constraints={"latency_ms": middle})
        sources = set()
        for at, free_details in enumerate(predicted, 20):
            bench.source = bench.fresh()  # as much is known as there
            bench.teach()
            ms, details = bench.before(at)
            straddled = free_details["low_ms"] <= middle < free_details["high_ms"]
            assert details["source"] == ("measured" if straddled else "predicted")
            assert straddled or (ms <= middle) == (details["high_ms"] <= middle)
            sources.add(details["source"])
        assert sources == {"measured", "predicted"}

    def test_measure_asks_no_model(self) -> None:
        bench = Bench(cost_model="measure")
        details = [bench.before(at)[1] for at in range(30)]
        assert all(each["source"] == "measured" and "predicted" not in each for each in details)
        assert bench.meter.asked == 30


class TestAfterTraining:
    def trained(self, bench: Bench, at: int, accuracy: float) -> dict[str, Any]:
        bench.accuracies[at] = accuracy
        return bench.judged(at)

    def objectives(self) -> Bench:
        bench = Bench(objectives=["accuracy", "latency_ms"])
        bench.teach()
        return bench

    def test_the_first_may_join_the_front(self) -> None:
        row = self.trained(self.objectives(), 30, 0.1)
        assert row["details"]["latency"]["source"] == "measured"
        assert row["details"]["latency"]["predicted"]["latency_ms"] != row["objectives"]["latency_ms"]

    def test_the_dominated_is_only_predicted(self) -> None:
        bench = self.objectives()
        order = sorted(range(20, 60), key=lambda at: true_ms(bench.space, bench.candidates[at]))
        self.trained(bench, order[0], 0.9)
        asked = bench.meter.asked
        row = self.trained(bench, order[-1], 0.8)
        assert row["details"]["latency"]["source"] == "predicted"
        assert bench.meter.asked == asked

    @pytest.mark.parametrize(("place", "accuracy"), [(-1, 0.95), (1, 0.5)], ids=["more accurate", "perhaps faster"])
    def test_whoever_may_join_is_measured(self, place: int, accuracy: float) -> None:
        bench = self.objectives()
        order = sorted(range(20, 60), key=lambda at: true_ms(bench.space, bench.candidates[at]))
        first = order[0] if place == -1 else order[20]
        other = order[place]
        self.trained(bench, first, 0.9)
        row = self.trained(bench, other, accuracy)
        assert row["details"]["latency"]["source"] == "measured"
        assert row["objectives"]["latency_ms"] == true_ms(bench.space, bench.candidates[other])

    def test_a_candidate_is_measured_once(self) -> None:
        bench = Bench(objectives=["accuracy", "latency_ms"])
        for at in range(5):
            self.trained(bench, at, 0.1 * at)
        assert bench.meter.asked == 5

    def test_without_latency_among_the_objectives_nobody_is(self) -> None:
        bench = Bench()
        bench.teach()
        row = self.trained(bench, 30, 1.0)
        assert row["details"]["latency"]["source"] == "predicted"

    def test_every_member_of_the_front_was_measured(self) -> None:
        bench = self.objectives()
        rows = [bench.judged(at) for at in range(20, 60)]
        found = [(-row["objectives"]["accuracy"], row["objectives"]["latency_ms"]) for row in rows]
        dominated = [any(a <= c and b <= d and (a, b) != (c, d) for a, b in found) for c, d in found]
        sources = [row["details"]["latency"]["source"] for row in rows]
        assert all(source == "measured" for source, beaten in zip(sources, dominated, strict=True) if not beaten)
        assert "predicted" in sources

    def test_one_beyond_the_limit_keeps_nobody_from_the_front(self) -> None:
        bench = Bench(objectives=["accuracy", "latency_ms"], constraints={"latency_ms": 100.0})
        bench.teach()
        order = sorted(range(20, 60), key=lambda at: true_ms(bench.space, bench.candidates[at]))
        bench.meter.times[bench.content(bench.candidates[order[0]])] = 101.0
        assert self.trained(bench, order[0], 0.99)["status"] == "infeasible"
        assert self.trained(bench, order[-1], 0.5)["details"]["latency"]["source"] == "measured"


class TestRestore:
    @pytest.mark.parametrize(
        "changes",
        [
            {"objectives": ["accuracy", "latency_ms"]},
            {"objectives": ["accuracy", "macs"], "constraints": {"latency_ms": 0.02}},
            {"objectives": ["accuracy", "latency_ms"], "constraints": {"latency_ms": 0.02}},
        ],
        ids=str,
    )
    def test_decisions_are_those_without_a_restart(self, changes: dict[str, Any]) -> None:
        changes = dict(changes)
        if "constraints" in changes:
            times = sorted(Bench().meter.times.values())
            changes["constraints"] = {"latency_ms": times[len(times) // 2]}
        whole = Bench(**changes)
        rows = [whole.judged(at) for at in range(60)]
        sources = [row["details"]["latency"]["source"] for row in rows]
        assert sources.count("predicted") > 5
        for stop in (3, 12, 25, 45):
            again = Bench(**changes)
            again.source.learn(rows[:stop])
            found = [again.judged(at) for at in range(stop, 60)]
            assert list(map(without_clock, found)) == list(map(without_clock, rows[stop:]))
            assert again.meter.asked == sources[stop:].count("measured")

    def test_also_where_a_measurement_broke_the_limit_after_training(self) -> None:
        changes = {"objectives": ["accuracy", "latency_ms"], "constraints": {"latency_ms": 100.0}}
        whole, again = Bench(**changes), Bench(**changes)
        fastest = min(range(20, 60), key=lambda at: true_ms(whole.space, whole.candidates[at]))
        order = [*range(20), fastest, *(at for at in range(20, 60) if at != fastest)]
        for bench in (whole, again):
            bench.accuracies[fastest] = 2.0
            bench.meter.times[bench.content(bench.candidates[fastest])] = 101.0
        rows = [whole.judged(at) for at in order]
        assert [row["status"] for row in rows].count("infeasible") == 1
        again.source.learn(rows[:30])
        found = [again.judged(at) for at in order[30:]]
        assert list(map(without_clock, found)) == list(map(without_clock, rows[30:]))

    def test_trials_without_a_latency_are_no_news(self) -> None:
        bench = Bench()
        failed = {"architecture": bench.candidates[0], "status": "failed", "objectives": {}, "details": {}}
        over = {**failed, "status": "infeasible", "objectives": {"macs": 9.0}, "details": {"excess": {"macs": 1.0}}}
        bench.source.learn([failed, over] * 20)
        assert bench.before(1)[1]["source"] == "measured"


class TestWhichModel:
    def calibrated(self, bench: Bench) -> BlockwisePredictor:
        model, rng = BlockwisePredictor(bench.space), random.Random(1)
        found = []
        for at in range(60):
            blocks = bench.space.blocks(bench.space.at(rng.randrange(bench.space.size())))
            assert blocks is not None
            start = at % (len(blocks) - 1)
            operators = bench.space.chain(blocks[start : start + 2]).operators
            found.append(Observation(operators, sum(map(operator_ms, operators)), 0.005))
        model.observe_probes(found)
        return model

    def test_a_named_file_is_used_from_the_first_candidate_on(self, tmp_path: Any) -> None:
        path = tmp_path / "model.json"
        bench = Bench()
        save(path, self.calibrated(bench), bench.scope)
        named = Bench(cost_model=str(path))
        ms, details = named.before(0)
        assert details["source"] == "predicted"
        assert ms == pytest.approx(true_ms(named.space, named.candidates[0]), rel=0.2)

    def test_a_named_file_that_cant_be_used_is_told(self, tmp_path: Any) -> None:
        with pytest.raises(CostModelError, match="there is no cost model"):
            Bench(cost_model=str(tmp_path / "none.json"))

    def test_the_one_in_its_place_is_found(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        bench = Bench()
        assert bench.before(0)[1]["source"] == "measured"
        save(bench.scope.file, self.calibrated(bench), bench.scope)
        assert Bench().before(0)[1]["source"] == "predicted"
        assert Bench(cost_model="measure").before(0)[1]["source"] == "measured"


class Certain(CandidateEvaluator):
    def evaluate(self, model: Any, progress: Any = None) -> float:
        return 1.0


class TestATrial:
    """The same through a whole trial, which builds the network and its graph."""

    def runner(self, monkeypatch: pytest.MonkeyPatch, limit_ms: float) -> tuple[TrialRunner, Bench]:
        monkeypatch.setattr(trial, "LatencyMeter", StandInMeter)
        changes = {"objectives": ["accuracy", "latency_ms"], "constraints": {"latency_ms": limit_ms}}
        bench = Bench(**changes)
        runner = TrialRunner(bench.config, [bench.judged(at) for at in range(20)])
        runner.evaluator = Certain(bench.config.evaluator, bench.data, bench.config.train)
        return runner, bench

    def test_a_limit_that_only_the_measurement_breaks_makes_it_infeasible(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner, bench = self.runner(monkeypatch, 10.0)
        runner.target.meter.otherwise_ms = 12.5  # type: ignore[attr-defined]
        result = runner.run(bench.candidates[30])
        assert result.status == "infeasible"
        assert result.objectives["latency_ms"] == 12.5
        assert result.objectives["accuracy"] == 1.0
        assert result.details["excess"] == {"latency_ms": 0.25}
        assert result.details["latency"]["source"] == "measured"
        assert result.details["latency"]["predicted"]["high_ms"] < 10.0

    def test_a_limit_that_the_measurement_keeps_leaves_it_feasible(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runner, bench = self.runner(monkeypatch, 10.0)
        runner.target.meter.otherwise_ms = 0.5  # type: ignore[attr-defined]
        result = runner.run(bench.candidates[30])
        assert result.status == "ok"
        assert result.objectives["latency_ms"] == 0.5
        assert "excess" not in result.details

    def test_a_limit_that_even_the_lowest_prediction_breaks_is_neither_measured_nor_trained(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner, bench = self.runner(monkeypatch, 1e-3)
        result = runner.run(bench.candidates[30])
        assert result.status == "infeasible"
        assert result.details["latency"]["source"] == "predicted"
        assert result.details["latency"]["low_ms"] > 1e-3
        assert "accuracy" not in result.objectives
        assert runner.target.meter.asked == 0  # type: ignore[attr-defined]
