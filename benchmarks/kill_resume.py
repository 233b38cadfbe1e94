"""Whether a run survives kill -9 at any moment: nothing lost, nothing twice, the same search in the end.

One run goes through undisturbed. A second one of the same config is killed again and again, at seeded random moments
of four kinds (while it starts, while its worker starts, while it runs trials, while it finishes the winner), and
resumed each time. Then both are compared. After every kill the journal is read from a copy, so that looking at it
repairs nothing.

    python benchmarks/kill_resume.py [--kills 20] [--strategy random|evolution|grid] [--real]

By default candidates aren't trained: a stub gives each an accuracy by its structure. `--real` trains them on digits.
No measured number enters the reward, so both runs must propose the same architectures in the same order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from common import BENCHMARKS, HWNAS, at_least_one, heading, seeded, summary
from journal_files import Row, changed, journal_rows

from export.bundle.verify import verify_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EARLIEST_S, _LATEST_S = 0.5, 12.0
_MOMENTS = {"worker": ("Searching", 8.0), "trials": ("  trial ", 1.5), "final": ("Measuring the top picks again", 8.0)}
"""Kind of kill → the line that it waits for, and how many seconds after it the kill falls at the latest."""
_ONE_SESSION_LIMIT_S = 900.0
_ORPHAN_PATIENCE_S = 5.0
_WORKER = "pipeline.engines.worker"
_COLUMNS = ("number", "id", "architecture", "status", "score", "objectives", "error")
_MEASURED = "latency_ms"


@dataclass
class Session:
    """One process of `hwnas search` or `hwnas resume`, and what it said."""

    process: subprocess.Popen[str]
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None

    def said(self, start: str) -> bool:
        """Whether a line began like this."""
        return any(line.startswith(start) for line in list(self.lines))

    def moment(self) -> str:
        """The stage that the process is in, by its last words."""
        if self.said(_MOMENTS["final"][0]):
            return "final stage"
        if self.said(_MOMENTS["trials"][0]):
            return "trials"
        return "start of the worker" if self.said(_MOMENTS["worker"][0]) else "start-up"

    def wait(self, until: Callable[[], bool], limit_s: float) -> None:
        """Sleep until something holds, the process ends, or time is up."""
        end = time.monotonic() + limit_s
        while not until() and not self.ended and time.monotonic() < end:
            time.sleep(0.01)

    def finish(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(_ONE_SESSION_LIMIT_S)
        self._reader.join()
        return code


@dataclass
class Findings:
    """Faults that were found, and the moments of the kills."""

    moments: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    orphans: int = 0
    bad_bundles: list[str] = field(default_factory=list)
    bad_exits: list[str] = field(default_factory=list)
    journal_sizes: list[int] = field(default_factory=list)
    finished_early: int = 0


class Runs:
    """Starts sessions of one config in one folder."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(_config(arguments), sort_keys=False))
        self._environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}

    def start(self, run_dir: Path) -> Session:
        """Resume a run, or begin it where it isn't one yet."""
        exists = (run_dir / "config.yaml").is_file()
        command = ["resume", str(run_dir)] if exists else ["search", str(self.config), "--run-dir", str(run_dir)]
        process = subprocess.Popen(
            [str(HWNAS), *command],
            cwd=BENCHMARKS,  # the stub evaluator lies here
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Session(process)


def main() -> None:
    """Do the unbroken run and the broken one, and compare."""
    arguments = _arguments()
    heading(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = Runs(folder, arguments)
        unbroken = _unbroken(runs, folder / "unbroken")
        if unbroken is None:
            return
        began = time.monotonic()
        found, seen = _broken(runs, folder / "broken", arguments)
        print(f"broken run: {time.monotonic() - began:.0f} s, {len(seen)} trials", flush=True)
        _compare(unbroken, seen, found, arguments)
        _print_leftovers(folder / "unbroken", folder / "broken")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=at_least_one, help="(default: 20, with --real 6)")
    parser.add_argument("--trials", type=at_least_one, default=30, help="(default: %(default)s)")
    parser.add_argument("--strategy", choices=["random", "evolution", "grid"], default="evolution")
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds of a stub trial (default: %(default)s)")
    parser.add_argument("--real", action="store_true", help="train the candidates, on digits")
    seeded(parser)
    arguments = parser.parse_args()
    arguments.kills = arguments.kills or (6 if arguments.real else 20)
    return arguments


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    stub = {"name": "stub_evaluator:HashEvaluator", "sleep_s": arguments.sleep}
    return {
        "name": "kill-resume",
        "seed": arguments.seed,
        "data": {"name": "digits"},
        "space": {"name": "convnet", "width": 8, "width_multipliers": [1, 2], "depths": [1, 2]},
        "strategy": {"name": arguments.strategy},
        "evaluator": {"name": "train", "epochs": 2} if arguments.real else stub,
        "objectives": ["accuracy", "macs"],
        "constraints": {"macs": 3_000_000},
        "budget": {"trials": arguments.trials, "minutes": 60},
        "final": {"epochs": 3, "patience": 3},
    }


def _unbroken(runs: Runs, run_dir: Path) -> list[Row] | None:
    session = runs.start(run_dir)
    code = session.finish()
    if code != 0:
        print(f"the unbroken run ended with exit code {code}:", *session.lines[-5:], sep="\n  ")
        return None
    rows = journal_rows(run_dir / "journal.sqlite")
    print(f"unbroken run: {time.monotonic() - session.began:.0f} s, {_counts(rows)}", flush=True)
    return rows


def _broken(runs: Runs, run_dir: Path, arguments: argparse.Namespace) -> tuple[Findings, list[Row]]:
    rng = random.Random(arguments.seed)
    found = Findings()
    seen: list[Row] = []
    for number, kind in enumerate(_kinds(arguments.kills, rng), start=1):
        session = runs.start(run_dir)
        _wait_for_moment(session, kind, rng)
        seen = _kill_and_look(session, run_dir, seen, found)
        print(
            f"kill {number:2d} after {time.monotonic() - session.began:4.1f} s, wanted: {kind:8s} fell into:"
            f" {session.moment():19s} journal: {len(seen)} trials",
            flush=True,
        )
    session = runs.start(run_dir)
    code = session.finish()
    if code != 0:
        found.bad_exits.append(f"the last resume ended with exit code {code}: {session.lines[-1:]}")
    at_end = journal_rows(run_dir / "journal.sqlite")
    found.lost += changed(seen, at_end)
    _check_bundle(run_dir, found, must_exist=True)
    return found, at_end


def _kinds(kills: int, rng: random.Random) -> list[str]:
    """A quarter of the kills fall into the final stage, at the end; the other kinds before it, shuffled."""
    final = max(1, kills // 4)
    cycle = ("trials", "start", "worker")
    kinds = [cycle[number % len(cycle)] for number in range(kills - final)]
    rng.shuffle(kinds)
    return kinds + ["final"] * final


def _wait_for_moment(session: Session, kind: str, rng: random.Random) -> None:
    """Starts are killed by the clock; the others some time after a line that says where the process is."""
    if kind == "start":
        session.wait(lambda: False, rng.uniform(_EARLIEST_S, _LATEST_S))
        return
    line, longest_s = _MOMENTS[kind]
    session.wait(lambda: session.said(line), _ONE_SESSION_LIMIT_S)
    session.wait(lambda: False, rng.uniform(0.0, longest_s))


def _kill_and_look(session: Session, run_dir: Path, seen: list[Row], found: Findings) -> list[Row]:
    """Kill the process, then check what it left; returns the journal."""
    if session.ended:
        found.finished_early += 1
        if session.process.returncode != 0:
            found.bad_exits.append(f"exit code {session.process.returncode}: {session.lines[-1:]}")
    session.process.send_signal(signal.SIGKILL)
    session.finish()
    found.moments["had just ended" if session.process.returncode == 0 else session.moment()] += 1
    found.orphans += _orphans(session.process.pid)
    now = journal_rows(run_dir / "journal.sqlite")
    found.lost += changed(seen, now)
    found.journal_sizes.append(len(now))
    _check_bundle(run_dir, found, must_exist=False)
    return now


def _orphans(parent: int) -> int:
    """Workers of a dead parent that live on after a while."""
    end = time.monotonic() + _ORPHAN_PATIENCE_S
    while (alive := _workers_of(parent)) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


def _workers_of(parent: int) -> int:
    count = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            zombie = process.status() == psutil.STATUS_ZOMBIE
            count += _WORKER in command and command[-1] == str(parent) and not zombie
    return count


def _check_bundle(run_dir: Path, found: Findings, *, must_exist: bool) -> None:
    """A bundle is whole, or not there."""
    bundle = run_dir / "bundle"
    if not bundle.exists():
        if must_exist:
            found.bad_bundles.append("there is none at the end")
        return
    found.bad_bundles += [f"{c.name}: {c.detail}" for c in verify_bundle(bundle) if c.ok is False]


def _counts(rows: Sequence[Row]) -> str:
    by_status = Counter(row["status"] for row in rows)
    return ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))


def _compare(unbroken: list[Row], broken: list[Row], found: Findings, arguments: argparse.Namespace) -> None:
    kills = sum(found.moments.values())
    print("\nkills fell into: " + ", ".join(f"{moment} {count}" for moment, count in found.moments.most_common()))
    print(f"trials in the journal after each kill: {' '.join(map(str, found.journal_sizes))}")
    for problem in (*found.bad_exits, *found.bad_bundles):
        print(f"problem: {problem}")
    counted = sum(row["status"] != "infeasible" for row in broken)
    ids = [row["id"] for row in broken]
    same_ids = ids == [row["id"] for row in unbroken]
    differing = _differing(unbroken, broken)
    wanted = arguments.trials
    summary("counted trials at the end", f"{counted} of {wanted} ({_counts(broken)})", f"{wanted}")
    summary("trials that are there twice", str(len(ids) - len(set(ids))), "0")
    summary(f"trials lost or changed by {kills} kills", str(len(found.lost)), "0")
    summary("sequence of architectures", "the same" if same_ids else _first_difference(unbroken, broken), "the same")
    summary("trials with another result (the latency apart)", str(differing), "0")
    summary("worker processes that outlived a kill", str(found.orphans), "0")
    summary("sessions that ended with an error", str(len(found.bad_exits)), "0")
    summary("bundles missing or not whole", str(len(found.bad_bundles)), "0")


def _differing(unbroken: Sequence[Row], broken: Sequence[Row]) -> int:
    pairs = zip(map(_lasting, unbroken), map(_lasting, broken), strict=False)
    return sum(one != two for one, two in pairs)


def _lasting(row: Row) -> Row:
    """The part of a journal that must be the same in both runs: all but times and what a clock measured."""
    kept = {name: row[name] for name in _COLUMNS}
    objectives = yaml.safe_load(kept["objectives"])
    objectives.pop(_MEASURED, None)
    return {**kept, "objectives": objectives}


def _first_difference(unbroken: Sequence[Row], broken: Sequence[Row]) -> str:
    pairs = zip(unbroken, broken, strict=False)
    at = next((index for index, (one, two) in enumerate(pairs) if one["id"] != two["id"]), None)
    if at is None:
        return f"the same until one ends ({len(unbroken)} and {len(broken)} trials)"
    return f"differs from number {at} on"


def _print_leftovers(unbroken: Path, broken: Path) -> None:
    """Files that only the kills can have left."""
    files = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (unbroken, broken)]
    more = sorted(name for name in files[1] - files[0] if not name.endswith(".safetensors"))
    print(f"files that only the broken run has: {', '.join(more) or 'none'}")


if __name__ == "__main__":
    main()
