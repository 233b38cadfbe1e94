"""The parts of `benchmarks/` that compare strategies: Optuna's as ours, trials needed, the published search."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.benchmark_scripts import scripts
from helpers.places import shared_data
from helpers.published import bench_config, plain_row, write_table
from pipeline.bench.config import load_bench
from pipeline.bench.curves import value_at
from pipeline.bench.run import Result, Task, Workbench
from pipeline.bench.summary import Summary

optuna_strategies, tables, published = scripts("optuna_strategies", "curve_tables", "published_search")

OPTUNA = ["optuna_strategies:tpe", "optuna_strategies:nsga2"]


def workbench(folder: Path, **changes: Any) -> Workbench:
    path = bench_config(folder, strategies=OPTUNA, **changes)
    return Workbench(load_bench(path, []), str(path))


class TestOptuna:
    @pytest.mark.parametrize("number", [0, 1])
    def test_finds_everything_and_pays_for_nothing_twice(self, tmp_path: Path, number: int) -> None:
        table = write_table(tmp_path / "t.csv", k000={"acc": ""})  # one trial fails
        result = workbench(tmp_path, table=table, report_at=[27]).run(Task(number, "slow_ms", 0))
        assert result.trials == 27
        assert value_at(result.hypervolume, 27) == pytest.approx(1.0)

    @pytest.mark.parametrize("number", [0, 1])
    def test_the_seed_decides(self, tmp_path: Path, number: int) -> None:
        bench = workbench(tmp_path, report_at=[12])
        first, again, other = (bench.run(Task(number, "fast_ms", seed)) for seed in (4, 4, 5))
        assert first.hypervolume == again.hypervolume
        assert first.hypervolume != other.hypervolume

    @pytest.mark.parametrize("number", [0, 1])
    def test_limits_are_told(self, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[float] = []
        set_constraint = optuna_strategies.optuna.Trial.set_constraint

        def watched(trial: Any, key: str, value: float) -> None:
            told.append(value)
            set_constraint(trial, key, value)

        monkeypatch.setattr(optuna_strategies.optuna.Trial, "set_constraint", watched)
        changes = {"objectives": ["accuracy"], "constraints": {"latency_ms": 2.0}, "report_at": [12]}
        result = workbench(tmp_path, **changes).run(Task(number, "slow_ms", 1))
        best = max(row["acc"] for row in map(plain_row, np.ndindex(3, 3, 3)) if row["slow_ms"] <= 2)
        assert result.regret[-1][1] == pytest.approx(0.0)
        assert result.regret[0][1] == pytest.approx(best / 100)
        assert min(told) == 0.0
        assert 0 < max(told) < 1


def told(folder: Path, curves: dict[int, list[tuple[int, float]]], trials: int) -> Any:
    """The figures of one strategy whose curves are given, by seed."""
    path = bench_config(folder, strategies=["random"], seeds=len(curves), report_at=[trials], devices=["slow_ms"])
    config = load_bench(path, [])
    results = {Task(0, "slow_ms", seed): Result(trials, 0.0, steps, [(0, 1.0)]) for seed, steps in curves.items()}
    return tables.CaseFigures(config, Summary(config, results), {"random": len(curves)})


class TestTrialsNeeded:
    def test_between_two_trials_in_proportion(self, tmp_path: Path) -> None:
        ours = told(tmp_path, {0: [(0, 0.0), (4, 0.55)], 1: [(0, 0.0), (4, 0.65)]}, 4)
        others = told(tmp_path, {s: [(0, 0.0), (9, 0.5), (10, 0.7)] for s in (0, 1)}, 20)
        found = tables.needed(ours, "random", others, "random", 4, 20)
        assert found == "2.38 (2.31 to 2.44), 2 seeds; guided has 0.6000"

    def test_never_reached(self, tmp_path: Path) -> None:
        ours = told(tmp_path, {0: [(0, 0.9)], 1: [(0, 0.9)]}, 4)
        others = told(tmp_path, {0: [(0, 0.5)], 1: [(0, 0.6)]}, 20)
        assert tables.needed(ours, "random", others, "random", 4, 20).startswith("> 5.0 (> 5.0 to > 5.0)")


class TestPublishedSearch:
    def test_the_budget_is_training_time(self) -> None:
        path = shared_data("nasbench201.csv.gz")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            seconds = [float(row["train_s_12"]) for row in csv.DictReader(file)]
        found = published.Published(path).search({"name": "random"}, 3, None)
        assert 12_000 <= found.spent_s < 12_000 + max(seconds)
        assert found.scores["trials at that time"] == found.trials
        assert 12_000 / max(seconds) < found.trials < 12_000 / min(seconds)
        assert 85 < found.scores["time"] < 94.4

    def test_it_goes_on_until_the_trials_are_done(self) -> None:
        search = published.Published(shared_data("nasbench201.csv.gz")).search
        short, long = search({"name": "random"}, 3, None), search({"name": "random"}, 3, 150)
        assert long.trials == 150
        assert long.scores["time"] == short.scores["time"]
        assert "150" in long.scores
