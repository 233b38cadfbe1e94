"""The trials of a run as text: the same for three trials and for many, and never a part of a document."""

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.trial_text import TrialTable, as_csv, as_json, as_table
from pipeline.commands.trials import FrontSearch, TrialReader
from pipeline.errors import JournalError
from pipeline.spaces.base import architecture_id
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.objectives import as_losses, pareto_front

OBJECTIVES = ("accuracy", "latency_ms")


def record(number: int, **changes: Any) -> TrialRecord:
    architecture = {"depth": number, "activation": "relu"}
    values: dict[str, Any] = {
        "status": "ok",
        "score": 0.5,
        "objectives": {"accuracy": 0.5 + 0.001 * (number % 7), "latency_ms": 1.0 + number % 5, "macs": 12_345},
        "started": "2026-01-01T00:00:00.000+00:00",
        "seconds": 1.25,
        "elapsed_s": 2.0,
        "details": {"latency": {"source": "measured", "low_ms": 0.9, "high_ms": 1.1}},
        **changes,
    }
    return TrialRecord(number=number, id=architecture_id(architecture), architecture=architecture, **values)


RECORDS = [
    *(record(number) for number in range(4)),
    record(4, details={"latency": {"source": "predicted", "low_ms": 0.9, "high_ms": 1.1}}),
    record(5, status="infeasible", score=-0.5, objectives={"macs": 5}, details={"excess": {"macs": 0.25}}),
    record(6, status="failed", score=-2.0, objectives={}, details={}, error="it’s gone\nfor good, [red]so[/red]"),
    record(7, details={"stopped_after": 1, "epochs": 3}),
]


@pytest.fixture
def open_reader(tmp_path: Path) -> Iterator[Callable[[list[TrialRecord]], TrialReader]]:
    opened = []

    def opening(records: list[TrialRecord]) -> TrialReader:
        journal = Journal.create(tmp_path / "journal.sqlite", {}, OBJECTIVES)
        opened.append(journal)
        for each in records:
            journal.append(each)
        return TrialReader(journal, OBJECTIVES)

    yield opening
    for journal in opened:
        journal.close()


Reading = Callable[[list[TrialRecord]], TrialReader]


def test_json_is_what_one_call_would_write(open_reader: Reading) -> None:
    reader = open_reader(RECORDS)
    rows = list(reader.documents())
    assert "".join(as_json(reader)) == json.dumps(rows, indent=2) + "\n"
    assert [row["objectives"] for row in rows] == [each.objectives for each in RECORDS]


def test_numbers_beyond_any_float_are_null_in_json(open_reader: Reading, tmp_path: Path) -> None:
    reader = open_reader([record(0)])
    with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE trials SET details = ?", ('{"own": [1e999, 0.5]}',))
    (row,) = json.loads("".join(as_json(reader)))
    assert row["details"] == {"own": [None, 0.5]}


def test_a_spreadsheet_takes_no_text_for_a_formula(open_reader: Reading) -> None:
    error = '=HYPERLINK("http://nowhere.invalid","look")'
    told = record(0, status="failed", score=-2.0, objectives={}, details={}, error=error)
    architecture: dict[str, Any] = {"=1+1": "@sum", "gap": "-3", "kind": "-3+1", "plain": "relu", "step": -2}
    reader = open_reader([replace(told, id=architecture_id(architecture), architecture=architecture)])
    (row,) = csv.DictReader(io.StringIO("".join(as_csv(reader))))
    assert row["error"] == f"'{error}"
    assert [row[name] for name in ("'=1+1", "gap", "kind", "plain", "step")] == ["'@sum", "-3", "'-3+1", "relu", "-2"]


def test_no_trials_are_an_empty_list(open_reader: Reading) -> None:
    reader = open_reader([])
    assert json.loads("".join(as_json(reader))) == []
    assert "0 ok, 0 infeasible, 0 failed" in "".join(as_table(reader))
    assert "".join(as_csv(reader)).startswith("id,status,on_front,")


def test_csv_has_a_column_for_each_metric_and_choice(open_reader: Reading) -> None:
    reader = open_reader(RECORDS)
    rows = list(csv.DictReader(io.StringIO("".join(as_csv(reader)))))
    assert [row["id"] for row in rows] == [each.id for each in RECORDS]
    assert [row["macs"] for row in rows[3:7]] == ["12345", "12345", "5", ""]
    assert rows[6]["error"] == RECORDS[6].error
    assert {row["activation"] for row in rows} == {"relu"}
    assert rows[7]["stopped_after"] == "1"


def test_the_table_has_a_line_for_each_trial_and_a_sum(open_reader: Reading) -> None:
    lines = "".join(as_table(open_reader(RECORDS))).splitlines()
    assert lines[0].split() == [
        *("id", "status", "accuracy", "latency_ms", "macs", "params", "size_mb", "peak_memory_mb", "front", "s"),
        "remark",
    ]
    assert lines[1].split() == [RECORDS[0].id, "ok", "0.5", "1", "12,345", "*", "1.2"]
    assert "~5" in lines[5]
    assert lines[6].endswith("macs 25% over")
    assert lines[7].endswith("it’s gone")
    assert lines[8].strip() == "for good, [red]so[/red]"
    assert lines[9].endswith("stopped after 1 of 3 epochs")
    assert lines[10] == ("6 ok, 1 infeasible, 1 failed; ~ predicted, not measured; of them 1 stopped early")
    starts = {line.index("1.2") for line in (lines[1], lines[2], lines[7])}
    assert len(starts) == 1, "the columns stand below each other"


def test_a_long_remark_is_folded_within_its_column() -> None:
    table = TrialTable(OBJECTIVES)
    table.add(record(0, status="failed", objectives={}, error="word " * 80 + "x" * 300 + "広い" * 100))
    lines = "".join(table.pieces()).splitlines()
    place = lines[0].index("remark")
    assert len(lines) > 5
    assert all(line[:place].strip() == "" for line in lines[2:-1])
    assert max(map(len, lines)) <= 200
    assert "".join(line[place:].strip() for line in lines[1:-1]).count("x") == 300


def test_many_trials_come_in_pieces_with_the_same_front_as_at_once() -> None:
    draw = np.random.default_rng(0)
    table, search, records = TrialTable(OBJECTIVES), FrontSearch(OBJECTIVES), []
    for number in range(3500):
        accuracy, cost = draw.integers(0, 40, 2).tolist()  # many equal ones
        each = record(number, objectives={"accuracy": accuracy / 40, "latency_ms": 1 + cost * (1 + accuracy / 40)})
        records.append(each)
        table.add(each)
        search.add(each)
    front = set(pareto_front(as_losses([each.objectives for each in records], OBJECTIVES)))
    assert search.numbers() == front
    pieces = list(table.pieces())
    assert len(pieces) == 4
    lines = "".join(pieces).splitlines()
    assert {number for number, line in enumerate(lines[1:-1]) if "*" in line} == front


@pytest.mark.parametrize("view", [as_table, as_json, as_csv])
def test_damage_is_found_before_anything_is_shown(view: Any, open_reader: Reading) -> None:
    reader = open_reader([*(record(number) for number in range(30)), record(31)])  # trial 30 is missing
    with pytest.raises(JournalError, match="trial 30 is missing"):
        next(view(reader))
