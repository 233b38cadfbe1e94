"""The space and the evaluator `table`: what a published table says, and what can be wrong with one."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from helpers.places import shared_data
from helpers.published import EVALUATOR, SPACE, plain_row, write_table
from pipeline.config.evaluator import TableEvaluatorOptions
from pipeline.config.space import TableSpaceOptions
from pipeline.evaluators.lookup import Lookup, TableError, read_table
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.base import ArchitectureError
from pipeline.spaces.tabular import TabularSpace

COSTS = {"latency_ms": "slow_ms", "macs": "fast_ms"}


def space_of(**options: Any) -> TabularSpace:
    return TabularSpace(TableSpaceOptions(**{**SPACE, **options}), (3, 32, 32), 10)


def lookup_of(path: Path, limits: dict[str, float] | None = None, **options: Any) -> Lookup:
    section = TableEvaluatorOptions(**{**EVALUATOR, "path": str(path), "costs": COSTS, **options})
    columns = {section.accuracy: "accuracy", **{column: f"costs.{name}" for name, column in section.costs.items()}}
    table = read_table(path, section.key, columns)
    return Lookup(table, space_of(), section, ["latency_ms", "macs"], limits or {})


def named(key: str) -> dict[str, Any]:
    return {f"choice_{n}": int(digit) for n, digit in enumerate(key)}


class TestSpace:
    def test_keys_are_the_choices_one_after_the_other(self) -> None:
        space = space_of()
        assert [space.key(a) for a in space.architectures()] == [
            "".join(digits) for digits in itertools.product("012", repeat=3)
        ]
        assert space.size() == 27

    def test_labels_are_as_wide_as_the_last(self) -> None:
        assert [c.label for c in space_of(choices=11).choices][::5] == ["choice_00", "choice_05", "choice_10"]

    def test_texts_and_a_separator(self) -> None:
        space = space_of(choices=2, alternatives=["k3", "k11"], separator="-")
        assert [space.key(a) for a in space.architectures()] == ["k3-k3", "k3-k11", "k11-k3", "k11-k11"]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"alternatives": [1, 11]}, "separator"),
            ({"alternatives": ["a", "b-c"], "separator": "-"}, "occurs in an alternative"),
            ({"alternatives": [1, "1"]}, "twice"),
            ({"alternatives": [1]}, "at least two"),
            ({"choices": 0}, "greater than or equal to 1"),
        ],
    )
    def test_what_cant_be_told_apart(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ValidationError, match=said):
            TableSpaceOptions(**{**SPACE, **options})

    def test_nni_sees_the_same_space(self) -> None:
        space = space_of()
        theirs = dict(SimplifiedModelSpace.from_model(space.model_space()).simplify())
        assert {label: tuple(each.grid()) for label, each in theirs.items()} == {
            c.label: c.values for c in space.choices
        }

    def test_it_has_no_networks(self) -> None:
        with pytest.raises(ArchitectureError, match="names of networks only"):
            space_of().build(space_of().at(0))


class TestLookup:
    @pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
    def test_a_row_is_a_trial(self, tmp_path: Path, name: str) -> None:
        result = lookup_of(write_table(tmp_path / name)).run(named("120"))
        expected = plain_row((1, 2, 0))
        assert result.status == "ok"
        assert result.objectives == {
            "accuracy": pytest.approx(expected["acc"] / 100),
            "latency_ms": expected["slow_ms"],
            "macs": expected["fast_ms"],
        }

    def test_a_broken_limit_hides_the_accuracy(self, tmp_path: Path) -> None:
        result = lookup_of(write_table(tmp_path / "t.csv"), {"latency_ms": 2.0}).run(named("220"))
        assert result.status == "infeasible"
        assert result.objectives == {"latency_ms": 4.0, "macs": pytest.approx(0.9)}
        assert result.details == {"excess": {"latency_ms": 1.0}}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (None, "no row of 012"),
            ({"acc": ""}, "no valid accuracy (acc) of 012"),
            ({"acc": "nan"}, "no valid accuracy"),
            ({"acc": -1}, "no valid accuracy"),
            ({"acc": "n/a"}, "no valid accuracy"),
            ({"slow_ms": "inf"}, "no valid latency_ms of 012"),
            ({"slow_ms": "", "fast_ms": -2}, "no valid latency_ms and no macs of 012"),
        ],
    )
    def test_a_row_that_isnt_valid_is_a_failed_trial(self, tmp_path: Path, change: Any, said: str) -> None:
        lookup = lookup_of(write_table(tmp_path / "t.csv", k012=change))
        result = lookup.run(named("012"))
        assert result.status == "failed"
        assert result.objectives == {}
        assert said in str(result.error)
        assert len(lookup.valid()[0]) == 26

    def test_costs_are_known_of_all(self, tmp_path: Path) -> None:
        known = lookup_of(write_table(tmp_path / "t.csv", k000=None, k001={"slow_ms": ""}, k002={"acc": ""})).known
        assert known.metrics == ("latency_ms", "macs")
        found = known.costs([named("000"), named("001"), named("002"), named("222")])
        np.testing.assert_array_equal(found, [[np.nan, np.nan], [np.nan, 0.5], [1.0, 0.5], [4.0, 2.1]])

    def test_a_column_in_per_cent_needs_a_scale(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match=r"scale: column 'acc' .* accuracies are from 0 to 1.* 0\.01"):
            lookup_of(write_table(tmp_path / "t.csv"), scale=1.0)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"key": "arhc"}, "key: .*'arhc'; did you mean 'arch'"),
            ({"accuracy": "accu"}, "accuracy: .*'accu'; did you mean 'acc'.*slow_ms"),
            ({"costs": {"latency_ms": "slow", "macs": "fast_ms"}}, "costs.latency_ms: .*did you mean 'slow_ms'"),
            ({"costs": {"macs": "fast_ms"}}, "costs: has no column of latency_ms"),
            ({"accuracy": "arch", "key": "slow_ms"}, "key: .*have the key of another"),
        ],
    )
    def test_columns_that_arent_there(self, tmp_path: Path, options: dict[str, Any], said: str) -> None:
        with pytest.raises(TableError, match=said):
            lookup_of(write_table(tmp_path / "t.csv"), **options)

    def test_a_table_of_another_space(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("arch,acc,slow_ms,fast_ms\nresnet,90,1,1\n", encoding="utf-8")
        with pytest.raises(TableError, match=r"key: .*like 'resnet', and the space asks for '000'"):
            lookup_of(path)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("t.csv.gz", b"no gzip", "damaged|can't be read"),
            ("t.csv", b"\xff\xfe\x00", "damaged"),
            ("t.csv", b"", "no column 'arch'"),
            ("t.csv", b'arch,acc\n"open', "no table"),
        ],
    )
    def test_files_that_are_no_tables(self, tmp_path: Path, name: str, content: bytes, said: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TableError, match=said):
            lookup_of(tmp_path / name)

    def test_a_gzip_that_was_cut_off(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv.gz")
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(TableError, match="damaged"):
            lookup_of(path)

    def test_a_file_that_isnt_there(self, tmp_path: Path) -> None:
        write_table(tmp_path / "table.csv")
        with pytest.raises(TableError, match=r"no file .*tabel.csv; did you mean .*table.csv"):
            lookup_of(tmp_path / "tabel.csv")


def test_a_real_table_keyed_by_digits() -> None:
    path = shared_data("nasbench_macro.csv.gz")
    section = TableEvaluatorOptions(
        name="table", path=str(path), key="arch", accuracy="mean_acc", scale=0.01, costs={"macs": "flops"}
    )
    space = space_of(choices=8)
    lookup = Lookup(
        read_table(path, "arch", {"mean_acc": "accuracy", "flops": "costs.macs"}), space, section, ["macs"], {}
    )
    assert len(lookup.valid()[0]) == space.size() == 6561
    first = lookup.run(space.at(0))
    assert first.objectives == {"accuracy": pytest.approx(0.45363332), "macs": 7713280.0}
