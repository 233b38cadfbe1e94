import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import JournalError
from pipeline.trials.journal import Journal, TrialRecord


def record(number: int = 0, **changes: object) -> TrialRecord:
    base = TrialRecord(
        number=number,
        id=f"id{number}",
        architecture={"depth": 2, "kind": "residual", "se": True, "ratio": 0.5},
        status="ok",
        score=0.75,
        objectives={"accuracy": 0.75, "latency_ms": 0.1 + 0.2},
        started="2020-01-01T00:00:00.000+00:00",
        seconds=1.5,
        elapsed_s=2.5,
        details={"warnings": ["it’s noisy – 5 %"], "nested": {"a": [1, None]}},
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_gives_back_what_was_recorded(path: Path) -> None:
    written = [
        record(0),
        record(1, status="infeasible", objectives={"macs": 5.0}, score=-0.5),
        record(2, status="failed", objectives={}, error="hung: it’s gone\nfor good", score=-2.0),
    ]
    journal = Journal.create(path, {"config": "abc"})
    for one in written:
        journal.append(one)
    assert journal.trials() == written
    journal.close()
    reopened = Journal.open(path)
    assert reopened.trials() == written
    assert reopened.meta()["config"] == "abc"
    reopened.close()
    assert list(path.parent.iterdir()) == [path]  # the write-ahead log is folded in


def test_keeps_the_order_in_which_trials_ended(path: Path) -> None:
    journal = Journal.create(path, {})
    for number in (2, 0, 1):
        journal.append(record(number))
    assert [one.number for one in journal.trials()] == [0, 1, 2]
    journal.close()


@pytest.mark.parametrize("again", [{"number": 1, "id": "id0"}, {"number": 0, "id": "other"}])
def test_refuses_a_trial_twice(path: Path, again: dict[str, object]) -> None:
    journal = Journal.create(path, {})
    journal.append(record(0))
    with pytest.raises(JournalError, match="can't be recorded"):
        journal.append(record(**again))  # type: ignore[arg-type]
    assert journal.trials() == [record(0)]
    journal.append(record(1))  # the refusal left no open transaction
    assert len(journal.trials()) == 2
    journal.close()


def test_can_be_read_while_it_is_written(path: Path) -> None:
    writer = Journal.create(path, {})
    writer.append(record(0))
    reader = Journal.open(path, read_only=True)
    assert len(reader.trials()) == 1
    writer.append(record(1))
    assert len(reader.trials()) == 2
    reader.close()
    writer.close()


def test_a_reader_doesnt_write(path: Path) -> None:
    Journal.create(path, {}).close()
    reader = Journal.open(path, read_only=True)
    with pytest.raises(JournalError, match="readonly"):
        reader.append(record(0))
    reader.close()


def test_what_was_appended_survives_a_kill(path: Path) -> None:
    code = (
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "from pipeline.trials.journal import Journal, TrialRecord\n"
        "journal = Journal.create(Path(sys.argv[1]), {})\n"
        "for values in json.loads(sys.argv[2]): journal.append(TrialRecord(**values))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    written = [record(number) for number in range(5)]
    as_text = json.dumps([dataclasses.asdict(each) for each in written])
    done = subprocess.run([sys.executable, "-c", code, str(path), as_text], check=False)
    assert done.returncode == -9
    for read_only in (True, False):
        journal = Journal.open(path, read_only=read_only)
        assert journal.trials() == written
        journal.close()


def test_half_a_creation_is_no_journal(path: Path) -> None:
    path.with_suffix(".unfinished").write_bytes(b"half")
    with pytest.raises(JournalError, match="there is no journal"):
        Journal.open(path)
    Journal.create(path, {}).close()
    journal = Journal.open(path)
    assert journal.trials() == []
    journal.close()


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("UPDATE trials SET status = 'fine'", "'fine'"),
        ("UPDATE trials SET architecture = 'x'", "damaged"),
        ("ALTER TABLE trials DROP COLUMN seconds", "damaged"),
        ("DELETE FROM meta", "version none"),
        ("UPDATE meta SET value = '2' WHERE key = 'schema_version'", "version 2"),
    ],
)
def test_names_damage(path: Path, statement: str, word: str) -> None:
    journal = Journal.create(path, {})
    journal.append(record(0))
    journal.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    with pytest.raises(JournalError, match=word) as caught:
        Journal.open(path).trials()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 50, 4096, 5000, 8192])
def test_names_truncation(path: Path, keep: int) -> None:
    journal = Journal.create(path, {})
    for number in range(50):
        journal.append(record(number))
    journal.close()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(JournalError, match="damaged"):
        Journal.open(path)


def test_a_number_that_json_doesnt_know_is_refused(path: Path) -> None:
    """Outside tools read these columns as JSON."""
    journal = Journal.create(path, {})
    with pytest.raises((JournalError, ValueError)):
        journal.append(record(0, objectives={"accuracy": float("nan")}))
    journal.close()


def test_values_are_json_for_outside_tools(path: Path) -> None:
    journal = Journal.create(path, {})
    journal.append(record(0))
    journal.close()
    connection = sqlite3.connect(path)
    (architecture, objectives) = connection.execute("SELECT architecture, objectives FROM trials").fetchone()
    connection.close()
    assert json.loads(architecture) == record(0).architecture
    assert json.loads(objectives) == record(0).objectives
