"""`hwnas bench`: strategies compared with the first one seed by seed, and which kept results may be compared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from helpers.published import bench_config
from pipeline.bench.config import load_bench
from pipeline.bench.results import KeptResults
from pipeline.bench.run import Result, Task
from pipeline.bench.summary import Summary
from pipeline.errors import RunDirectoryError


def test_differences_are_those_of_a_paired_test(tmp_path: Path) -> None:
    config = load_bench(bench_config(tmp_path, seeds=4, report_at=[5]), [])
    generator = np.random.default_rng(3)
    values = generator.random((2, 2, 4))  # strategies, devices, seeds
    results = {
        Task(n, device, seed): Result(5, 0.1, [(0, 0.0), (5, float(values[n, d, seed]))], [(0, 1.0)])
        for n in (0, 1)
        for d, device in enumerate(config.columns())
        for seed in range(4)
    }
    rows = Summary(config, results).comparisons()
    assert [(row["strategy"], row["against"], row["device"]) for row in rows] == [
        ("evolution", "random", device) for device in (None, "slow_ms", "fast_ms")
    ]
    for row, ours, first in zip(
        rows, [values[1].mean(axis=0), *values[1]], [values[0].mean(axis=0), *values[0]], strict=True
    ):
        expected = ttest_rel(ours, first).confidence_interval(0.95)
        found = row["hypervolume"]["5"]
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
        assert found["different"] == (expected.low > 0 or expected.high < 0)
        assert row["regret"]["5"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "different": False}


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    config = load_bench(bench_config(tmp_path, seeds=1, report_at=[5], devices=["slow_ms"]), [])
    results = {Task(n, "slow_ms", 0): Result(5, 0.1, [(0, n / 2)], [(0, 1.0)]) for n in (0, 1)}
    (row,) = Summary(config, results).comparisons()
    assert (row["hypervolume"]["5"]["mean"], row["hypervolume"]["5"]["different"]) == (0.5, None)
    assert row["hypervolume"]["5"]["low_unavailable"] == "one seed"


def test_only_seeds_of_both_are_compared(tmp_path: Path) -> None:
    config = load_bench(bench_config(tmp_path, seeds=3, report_at=[5], devices=["slow_ms"]), [])
    shares = {(0, 0): 0.1, (0, 1): 0.2, (0, 2): 0.9, (1, 0): 0.3, (1, 1): 0.6}
    results = {Task(n, "slow_ms", seed): Result(5, 0.1, [(0, s)], [(0, 1.0)]) for (n, seed), s in shares.items()}
    assert Summary(config, results).difference(1, "slow_ms", "hypervolume", np.array([5]))[0] == pytest.approx(0.3)


def test_a_person_gets_the_differences(hwnas: Any, tmp_path: Path) -> None:
    result = hwnas("bench", bench_config(tmp_path), "--output", tmp_path / "out", "--jobs", 1)
    assert result.stdout.count("more than random") == 2
    alone = bench_config(tmp_path, strategies=["random"])
    again = hwnas("bench", alone, "--output", tmp_path / "out", "--jobs", 1)
    assert again.code == 0
    assert "more than" not in again.stdout


def test_what_a_strategy_takes_from_the_config_decides(tmp_path: Path) -> None:
    tasks = [Task(n, "slow_ms", 0) for n in (0, 1)]
    config = load_bench(bench_config(tmp_path, strategies=["guided", "random"]), [])
    kept = KeptResults(tmp_path / "out", config)
    for task in tasks:
        kept.add(task, Result(12, 0.1, [(0, 0.0)], [(0, 1.0)]))
    accurate = load_bench(tmp_path / "bench.yaml", ["final.pick=most-accurate"])
    assert KeptResults(tmp_path / "out", config).read(tasks).keys() == set(tasks)
    assert KeptResults(tmp_path / "out", accurate).read(tasks).keys() == {tasks[1]}


def test_results_are_not_written_through_a_link(tmp_path: Path) -> None:
    config = load_bench(bench_config(tmp_path), [])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    for make in (Path.symlink_to, Path.hardlink_to):
        make(tmp_path / "out" / "results.jsonl", elsewhere)
        with pytest.raises(RunDirectoryError, match=r"is a link|a hard link"):
            KeptResults(tmp_path / "out", config)
        (tmp_path / "out" / "results.jsonl").unlink()
    assert elsewhere.read_text(encoding="utf-8") == "precious\n"
