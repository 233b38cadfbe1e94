"""Whether a run survives kill -9 at any moment: nothing lost, nothing twice, the same search in the end.

One run goes through undisturbed. A second one of the same config is killed again and again, at seeded random moments
of four kinds (while it starts, while its workers start, while it runs trials, while it finishes the winner), and
resumed each time. Then both are compared. After every kill the journal is read from a copy, so that looking at it
repairs nothing. In a third run one of several workers is killed: its trial has failed, and nothing else; a longer
budget then has it replayed.

By default two trials run at a time, and aren't trained: a stub gives each an accuracy by its structure, after 0 to
twice `--sleep` seconds by chance, so that they end in another order each time. `--real` trains them on digits. No
measured number enters the reward, so both runs must ask for the same architectures in the same order.
"""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from common import BENCHMARKS, HWNAS, summary
from journal_files import Row, changed, counted, differing, in_order, journal_rows
from options import SEED, Options, amount, begin, flag, option, positive

from export.bundle.verify import verify_bundle

_EARLIEST_S, _LATEST_S = 0.5, 9.0
_MOMENTS = {"worker": ("Searching", 5.0), "trials": ("  trial ", 1.5), "final": ("Measuring the top picks again", 5.0)}
"""Kind of kill → the line that it waits for, and how many seconds after it the kill falls at the latest."""
_ONE_SESSION_LIMIT_S = 900.0
_ORPHAN_PATIENCE_S = 5.0
_WORKER = "pipeline.engines.fork_server"
_MEASURED = "latency_ms"
_ENGINES: dict[str, dict[str, Any]] = {
    "processes": {"name": "processes", "workers": 2},
    "auto": {"name": "auto"},
    "inline": {"name": "inline"},
}
_LONGER = 5


@dataclass
class Session:
    """One process of `hwnas search` or `hwnas resume`, and what it said."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def lines(self) -> list[str]:
        """All lines that it wrote so far."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None

    def said(self, start: str) -> bool:
        """Whether a line began like this."""
        return any(line.startswith(start) for line in self.lines)

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
        return self.process.wait(_ONE_SESSION_LIMIT_S)


@dataclass
class Findings:
    """Faults that were found, and the moments of the kills."""

    moments: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    orphans: int = 0
    bad_bundles: list[str] = field(default_factory=list)
    bad_exits: list[str] = field(default_factory=list)
    journal_sizes: list[int] = field(default_factory=list)


def _start(config: Path, run_dir: Path) -> Session:
    """Resume a run, or begin it where it isn't one yet."""
    exists = (run_dir / "config.yaml").is_file()
    log = config.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(HWNAS), *(["resume", run_dir] if exists else ["search", config, "--run-dir", run_dir])],
            cwd=BENCHMARKS,  # the stub evaluator lies here
            env={**os.environ, "XDG_DATA_HOME": str(config.with_name("data"))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=out,
        )
    return Session(process, log)


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--kills", text="20 by default, with --real 6"),
        positive("--trials", 30),
        option("--strategy", "evolution", choices=["random", "evolution", "grid"]),
        option("--engine", "processes", choices=list(_ENGINES), text="auto runs stubs one at a time, as no pilot can"),
        amount("--sleep", 0.1, "seconds of a stub trial, on average"),
        flag("--real", "train the candidates, on digits"),
        SEED,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(_config(arguments), sort_keys=False))
        unbroken = _unbroken(config, folder / "unbroken")
        began = time.monotonic()
        found, seen = _broken(config, folder / "broken", arguments)
        print(f"broken run: {time.monotonic() - began:.0f} s, {len(seen)} trials", flush=True)
        _compare(unbroken, seen, found, arguments)
        _print_leftovers(folder / "unbroken", folder / "broken")
        if arguments.engine != "inline":
            _kill_a_worker(config, folder / "worker", arguments)


def _config(arguments: Options) -> dict[str, Any]:
    stub = {"name": "stub_evaluator:HashEvaluator", "sleep_s": arguments.sleep, "uneven": True}
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
        "engine": _ENGINES[arguments.engine],
        "final": {"epochs": 3, "patience": 3},
    }


def _unbroken(config: Path, run_dir: Path) -> list[Row]:
    session = _start(config, run_dir)
    if (code := session.finish()) != 0:
        raise SystemExit("\n  ".join([f"the unbroken run ended with exit code {code}:", *session.lines[-5:]]))
    rows = journal_rows(run_dir / "journal.sqlite")
    print(f"unbroken run: {time.monotonic() - session.began:.0f} s, {_counts(rows)}", flush=True)
    return rows


def _broken(config: Path, run_dir: Path, arguments: Options) -> tuple[Findings, list[Row]]:
    rng = random.Random(arguments.seed)
    found = Findings()
    seen: list[Row] = []
    for number, kind in enumerate(_kinds(arguments.kills or (6 if arguments.real else 20), rng), start=1):
        session = _start(config, run_dir)
        _wait_for_moment(session, kind, rng)
        seen = _kill_and_look(session, run_dir, seen, found)
        print(
            f"kill {number:2d} after {time.monotonic() - session.began:4.1f} s, wanted: {kind:8s} fell into:"
            f" {session.moment():19s} journal: {len(seen)} trials",
            flush=True,
        )
    session = _start(config, run_dir)
    if (code := session.finish()) != 0:
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
    if session.ended and session.process.returncode != 0:
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
    return len(_processes_of(parent))


def _processes_of(parent: int) -> list[psutil.Process]:
    """The fork server of a search, and its workers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if _WORKER in command and command[-1] == str(parent) and not zombie:
                found.append(process)
    return found


def _check_bundle(run_dir: Path, found: Findings, *, must_exist: bool) -> None:
    """A bundle is whole, or not there."""
    bundle = run_dir / "bundle"
    if not bundle.exists():
        if must_exist:
            found.bad_bundles.append("there is none at the end")
        return
    found.bad_bundles += [f"{c.name}: {c.detail}" for c in verify_bundle(bundle) if c.ok is False]


def _counts(rows: list[Row]) -> str:
    by_status = Counter(row["status"] for row in rows)
    return ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))


def _compare(unbroken: list[Row], broken: list[Row], found: Findings, arguments: Options) -> None:
    kills = sum(found.moments.values())
    print("\nkills fell into: " + ", ".join(f"{moment} {count}" for moment, count in found.moments.most_common()))
    print(f"trials in the journal after each kill: {' '.join(map(str, found.journal_sizes))}")
    for problem in (*found.bad_exits, *found.bad_bundles):
        print(f"problem: {problem}")
    broken, unbroken = in_order(broken), in_order(unbroken)
    ids = [row["id"] for row in broken]
    same_ids = ids == [row["id"] for row in unbroken]
    wanted = arguments.trials
    summary("counted trials at the end", f"{counted(broken)} of {wanted} ({_counts(broken)})", f"{wanted}")
    summary("trials that are there twice", str(len(ids) - len(set(ids))), "0")
    summary(f"trials lost or changed by {kills} kills", str(len(found.lost)), "0")
    summary("sequence of architectures", "the same" if same_ids else _first_difference(unbroken, broken), "the same")
    summary("trials with another result (the latency apart)", str(differing(broken, unbroken, _MEASURED)), "0")
    summary("worker processes that outlived a kill", str(found.orphans), "0")
    summary("sessions that ended with an error", str(len(found.bad_exits)), "0")
    summary("bundles missing or not whole", str(len(found.bad_bundles)), "0")


def _first_difference(unbroken: list[Row], broken: list[Row]) -> str:
    pairs = zip(unbroken, broken, strict=False)
    at = next((index for index, (one, two) in enumerate(pairs) if one["id"] != two["id"]), None)
    if at is None:
        return f"the same until one ends ({len(unbroken)} and {len(broken)} trials)"
    return f"differs from number {at} on"


def _kill_a_worker(config: Path, run_dir: Path, arguments: Options) -> None:
    """Kill one of several workers in a run of its own, then replay that run with a longer budget."""
    session = _start(config, run_dir)
    session.wait(lambda: session.said(_MOMENTS["trials"][0]), _ONE_SESSION_LIMIT_S)
    server, *workers = sorted(_processes_of(session.process.pid), key=lambda each: each.create_time())
    random.Random(arguments.seed).choice(workers).send_signal(signal.SIGKILL)
    code = session.finish()
    first = journal_rows(run_dir / "journal.sqlite")
    changed_config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    changed_config["budget"]["trials"] += _LONGER
    (run_dir / "config.yaml").write_text(yaml.safe_dump(changed_config, sort_keys=False), encoding="utf-8")
    again = _start(config, run_dir)
    code = code or again.finish()
    now = journal_rows(run_dir / "journal.sqlite")
    failed = [row["error"] for row in now if row["status"] == "failed"]
    print(f"\na worker of {len(workers)} beside process {server.pid} was killed; failed trials: {failed or 'none'}")
    summary("a worker killed: exit code", str(code), "0")
    summary("a worker killed: failed trials", str(len(failed)), "1, or 0 where it had none")
    summary("a worker killed: trials there twice", str(len(now) - len({row["id"] for row in now})), "0")
    summary("a worker killed: trials lost or changed by the replay", str(len(changed(first, now))), "0")
    summary("a worker killed: counted trials", f"{counted(first)}, then {counted(now)}",
            f"{arguments.trials}, then {arguments.trials + _LONGER}")  # fmt: skip


def _print_leftovers(unbroken: Path, broken: Path) -> None:
    """Files that only the kills can have left."""
    files = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (unbroken, broken)]
    more = sorted(name for name in files[1] - files[0] if not name.endswith(".safetensors"))
    print(f"files that only the broken run has: {', '.join(more) or 'none'}")


if __name__ == "__main__":
    main()
