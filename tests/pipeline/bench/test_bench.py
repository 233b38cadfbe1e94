"""`hwnas bench`: the figures against hand-made tables, and the command with all that users and kills do to it."""

import contextlib
import csv
import gzip
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from helpers.cli import check_message, small_config, spawn, wait_for
from helpers.places import shared_data
from helpers.published import EVALUATOR, bench_config, plain_row, write_table
from pipeline.bench.config import load_bench
from pipeline.bench.curves import Truth, value_at, values_at
from pipeline.bench.results import KeptResults, code_digest, deciding_files
from pipeline.bench.run import Task, Workbench
from pipeline.bench.summary import mean_with_interval, plotted_trials
from pipeline.errors import ConfigError, RunDirectoryError
from pipeline.files import locked
from pipeline.trials.journal import TrialRecord
from pipeline.trials.objectives import hypervolume


def workbench(folder: Path, **changes: Any) -> Workbench:
    path = bench_config(folder, **changes)
    return Workbench(load_bench(path, []), str(path))


def record(number: int, status: Any, **objectives: float) -> TrialRecord:
    return TrialRecord(number, str(number), {}, status, 0.0, objectives, "", 0.0, 0.0)


class TestFigures:
    TRUTH = Truth(("error", "latency_ms"), np.array([0.5, 10.0]), 4.0, 1.0, 0.9, 100)

    def test_curves_of_a_search_by_hand(self) -> None:
        shares, regrets = self.TRUTH.curves(
            [
                record(0, "ok", accuracy=0.4, latency_ms=1.0),  # beyond the reference: no volume
                record(1, "infeasible", latency_ms=20.0),  # costs no trial
                record(2, "failed"),
                record(3, "ok", accuracy=0.7, latency_ms=5.0),  # (0.5 − 0.3) · (10 − 5) = 1
                record(4, "ok", accuracy=0.6, latency_ms=6.0),  # dominated
                record(5, "ok", accuracy=0.6, latency_ms=3.0),  # + (0.5 − 0.4) · (5 − 3) = 0.2
                record(6, "ok", accuracy=0.8, latency_ms=3.0),  # dominates both: 0.3 · 7 = 2.1
            ]
        )
        assert [(n, round(v, 9)) for n, v in shares] == [(0, 0.0), (3, 0.25), (5, 0.3), (6, 0.525)]
        assert [(n, round(v, 9)) for n, v in regrets] == [(0, 0.9), (1, 0.5), (3, 0.2), (6, 0.1)]
        assert [value_at(shares, n) for n in (0, 2, 3, 4, 100)] == pytest.approx([0.0, 0.0, 0.25, 0.25, 0.525])
        np.testing.assert_allclose(
            values_at(regrets, np.array([0, 1, 2, 3, 5, 6, 50])), [0.9, 0.5, 0.5, 0.2, 0.2, 0.1, 0.1]
        )

    def test_the_truth_of_a_table(self, tmp_path: Path) -> None:
        bench = workbench(tmp_path)
        truth = bench.truth("slow_ms")
        rows = [plain_row((a, b, c)) for a in range(3) for b in range(3) for c in range(3)]
        losses = np.array([[1 - row["acc"] / 100, row["slow_ms"]] for row in rows])
        reference = [np.percentile(losses[:, 0], 90), np.percentile(losses[:, 1], 99)]
        np.testing.assert_allclose(truth.reference, reference)
        assert truth.hypervolume == pytest.approx(hypervolume(losses, np.array(reference)))
        assert truth.best_accuracy == pytest.approx(max(row["acc"] for row in rows) / 100)
        assert (truth.reachable, truth.rows) == (1.0, 27)

    def test_limits_and_invalid_rows(self, tmp_path: Path) -> None:
        table = write_table(tmp_path / "t.csv", k220={"acc": ""}, k210={"slow_ms": ""})
        bench = workbench(tmp_path, table=table, constraints={"latency_ms": 2.6})
        truth = bench.truth("slow_ms")
        assert truth.rows == 25
        assert truth.best_accuracy == pytest.approx(plain_row((1, 1, 0))["acc"] / 100)
        assert 0 < truth.reachable < 1

    def test_limits_by_percentile_follow_the_device(self, tmp_path: Path) -> None:
        bench = workbench(tmp_path, limit_percentiles={"latency_ms": 30})
        rows = [plain_row((a, b, c)) for a in range(3) for b in range(3) for c in range(3)]
        for device in ("slow_ms", "fast_ms"):
            limit = float(np.percentile([row[device] for row in rows], 30))
            assert bench.limits(device) == {"latency_ms": pytest.approx(limit)}
            best = max(row["acc"] for row in rows if row[device] <= limit)
            assert bench.truth(device).best_accuracy == pytest.approx(best / 100)

    def test_a_search_of_everything_finds_everything(self, tmp_path: Path) -> None:
        bench = workbench(tmp_path, strategies=["grid"], report_at=[5, 27])
        for device in ("slow_ms", "fast_ms"):
            result = bench.run(Task(0, device, 0))
            assert result.trials == 27
            assert value_at(result.hypervolume, 27) == pytest.approx(1.0)
            assert value_at(result.regret, 27) == pytest.approx(0.0)
            assert value_at(result.hypervolume, 5) < 1
            assert result.seconds_per_trial > 0

    def test_failed_trials_count_and_a_space_may_end_early(self, tmp_path: Path) -> None:
        table = write_table(tmp_path / "t.csv", k000={"acc": ""}, k111=None)
        bench = workbench(tmp_path, table=table, strategies=["grid"], report_at=[1000])
        result = bench.run(Task(0, "slow_ms", 0))
        assert result.trials == 27
        assert value_at(result.hypervolume, 1000) == pytest.approx(1.0)

    def test_three_objectives(self, tmp_path: Path) -> None:
        evaluator = {**EVALUATOR, "path": str(write_table(tmp_path / "t.csv")), "costs": {"macs": "fast_ms"}}
        changes = {"evaluator": evaluator, "devices": ["slow_ms"], "strategies": ["grid"], "report_at": [27]}
        bench = workbench(tmp_path, objectives=["accuracy", "latency_ms", "macs"], **changes)
        assert bench.truth("slow_ms").objectives == ("error", "latency_ms", "macs")
        assert value_at(bench.run(Task(0, "slow_ms", 0)).hypervolume, 27) == pytest.approx(1.0)

    def test_an_interval_of_students_t(self) -> None:
        mean, low, high = mean_with_interval(np.array([[1.0], [2.0], [6.0]]))
        assert mean == pytest.approx(3.0)
        assert high - mean == pytest.approx(4.3026527 * math.sqrt(7.0) / math.sqrt(3))
        assert mean - low == pytest.approx(high - mean)
        assert np.isnan(mean_with_interval(np.array([[1.0]]))[1:]).all()

    def test_accuracy_alone_under_a_limit(self, tmp_path: Path) -> None:
        changes = {"objectives": ["accuracy"], "limit_percentiles": {"latency_ms": 30}, "report_at": [12]}
        names = ["grid", "local_search", "nsga2", "guided"]
        bench = workbench(tmp_path, strategies=names, **changes)
        errors = [1 - plain_row((a, b, c))["acc"] / 100 for a in range(3) for b in range(3) for c in range(3)]
        truth = bench.truth("slow_ms")
        assert truth.hypervolume == pytest.approx(np.percentile(errors, 90) - min(errors))
        for number in range(len(names)):
            result = bench.run(Task(number, "slow_ms", 0))
            assert value_at(result.regret, 12) == pytest.approx(0.0)  # twelve rows keep the limit
            assert value_at(result.hypervolume, 12) == pytest.approx(truth.reachable)

    def test_plotted_trials_begin_and_end_where_the_search_does(self) -> None:
        assert plotted_trials(3) == [1, 2, 3]
        assert (plotted_trials(1000)[0], plotted_trials(1000)[-1], len(plotted_trials(1000))) == (1, 1000, 120)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from pipeline.bench.command import bench
    from pipeline.trials.reporter import Reporter

    folder = tmp_path_factory.mktemp("bench")
    return bench(bench_config(folder), [], folder / "out", 1, Reporter())


class TestCommand:
    def test_the_documents_fields(self, document: dict[str, Any]) -> None:
        json.dumps(document, allow_nan=False)
        results = document["results"]
        assert [(r["strategy"], r["device"], r["seed"]) for r in results] == [
            (s, d, n) for s in ("random", "evolution") for d in ("slow_ms", "fast_ms") for n in (0, 1)
        ]
        for each in results:
            assert list(each["hypervolume"]) == list(each["regret"]) == ["3", "6", "12"]
            assert 0 <= each["hypervolume"]["3"] <= each["hypervolume"]["12"] <= 1
            assert each["regret"]["3"] >= each["regret"]["12"] >= 0
            assert each["seconds_per_trial"] > 0

    def test_means_are_those_of_the_seeds(self, document: dict[str, Any]) -> None:
        for row in document["summary"]:
            chosen = [
                each["hypervolume"]["6"]
                for each in document["results"]
                if each["strategy"] == row["strategy"] and row["device"] in (None, each["device"])
            ]
            assert row["hypervolume"]["6"]["mean"] == pytest.approx(np.mean(chosen))
            assert row["hypervolume"]["6"]["low"] <= row["hypervolume"]["6"]["mean"] <= row["hypervolume"]["6"]["high"]
        assert [row["device"] for row in document["summary"]] == [None] * 2 + ["slow_ms"] * 2 + ["fast_ms"] * 2

    def test_the_others_are_compared_with_the_first(self, document: dict[str, Any]) -> None:
        of = {(r["strategy"], r["device"], r["seed"]): r["regret"]["12"] for r in document["results"]}
        for row in document["comparisons"]:
            assert (row["strategy"], row["against"]) == ("evolution", "random")
            devices = ["slow_ms", "fast_ms"] if row["device"] is None else [row["device"]]
            pairs = [of["evolution", d, seed] - of["random", d, seed] for d in devices for seed in (0, 1)]
            assert row["regret"]["12"]["mean"] == pytest.approx(np.mean(pairs))
        assert [row["device"] for row in document["comparisons"]] == [None, "slow_ms", "fast_ms"]

    def test_the_page_stands_alone(self, document: dict[str, Any]) -> None:
        page = Path(document["page"]).read_text(encoding="utf-8")
        assert page.count("<svg") == 3
        assert "mean of all devices" in page
        assert page.count("More than random") == 3
        assert not any(text in page for text in ("<script", "<link", "http-equiv"))

    def test_jobs_change_no_result(self, document: dict[str, Any], hwnas: Any, tmp_path: Path) -> None:
        config = bench_config(tmp_path)
        result = hwnas("bench", config, "--jobs", 2, "--output", tmp_path / "out", "--json")
        assert result.code == 0, result.stderr
        assert _timeless(result.document()) == _timeless(document)

    def test_finished_searches_are_used_again(self, hwnas: Any, tmp_path: Path, monkeypatch: Any) -> None:
        ran: list[Task] = []
        run = Workbench.run
        monkeypatch.setattr(Workbench, "run", lambda bench, task: (ran.append(task), run(bench, task))[1])
        out, call = tmp_path / "out", ("bench", bench_config(tmp_path), "--jobs", 1, "--json", "--output")
        first = hwnas(*call, out).document()
        assert len(ran) == 8
        kept = out / "results.jsonl"
        lines = kept.read_text(encoding="utf-8").splitlines(keepends=True)
        kept.write_text("".join(lines[:3]) + lines[3][:50], encoding="utf-8")  # as a kill may leave it
        again = hwnas(*call, out)
        assert "3 of 8 searches are taken" in again.stderr
        assert len(ran) == 8 + 5
        assert _timeless(again.document()) == _timeless(first)
        more = hwnas(*call, out, "--set", "seeds=3", "--set", "report_at=[2, 12]").document()
        assert len(ran) == 8 + 5 + 4
        assert more["results"][0]["hypervolume"].keys() == {"2", "12"}
        hwnas(*call, out, "--set", "reward.exponent=-0.5")
        assert len(ran) == 8 + 5 + 4 + 8

    def test_a_person_gets_a_table(self, hwnas: Any, tmp_path: Path) -> None:
        result = hwnas("bench", bench_config(tmp_path, seeds=1), "--output", tmp_path / "out", "--jobs", 1)
        assert result.code == 0
        assert all(
            word in result.stdout for word in ("hypervolume @12", "regret @3", "evolution", "slow_ms", "bench.html")
        )
        assert "±" not in result.stdout
        assert "more than random" not in result.stdout
        assert "search 4 of 4" in result.stderr

    def test_strategies_of_the_same_name_are_told_apart(self, hwnas: Any, tmp_path: Path) -> None:
        twice = [{"name": "evolution", "population": 4}, {"name": "evolution", "population": 6, "sample": 2}]
        config = bench_config(tmp_path, strategies=twice, seeds=1, devices=["slow_ms"])
        result = hwnas("bench", config, "--output", tmp_path / "out", "--jobs", 1, "--json")
        labels = [row["strategy"] for row in result.document()["results"]]
        assert labels == ["evolution(population=4)", "evolution(population=6, sample=2)"]

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_a_strategy_that_raises(self, hwnas: Any, tmp_path: Path, jobs: int, monkeypatch: Any) -> None:
        (tmp_path / "wild_strategies.py").write_text("def wild(options, problem):\n    raise KeyError('oh')\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)
        config = bench_config(tmp_path, strategies=["random", "wild_strategies:wild"], devices=["slow_ms"], seeds=1)
        result = hwnas("bench", config, "--output", tmp_path / "out", "--jobs", jobs)
        assert result.code == 2
        assert "wild_strategies:wild on slow_ms with seed 0" in result.stderr
        assert "KeyError" in result.stderr

    def test_a_process_that_dies(self, hwnas: Any, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "deadly_strategies.py").write_text("import os\ndef deadly(options, problem):\n    os._exit(3)\n")
        monkeypatch.chdir(tmp_path)
        config = bench_config(tmp_path, strategies=["deadly_strategies:deadly"], devices=["slow_ms"])
        result = hwnas("bench", config, "--output", tmp_path / "out", "--jobs", 2)
        assert result.code == 1
        assert "deadly_strategies:deadly on slow_ms with seed" in result.stderr
        assert "its process died" in result.stderr

    def test_ctrl_c_and_how_to_go_on(self, tmp_path: Path) -> None:
        config = bench_config(tmp_path, seeds=5000, report_at=[26])
        process = spawn("bench", str(config), "--output", "out", "--jobs", "2", "--set", "name=x", cwd=tmp_path)
        kept = tmp_path / "out" / "results.jsonl"
        wait_for(lambda: kept.exists() and kept.read_text(encoding="utf-8").count("\n") > 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == ""
        assert f"interrupted; go on with: hwnas bench {config} --set name=x --output out" in err
        assert "Traceback" not in err


WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("strategy", {"strategy": "random"}, ("strategy: a benchmark has several", "strategies: [")),
    ("seed", {"seed": 3}, ("seed: a benchmark has several", "seeds: 20")),
    ("no strategies", {"strategies": None}, ("strategies: is required", "evolution")),
    ("empty", {"strategies": []}, ("strategies: needs a list", "evolution")),
    ("unknown", {"strategies": ["random", "evolutoin"]}, ("strategies.1.name", "did you mean 'evolution'?")),
    ("option", {"strategies": [{"name": "grid", "shufle": True}]}, ("strategies.0.shufle", "'shuffle'")),
    ("twice", {"strategies": ["random", "random"]}, ("strategies: lists one twice",)),
    (
        "sample",
        {"strategies": [{"name": "evolution", "population": 2, "sample": 3}]},
        ("sample: must not exceed the population",),
    ),
    ("foreign", {"strategies": ["no_module:make"]}, ("strategies.0", "no_module", "can't be imported")),
    ("key", {"sedes": 3}, ("sedes: unknown key", "did you mean 'seeds'?")),
    ("seeds", {"seeds": 0}, ("seeds", "0")),
    ("report_at", {"report_at": [3, 3]}, ("report_at", "twice")),
    ("no report_at", {"report_at": []}, ("report_at", "at least 1")),
    ("device", {"devices": ["slow"]}, ("devices:", "'slow'", "did you mean 'slow_ms'?", "fast_ms")),
    ("device twice", {"devices": ["slow_ms", "slow_ms"]}, ("devices", "twice")),
    ("no device", {"devices": None}, ("devices: needs columns", "evaluator.costs", "latency_ms")),
    ("budget", {"budget": {"trials": 5}}, ("budget.trials: 5 is less than the 12 of report_at",)),
    ("evaluator", {"evaluator": {"name": "train"}}, ("evaluator.name", "'train'", "table")),
    ("no evaluator", {"evaluator": None}, ("evaluator: is required", "table")),
    ("file", {"evaluator": {**EVALUATOR, "path": "none.csv"}}, ("evaluator.path: there is no file none.csv",)),
    ("limit", {"constraints": {"latency_ms": 0.001}}, ("constraints", "none of the table's rows", "slow_ms")),
    ("accuracy alone", {"objectives": ["accuracy"]}, ("accuracy alone", "limit_percentiles")),
    ("objective", {"objectives": ["accuracy", "latency_ms", "macs"]}, ("evaluator.costs: has no column of macs",)),
    ("two limits", {"constraints": {"latency_ms": 1}, "limit_percentiles": {"latency_ms": 5}}, ("already",)),
    ("space", {"space": {"name": "tabel", "choices": 3}}, ("space.name", "did you mean 'table'?")),
    ("other space", {"space": {"name": "nasbench201"}}, ("evaluator.key", "'000'", "none~0")),
    ("no keys", {"space": {"name": "convnet"}}, ("space", "no names that a table could have")),
    ("activations", {"space": {"name": "nasbench201", "activations": ["silu"]}}, ("relu", "'silu'")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_config_is_told_before_anything_is_written(
    hwnas: Any, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    result = hwnas("bench", bench_config(tmp_path, **changes), "--output", tmp_path / "out", "--jobs", 1)
    check_message(result, 2, *words)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_else(hwnas: Any, tmp_path: Path) -> None:
    config = bench_config(tmp_path)
    check_message(hwnas("bench", config, "--output", tmp_path), 2, str(tmp_path), "holds no results")


class TestCodeThatDecides:
    def test_it_holds_whatever_a_search_imports(self, tmp_path: Path) -> None:
        for strategies, space in ((["guided", "controller"], {}), (["tpe"], {"space": {"name": "nasbench201"}})):
            with contextlib.suppress(ConfigError):  # the small table knows nothing of that space
                bench = workbench(tmp_path, strategies=strategies, **space)
                for number in range(len(strategies)):
                    bench.run(Task(number, "slow_ms", 0))
        names = [name for name in sys.modules if name.partition(".")[0] in ("pipeline", "export", "latency_models")]
        imported = {Path(str(sys.modules[name].__file__)) for name in names}
        root = Path(pipeline.__file__).parents[1]
        assert len(imported) > 50
        assert imported <= set(deciding_files(root))

    def test_any_change_of_any_file_is_seen(self, tmp_path: Path) -> None:
        digests = set()
        for root, content in enumerate(("a = 1", "a = 2", "a = 2")):
            file = tmp_path / str(root) / "pipeline" / "evaluators" / f"{'renamed' if root == 2 else 'old'}.py"
            file.parent.mkdir(parents=True)
            file.write_text(content)
            digests.add(code_digest(tmp_path / str(root)))
        assert len(digests) == 3


def test_one_process_a_directory(tmp_path: Path) -> None:
    config = load_bench(bench_config(tmp_path), [])
    with (
        locked(KeptResults(tmp_path / "out", config).path),
        pytest.raises(RunDirectoryError, match="in use"),
        locked(KeptResults(tmp_path / "out", config).path),
    ):
        pass


def test_a_search_needs_networks(hwnas: Any, tmp_path: Path) -> None:
    table = {**EVALUATOR, "path": str(write_table(tmp_path / "t.csv"))}
    config = small_config(tmp_path / "c.yaml", evaluator=table, space={"name": "nasbench201"})
    check_message(hwnas("search", config), 2, "evaluator: table", "nothing to train", "hwnas bench")
    names = small_config(tmp_path / "d.yaml", space={"name": "table", "choices": 3, "alternatives": [0, 1]})
    check_message(hwnas("search", names), 2, "space: table", "can't be built", "hwnas bench")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = bench_config(tmp_path, strategies=["rnadom"], seed=1, seeds="many", space={"name": "x"})
    with pytest.raises(ConfigError) as told:
        load_bench(path, [])
    assert all(word in str(told.value) for word in ("strategies.0.name", "seed:", "seeds", "space.name"))
    assert "strategies: is required" not in str(told.value)


def test_the_real_tables_reference_point() -> None:
    """The truth of NAS-Bench-201 on one device, against a plain calculation over the file."""
    path = shared_data("nasbench201.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [(1 - float(r["cifar10_test_200"]) / 100, float(r["fpga_ms"])) for r in csv.DictReader(file)]
    losses = np.array(rows)
    reference = np.array([np.percentile(losses[:, 0], 90), np.percentile(losses[:, 1], 99)])
    inside = losses[(losses < reference).all(axis=1)]
    order = inside[np.argsort(inside[:, 1])]
    best, area, at = reference[0], 0.0, None
    for error, cost in [*order, (0.0, reference[1])]:  # a staircase from left to right
        if at is not None:
            area += (cost - at) * (reference[0] - best)
        at, best = cost, min(best, error)
    lookup = {"name": "table", "path": str(path), "key": "arch_str", "accuracy": "cifar10_test_200", "scale": 0.01}
    values = {"space": {"name": "nasbench201"}, "evaluator": lookup, "devices": ["fpga_ms"], "strategies": ["random"]}
    bench = _workbench_of(values)
    truth = bench.truth("fpga_ms")
    assert truth.rows == 15_625
    assert truth.best_accuracy == pytest.approx(0.943733, abs=1e-6)
    np.testing.assert_allclose(truth.reference, reference)
    assert truth.hypervolume == pytest.approx(area)


def _workbench_of(values: dict[str, Any]) -> Workbench:
    from pipeline.bench.config import BenchConfig
    from pipeline.config.file import parse_as, read_section

    strategies = [read_section("strategy", {"name": name}) for name in values["strategies"]]
    return Workbench(parse_as(BenchConfig, {**values, "strategies": strategies}, "here"), "here")


def _timeless(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in each.items() if k != "seconds_per_trial"} for each in document["results"]]
