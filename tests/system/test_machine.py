"""A machine that lets a search down: its folder or journal is gone, its disk is full. Said, and nothing lost."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import Outcome, check_message, command, journal_ids, small_config, spawn, wait_for

SECTIONS: dict[str, Any] = {
    "evaluator": {"name": "stub_evaluators:SlowHash"},
    "strategy": {"name": "random"},
    "cost_model": "measure",
    "final": {"epochs": 1},
}
ROOM_BYTES = 12 * 10**6


def begun(folder: Path, run: Path, trials: int, **changes: Any) -> subprocess.Popen[str]:
    """A search in a process of its own that has finished its first trials."""
    config = small_config(folder / "config.yaml", **{**SECTIONS, "budget": {"trials": trials}, **changes})
    process = spawn("search", str(config), "--run-dir", str(run), "--json", cwd=folder)
    try:
        wait_for(lambda: len(journal_ids(run)) >= 2, limit_s=300)
    except BaseException:
        process.kill()
        raise
    return process


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def elsewhere(run: Path) -> Path:
    return run.with_name("elsewhere")


def delete_folder(run: Path) -> None:
    shutil.rmtree(run.rename(elsewhere(run)))  # as one step: half a folder is another case


def move_folder(run: Path) -> None:
    run.rename(elsewhere(run))


def replace_folder(run: Path) -> None:
    copy = elsewhere(run).with_name("copy")
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*-shm"))
    run.rename(elsewhere(run))
    copy.rename(run)


def delete_journal(run: Path) -> None:
    (run / "journal.sqlite").unlink()


GONE: dict[str, tuple[Callable[[Path], None], str]] = {
    "the folder is deleted": (delete_folder, "deleted or moved"),
    "the folder is moved": (move_folder, "deleted or moved"),
    "the folder is replaced": (replace_folder, "took the journal's place"),
    "the journal is deleted": (delete_journal, "deleted or moved"),
}


@pytest.mark.parametrize("engine", ["inline", "processes"])
@pytest.mark.parametrize("name", list(GONE))
def test_a_run_that_is_gone_is_noticed_at_the_next_trial(tmp_path: Path, name: str, engine: str) -> None:
    if engine == "processes" and name != "the folder is moved":
        pytest.skip("one case is enough: both engines write through the same journal")
    vanish, word = GONE[name]
    run = tmp_path / "run"
    workers = {"workers": 2} if engine == "processes" else {}
    process = begun(tmp_path, run, 500, engine={"name": engine, **workers})
    vanish(run)
    there = set(run.iterdir()) if run.exists() else None
    result = ended(process)
    check_message(result, 3, str(run), word, as_json=True)
    assert "all 500 trials" not in result.stderr
    if there is None:
        assert not run.exists()
    else:
        assert set(run.iterdir()) <= there
    assert not (run / "report.html").exists()
    if name in ("the folder is moved", "the folder is replaced"):
        assert len(journal_ids(elsewhere(run))) >= 2
    if name == "the folder is replaced":
        assert len(journal_ids(run)) >= 2  # the other run's log was left alone


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no command `mount`")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Fill a disk with one file, but for some bytes."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:  # a search may take some meanwhile
        for _ in range((shutil.disk_usage(disk).free - leave_bytes) // 4096):
            file.write(bytes(4096))
    return ballast


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(tmp_path: Path, disk: Path) -> None:
    run = disk / "run"
    process = begun(tmp_path, run, 6)
    ballast = fill(disk)
    known = journal_ids(run)
    result = ended(process)
    check_message(result, 2, str(run), "the disk is full", f"hwnas resume {run}", as_json=True)
    kept = journal_ids(run)
    assert kept[: len(known)] == known
    assert len(kept) < 6

    still = command("resume", str(run), "--json", cwd=tmp_path)
    check_message(still, 2, str(run), f"hwnas resume {run}", as_json=True)
    assert journal_ids(run)[: len(kept)] == kept

    for leave_bytes in (60_000, 130_000):  # the trials have room, then the winner or the page has none
        ballast.unlink()
        fill(disk, leave_bytes)
        outcome = command("resume", str(run), "--json", cwd=tmp_path)
        if outcome.code != 0:
            check_message(outcome, 2, str(run), f"hwnas resume {run}", as_json=True)
        kept = journal_ids(run)

    ballast.unlink()
    done = command("resume", str(run), "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    found = journal_ids(run)
    assert found[: len(kept)] == kept
    assert len(found) == len(set(found)) == 6
    assert command("verify", str(run / "bundle"), cwd=tmp_path).code == 0
    left = [each.name for each in run.iterdir() if each.name.endswith(".unfinished")]
    assert left == []


def test_a_full_disk_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    """An evaluator that finds no room doesn't make a failed trial: the next one would find none either."""
    config = small_config(tmp_path / "config.yaml", **{**SECTIONS, "evaluator": {"name": "stub_evaluators:NoRoom"}})
    run = tmp_path / "run"
    result = command("search", str(config), "--run-dir", str(run), "--json", cwd=tmp_path)
    check_message(result, 2, str(run), "the disk is full", "hwnas resume", as_json=True)
    assert journal_ids(run) == []


def test_a_read_only_medium_can_be_looked_at(tmp_path: Path, disk: Path, finished: Any) -> None:
    run = disk / "run"
    shutil.copytree(finished.run, run)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert len(command("trials", str(run), "--json", cwd=tmp_path).document()) == len(journal_ids(finished.run))
    assert command("verify", str(run / "bundle"), cwd=tmp_path).code == 0
    refused = command("report", str(run), cwd=tmp_path)
    check_message(refused, 2, "report.html", "Read-only")
    check_message(command("resume", str(run), cwd=tmp_path), 2, "it is read-only", "When it can be written, go on with")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def test_an_interruption_is_still_one(tmp_path: Path) -> None:
    process = begun(tmp_path, tmp_path / "run", 500)
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130
    assert "hwnas resume" in result.stderr
