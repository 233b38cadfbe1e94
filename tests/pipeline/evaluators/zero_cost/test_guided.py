"""Zero-cost scores as something that `guided` learns from: in a search, and published ones in a benchmark."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.driven import Choices, drive, flat, huge, record_of
from helpers.instant import config_of, space_of
from helpers.published import EVALUATOR, SPACE, bench_config, write_table
from helpers.scores import DIGITS, FixedScores
from pipeline.bench.config import load_bench
from pipeline.bench.results import KeptResults
from pipeline.bench.run import Task, Workbench
from pipeline.config.strategy import GuidedOptions
from pipeline.engines.trial import TrialResult
from pipeline.errors import ConfigError
from pipeline.evaluators.zero_cost.candidates import proxies_of
from pipeline.spaces.base import Architecture, Choice, architecture_id
from pipeline.strategies.features import Featurizer
from pipeline.strategies.guided import Guided
from pipeline.strategies.integer_codes import IntegerEncoder
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord
from pipeline.trials.objectives import FAILED_SCORE
from pipeline.trials.reporter import Reporter


class TestEncoder:
    SPACE = flat(3, 3)

    def featurizer(self, score: Any, names: tuple[str, ...] = ("told",)) -> tuple[Featurizer, IntegerEncoder, Any]:
        encoder = IntegerEncoder(self.SPACE.choices)
        codes = encoder.every()
        return Featurizer(self.SPACE, encoder, codes, FixedScores(score, names)), encoder, codes

    def test_scores_are_a_group_of_their_own(self) -> None:
        encoder = IntegerEncoder(self.SPACE.choices)
        plain = Featurizer(self.SPACE, encoder, encoder.every())
        featurizer, _, codes = self.featurizer(lambda each: each["c0"], ("one", "two"))
        assert featurizer.sizes == (*plain.sizes, 2)
        assert (featurizer.features(codes).x[:, :-2] == plain.features(codes).x).all()
        assert featurizer.features(codes[:0]).x.shape == (0, sum(featurizer.sizes))

    def test_any_unit_and_scale_is_the_same(self) -> None:
        """Ranks: of c0 + 10 c1 and of its exponential, however huge."""
        points = []
        for score in (
            lambda each: each["c0"] + 10 * each["c1"],
            lambda each: 10.0 ** (9 * each["c0"] + 99 * each["c1"]),
        ):
            featurizer, _, codes = self.featurizer(score)
            points.append(featurizer.features(codes).x[:, -1])
        assert (points[0] == points[1]).all()
        assert len(set(points[0].tolist())) == 9

    def test_infinite_scores_are_the_ends_and_missing_ones_the_middle(self) -> None:
        told = {0: -np.inf, 1: np.nan, 2: np.inf}
        featurizer, encoder, codes = self.featurizer(
            lambda each: told[each["c0"]] if each["c1"] != 1 else float(each["c2"])
        )
        x = featurizer.features(codes).x[:, -1]
        assert np.isfinite(x).all()
        at = {(a["c0"], a["c1"]): value for a, value in zip(encoder.decode(codes), x.tolist(), strict=True)}
        assert at[0, 0] == min(x)
        assert at[2, 0] == max(x)
        assert at[1, 0] == pytest.approx((min(x) + max(x)) / 2)

    @pytest.mark.parametrize("value", [1.0, np.nan, np.inf])
    def test_scores_that_tell_nothing_do_no_harm(self, value: float) -> None:
        featurizer, _, codes = self.featurizer(lambda _: value)
        points = featurizer.features(codes)
        assert len(set(points.x[:, -1].tolist())) == 1
        assert np.isfinite(points.linear).all()

    def test_the_samples_points_are_its_points(self) -> None:
        featurizer, _, codes = self.featurizer(lambda each: each["c0"])
        assert (featurizer.sample.x == featurizer.features(codes).x).all()
        assert (featurizer.sample.linear == featurizer.features(codes).linear).all()


def noise(architecture: Architecture) -> float:
    """An error that no choice tells anything about."""
    return int(architecture_id(architecture)[:8], 16) / 16**8


def judge(architecture: Architecture) -> TrialResult:
    return TrialResult("ok", {"accuracy": 1 - noise(architecture), "macs": 1.0})


def guided(space: Choices, proxies: Any, seed: int = 0) -> Guided:
    problem = Problem(space, seed, ("accuracy",), proxies=proxies)
    return Guided(GuidedOptions(name="guided", aim="accuracy"), problem)


class TestGuided:
    def test_learns_from_scores_what_choices_do_not_tell(self) -> None:
        """Of 20 architectures at random the best one is in the best 5 % on average, and the median in the middle."""
        space = flat(6, 4)
        for seed in range(3):
            errors = [1 - r.objectives["accuracy"] for r in drive(guided(space, FixedScores(noise), seed), judge, 20)]
            assert min(errors) < 0.02
            assert np.median(errors[8:]) < 0.1

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
    def test_scores_that_tell_nothing(self, value: float) -> None:
        assert len(drive(guided(flat(4, 3), FixedScores(lambda _: value)), judge, 15)) == 15

    def test_few_candidates_are_scored_where_that_is_dear(self) -> None:
        for space in (huge(), flat(6, 4)):
            told = FixedScores(noise, expensive=True)
            drive(guided(space, told), judge, 20)
            assert 300 < len(told.asked) <= 400 + 20 * 24

    def test_all_are_where_it_is_free(self) -> None:
        told = FixedScores(noise)
        drive(guided(flat(6, 4), told), judge, 10)
        assert len(told.asked) == 4**6

    def test_a_tiny_space_is_searched_whole(self) -> None:
        space = Choices(Choice("a", (1, 2, 3)), Choice("b", (1, 2)))
        assert len(drive(guided(space, FixedScores(noise, expensive=True)), judge, 50)) == 6

    def test_a_resumed_search_asks_for_the_same(self) -> None:
        """As after a kill: a fresh strategy with fresh scores hears the first trials again."""
        config = config_of({"name": "guided", "proxies": ["naswot", "params"]}, 14, **SMALL_SPACE)
        whole = searched(config, [])
        again = searched(config, whole[:9])
        assert [record.id for record in again] == [record.id for record in whole]
        without = config_of({"name": "guided"}, 14, **SMALL_SPACE)
        assert [record.id for record in searched(without, [])] != [record.id for record in whole]


SMALL_SPACE = {"stages": 1, "depths": [1, 2], "kernels": [3], "width_multipliers": [1], "activations": ["relu", "silu"]}


def searched(config: Any, known: list[TrialRecord]) -> list[TrialRecord]:
    space = space_of(config)
    proxies = proxies_of(config, DIGITS, space, Reporter())
    problem = Problem(space, config.seed, tuple(config.objectives), proxies=proxies)
    answers = {record.id: record for record in known}

    def judged(architecture: Architecture) -> TrialResult:
        record = answers.get(architecture_id(architecture))
        return judge(architecture) if record is None else TrialResult(record.status, record.objectives)

    return drive(Guided(config.strategy, problem), judged, 14)


def test_a_failed_trial_is_no_obstacle() -> None:
    failed = record_of({"c0": 0}, TrialResult("failed", error="x"), 0)
    assert failed.score == FAILED_SCORE
    strategy = guided(flat(3, 3), FixedScores(noise))
    every_other = drive(
        strategy,
        lambda each: TrialResult("failed", error="x") if noise(each) > 0.5 else judge(each),
        20,
    )
    assert {record.status for record in every_other} == {"ok", "failed"}


def write_scores(path: Path, drop: str = "", **columns: Any) -> Path:
    """A second file: of each of the 27 rows the number that `write_table` has them in."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", *columns])
        for number in reversed(range(27)):
            if str(number) != drop:
                writer.writerow([number, *(column(number) for column in columns.values())])
    return path


def numbered_table(path: Path) -> Path:
    """The small table with the rows' numbers, and its own scores."""
    numbers = iter(range(27))
    lines = write_table(path).read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{lines[0]},number,own\n")
        file.writelines(f"{line},{number},{number % 7}\n" for line, number in zip(lines[1:], numbers, strict=True))
    return path


def bench_of(folder: Path, proxies: Any, strategies: Any = None, **changes: Any) -> Workbench:
    table = numbered_table(folder / "table.csv")
    evaluator = {**EVALUATOR, "path": str(table), "proxies": proxies}
    wanted = strategies or ["guided", {"name": "guided", "proxies": ["told"]}]
    path = bench_config(folder, table, evaluator=evaluator, space=SPACE, strategies=wanted, **changes)
    return Workbench(load_bench(path, []), str(path))


class TestPublished:
    def test_from_the_same_table(self, tmp_path: Path) -> None:
        bench = bench_of(tmp_path, {"columns": {"told": "own"}})
        selected = bench.scores.of(["told"])
        asked = [bench.space.at(n) for n in (0, 8, 26)]
        assert selected.scores(asked)[:, 0].tolist() == [0, 1, 5]
        assert selected.seconds is None
        assert not selected.expensive

    def test_from_another_file_in_another_order(self, tmp_path: Path) -> None:
        path = write_scores(
            tmp_path / "s.csv", drop="3", score=lambda n: "inf" if n == 2 else n**2, s=lambda n: 0.5 + n
        )
        proxies = {"path": str(path), "key": "number", "columns": {"told": "score"}, "seconds": {"told": "s"}}
        selected = bench_of(tmp_path, proxies).scores.of(["told"])
        space = bench_of(tmp_path, proxies).space
        found = selected.scores([space.at(n) for n in (5, 2, 3)])[:, 0]
        np.testing.assert_array_equal(found, [25, np.inf, np.nan])
        assert selected.seconds == 5.5 + 2.5
        selected.scores([space.at(5), space.at(0)])
        assert selected.seconds == 5.5 + 2.5 + 0.5  # each once

    def test_a_benchmark_tells_their_seconds(self, tmp_path: Path) -> None:
        path = write_scores(tmp_path / "s.csv", score=lambda n: n, s=lambda n: 0.5)
        proxies = {"path": str(path), "key": "number", "columns": {"told": "score"}, "seconds": {"told": "s"}}
        bench = bench_of(tmp_path, proxies)
        bench.check()
        plain, ours = (bench.run(Task(n, "slow_ms", 0)) for n in (0, 1))
        assert plain.proxy_seconds is None
        assert ours.proxy_seconds == 27 * 0.5
        assert bench.config.labels() == ("guided", "guided(proxies=['told'])")

    def test_results_are_kept_under_what_decides_them(self, tmp_path: Path) -> None:
        """Other scores are other searches, but not for a strategy that asks for none."""

        def kept(proxies: Any) -> list[Task]:
            bench = bench_of(tmp_path, proxies)
            results = KeptResults(tmp_path / "kept", bench.config)
            tasks = [Task(n, "slow_ms", 0) for n in (0, 1)]
            found = results.read(tasks)
            for task in tasks:
                if task not in found:
                    results.add(task, bench.run(task))
            assert results.read(tasks).keys() == set(tasks)
            return list(found)

        path = write_scores(tmp_path / "s.csv", score=lambda n: n)
        other = {"path": str(path), "key": "number", "columns": {"told": "score"}}
        assert kept({"columns": {"told": "own"}}) == []
        assert kept({"columns": {"told": "own"}}) == [Task(0, "slow_ms", 0), Task(1, "slow_ms", 0)]
        assert kept(other) == [Task(0, "slow_ms", 0)]
        write_scores(path, score=lambda n: -n)
        assert kept(other) == [Task(0, "slow_ms", 0)]

    def test_the_document_tells_them(self, tmp_path: Path, hwnas: Any) -> None:
        path = write_scores(tmp_path / "s.csv", score=lambda n: n, s=lambda n: 0.25)
        proxies = {"path": str(path), "key": "number", "columns": {"told": "score"}, "seconds": {"told": "s"}}
        bench_of(tmp_path, proxies)
        done = hwnas("bench", tmp_path / "bench.yaml", "--output", tmp_path / "out", "--jobs", 1, "--json")
        assert done.code == 0, done.stderr
        document = json.loads(done.stdout)
        told = {row["strategy"]: row.get("proxy_seconds") for row in document["summary"]}
        assert told == {"guided": None, "guided(proxies=['told'])": 6.75}
        assert {row.get("proxy_seconds") for row in document["results"]} == {None, 6.75}
        shown = hwnas("bench", tmp_path / "bench.yaml", "--output", tmp_path / "out", "--jobs", 1)
        assert "guided(proxies=['told']): 6.75 s" in shown.stdout
        assert "took 7 s a search" in (tmp_path / "out" / "bench.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("proxies", "strategy", "said"),
        [
            ({"columns": {"told": "ow"}}, ["told"], r"evaluator\.proxies\.columns\.told: .*'ow'; did you mean 'own'"),
            ({"columns": {"told": "own"}, "key": "num"}, ["told"], r"evaluator\.proxies\.key: .*did you mean 'number'"),
            ({"columns": {"told": "own"}, "path": "none.csv"}, ["told"], r"evaluator\.proxies\.path: there is no file"),
            ({"columns": {"told": "own"}}, ["tol"], r"strategies\.0: .*no scores 'tol'; did you mean 'told'"),
            (None, ["told"], r"strategies\.0: .*evaluator\.proxies\.columns"),
            ({"columns": {"told": "own"}, "seconds": {"tld": "own"}}, ["told"], r"seconds\.tld: .*did you mean 'told'"),
            ({"columns": {}}, ["told"], r"evaluator\.proxies\.columns"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, proxies: Any, strategy: list[str], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            bench_of(tmp_path, proxies, [{"name": "guided", "proxies": strategy}]).check()

    def test_files_that_have_nothing_in_common(self, tmp_path: Path) -> None:
        path = tmp_path / "s.csv"
        path.write_text("number,score\nx,1\ny,2\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"proxies\.key: .*entries like 'x', of .* like '0'"):
            bench_of(tmp_path, {"path": str(path), "key": "number", "columns": {"told": "score"}})
