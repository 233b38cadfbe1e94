import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import JournalError, RunGoneError, StorageError
from pipeline.spaces.base import Architecture, architecture_id
from pipeline.trials.journal import Journal, TrialRecord


def architecture_of(number: int) -> Architecture:
    return {"depth": number, "kind": "residual", "se": True, "ratio": 0.5}


def record(number: int = 0, **changes: object) -> TrialRecord:
    architecture = architecture_of(number)
    base = TrialRecord(
        number=number,
        id=architecture_id(architecture),
        architecture=architecture,
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


@pytest.mark.parametrize("again", [dataclasses.replace(record(0), number=1), dataclasses.replace(record(1), number=0)])
def test_refuses_a_trial_twice(path: Path, again: TrialRecord) -> None:
    journal = Journal.create(path, {})
    journal.append(record(0))
    with pytest.raises(JournalError, match="can't be recorded"):
        journal.append(again)
    assert journal.trials() == [record(0)]
    journal.append(record(1))  # the refusal left no open transaction
    assert len(journal.trials()) == 2
    journal.close()


def test_can_be_read_while_it_is_written(path: Path) -> None:
    writer = Journal.create(path, {})
    writer.append(record(0))
    beside = sorted(path.parent.iterdir())
    reader = Journal.open_for_reading(path)
    assert len(reader.trials()) == 1
    writer.append(record(1))
    assert len(reader.trials()) == 1  # as it was when it was opened
    reader.close()
    again = Journal.open_for_reading(path)
    assert len(again.trials()) == 2
    again.close()
    assert sorted(path.parent.iterdir()) == beside
    writer.close()


def test_a_reader_doesnt_write(path: Path) -> None:
    writer = Journal.create(path, {})
    for _ in range(2):  # beside an open journal, and beside a closed one
        reader = Journal.open_for_reading(path)
        with pytest.raises(StorageError, match="read-only"):
            reader.append(record(0))
        reader.close()
        writer.close()


class TestWhereNothingCanBeWritten:
    """A folder that is read-only, as of an archive or of somebody else, seen by a user without the system's rights."""

    CODE = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pipeline.trials.journal import Journal\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "path = Path(sys.argv[1])\n"
        "assert not os.access(path.parent, os.W_OK)\n"
        "print(len(Journal.open_for_reading(path).trials()))\n"
    )

    def seen(self, path: Path) -> str:
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        for above in path.parents[:-2]:
            above.chmod(0o555)
        try:
            done = subprocess.run(
                [sys.executable, "-c", self.CODE, str(path)], capture_output=True, text=True, check=False
            )
        finally:
            for above in path.parents[:-2]:
                above.chmod(0o755)
        assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @pytest.fixture
    def path(self) -> Iterator[Path]:
        """A place that every user may look into, which pytest's own folders are not."""
        with tempfile.TemporaryDirectory(prefix="hwnas-test-") as folder:
            yield Path(folder) / "run" / "journal.sqlite"

    def test_a_closed_journal(self, path: Path) -> None:
        path.parent.mkdir()
        journal = Journal.create(path, {})
        journal.append(record(0))
        journal.close()
        assert self.seen(path) == "1"

    def test_one_that_a_killed_search_left(self, path: Path) -> None:
        path.parent.mkdir()
        journal = Journal.create(path, {})
        for number in range(3):
            journal.append(record(number))
        for suffix in ("", "-wal"):  # a copy of the files is what a kill leaves
            path.with_name(f"left{suffix}").write_bytes(path.with_name(path.name + suffix).read_bytes())
        journal.close()
        assert self.seen(path.with_name("left")) == "3"


def test_a_journal_that_changes_all_the_time_is_said_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Journal.create(path, {})
    writer.append(record(0))
    copy = shutil.copyfile

    def while_it_is_written(source: Path, target: Path) -> None:
        copy(source, target)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    monkeypatch.setattr(shutil, "copyfile", while_it_is_written)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(JournalError, match="written all the time"):
        Journal.open_for_reading(path)
    writer.close()


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
    for opened in (Journal.open_for_reading, Journal.open):
        journal = opened(path)
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
        ("UPDATE meta SET value = 'accuracy' WHERE key = 'objectives'", "objectives are no list of names"),
        ("UPDATE meta SET value = x'ff00' WHERE key = 'objectives'", "more than texts"),
        ("UPDATE trials SET number = 3", "trial 0 is missing"),
        ("UPDATE trials SET id = 'somewhere/else'", "trial 0: id"),
        ("UPDATE trials SET error = zeroblob(17000000)", "damaged"),
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


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER more AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "CREATE VIEW more AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "CREATE INDEX more ON trials (abs(score))",
        "ALTER TABLE trials ADD COLUMN more TEXT GENERATED ALWAYS AS (upper(id))",
    ],
)
def test_tables_of_somebody_else_are_refused(path: Path, statement: str) -> None:
    """A trigger, or a view in place of a table, runs whatever its author wrote when the journal is used."""
    Journal.create(path, {}).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    for opened in (Journal.open, Journal.open_for_reading):
        with pytest.raises(JournalError, match="damaged"):
            opened(path)


class TestGone:
    """The journal isn't where it was: noticed before a trial is written to a place where nobody would find it."""

    @pytest.fixture
    def journal(self, path: Path) -> Iterator[Journal]:
        path.parent.joinpath("run").mkdir()
        journal = Journal.create(path.parent / "run" / path.name, {})
        journal.append(record(0))
        yield journal
        journal.close()

    def refused(self, journal: Journal, word: str) -> None:
        for attempt in (journal.check_present, lambda: journal.append(record(1))):
            with pytest.raises(RunGoneError, match=word) as caught:
                attempt()
            assert str(journal.path) in str(caught.value)

    def test_deleted(self, journal: Journal) -> None:
        journal.path.unlink()
        self.refused(journal, "deleted or moved")
        assert not journal.path.exists()

    def test_its_folder_deleted(self, journal: Journal) -> None:
        shutil.rmtree(journal.path.parent)
        self.refused(journal, "deleted or moved")
        journal.close()
        assert not journal.path.parent.exists()

    def test_its_folder_moved(self, journal: Journal) -> None:
        elsewhere = journal.path.parent.rename(journal.path.parent.with_name("elsewhere"))
        self.refused(journal, "deleted or moved")
        journal.close()
        assert not journal.path.parent.exists()
        moved = Journal.open(elsewhere / journal.path.name)
        assert moved.trials() == [record(0)]
        moved.close()

    def test_its_log_deleted(self, journal: Journal) -> None:
        journal.path.with_name("journal.sqlite-wal").unlink()
        self.refused(journal, "log journal.sqlite-wal was deleted")

    def test_emptied(self, journal: Journal) -> None:
        journal.path.write_bytes(b"")
        self.refused(journal, "another file took the journal's place")

    def test_another_one_in_its_place_stays_whole(self, journal: Journal, tmp_path: Path) -> None:
        """Closing the old one must not touch the log of the new one, which a killed search left there."""
        (tmp_path / "other").mkdir()
        other = Journal.create(tmp_path / "other" / "journal.sqlite", {})
        other.append(dataclasses.replace(record(5), number=0))
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "other", copy)
        shutil.rmtree(journal.path.parent)
        copy.rename(journal.path.parent)
        self.refused(journal, "another file took the journal's place")
        journal.close()
        other.close()
        found = Journal.open_for_reading(journal.path)
        assert [each.id for each in found.trials()] == [record(5).id]
        found.close()


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
