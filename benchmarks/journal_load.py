"""Time and memory of commands on a run of 100,000 trials, whose results are made up.

The run is a real one: its trials are what the strategy asks for, with the details that trainings leave, so that it can
be looked at, reported on and resumed. Each command is a process of its own; `resume` is timed until the first new trial
is asked for, and stopped there. With `--before`, the command of another build, the two take turns in every repeat.
"""

import ast
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import HWNAS, spread, summary, table
from options import SEED, Options, begin, file_path, option, positive, some_of
from searches import direct_engine, strategy_on

from pipeline.config.file import parse_config
from pipeline.run import RunDirectory
from pipeline.search import load_inputs
from pipeline.spaces.base import Architecture, SearchSpace
from pipeline.trials.result import TrialResult

_MB = 1e6


@dataclass(frozen=True)
class Command:
    """What is timed, and what it may take."""

    words: tuple[str, ...]
    seconds: float
    megabytes: float


_RESUME = """
import sys, time
from pipeline.commands import runs
from pipeline.errors import Interrupted
from pipeline.trials.reporter import Reporter

class UntilNew(Reporter):
    def trial_started(self, number, identity):
        print(f"trial {number} is asked for", file=sys.stderr)
        raise KeyboardInterrupt

try:
    runs.resume(sys.argv[1], reporter=UntilNew())
except Interrupted:
    raise SystemExit(0)
raise SystemExit("no new trial was asked for")
"""

COMMANDS = {
    "trials": Command(("trials",), 5, 300),
    "trials --csv": Command(("trials", "--csv"), 60, 300),
    "trials --json": Command(("trials", "--json"), 60, 300),
    "report": Command(("report",), 60, 1000),
    "resume": Command((), 30, 4000),
}


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 100_000),
        positive("--repeats", 2),
        option("--strategy", "random", "of the run"),
        some_of("--commands", COMMANDS),
        file_path("--run", text="a run that an earlier call kept; made where it isn't there"),
        file_path("--before", text="the command `hwnas` of another build, to be timed in turn"),
        SEED,
    )
    with tempfile.TemporaryDirectory(prefix="hwnas-load-") as folder:
        run = arguments.run or Path(folder) / "run"
        if not run.exists():
            began = time.monotonic()
            _make(run, arguments)
            print(f"{arguments.trials} trials were made in {time.monotonic() - began:.0f} s")
        journal = (run / "journal.sqlite").stat().st_size
        print(f"the journal has {journal / _MB:.0f} MB\n", flush=True)
        builds = {"now": HWNAS, **({"before": arguments.before} if arguments.before else {})}
        rows = [row for name in arguments.commands for row in _timed(name, run, builds, arguments.repeats)]
    print()
    table(rows)


def _make(run_dir: Path, arguments: Options) -> None:
    config = parse_config(
        {
            "name": "load",
            "seed": arguments.seed,
            "data": {"name": "digits"},
            "space": {"name": "convnet", "stages": 3, "activation_scope": "stage"},
            "strategy": {"name": arguments.strategy},
            "evaluator": {"name": "train", "epochs": 3},
            "cost_model": "measure",
            "objectives": ["accuracy", "latency_ms", "size_mb"],
            "constraints": {"latency_ms": 0.6},
            "budget": {"trials": 2 * arguments.trials, "minutes": 10**6, "infeasible": 2 * arguments.trials},
        },
        "the benchmark's config",
    )
    run = RunDirectory.create(run_dir, config)
    _, space = load_inputs(run.config, "the benchmark's config")
    journal = run.open_journal()
    engine = direct_engine(run.config, space, journal, MadeUpTrials(space, arguments.seed, arguments.trials))
    try:
        strategy_on(run.config, space, None)(engine)
    except _EnoughError:
        pass
    finally:
        journal.close()


class _EnoughError(Exception):
    pass


class MadeUpTrials:
    """Results of trials that nobody ran, as like real ones as their readers can tell."""

    def __init__(self, space: SearchSpace, seed: int, count: int) -> None:
        self._random, self._left = random.Random(seed), count
        self._effects = {
            (choice.label, value): self._random.gauss(0, 1) for choice in space.choices for value in choice.values
        }

    def __call__(self, architecture: Architecture) -> TrialResult:
        if not self._left:
            raise _EnoughError
        self._left -= 1
        draw = self._random
        if draw.random() < 0.02:
            return TrialResult("failed", error="RuntimeError: the made-up network's loss is no number")
        size = sum(self._effects[each] for each in architecture.items()) / len(architecture) ** 0.5
        latency = 0.3 * 2.0 ** (0.6 * size + 0.1 * draw.gauss(0, 1))
        costs = {
            "macs": round(1e6 * 2.0**size),
            "params": round(2e4 * 2.0**size),
            "size_mb": 0.08 * 2.0**size,
            "peak_memory_mb": 0.02 * 2.0 ** (0.5 * size),
            "latency_ms": latency,
        }
        details: dict[str, Any] = {
            "graph": "builder",
            "latency": {
                "source": "measured",
                "low_ms": 0.98 * latency,
                "high_ms": 1.02 * latency,
                "p50_ms": 1.01 * latency,
                "p99_ms": 1.3 * latency,
                "reference": "a reference network",
                "warnings": [],
                "cost_s": 0.061,
            },
            "seed": draw.randrange(2**32),
        }
        if latency > 0.6:
            return TrialResult("infeasible", costs, {**details, "excess": {"latency_ms": latency / 0.6 - 1}})
        accuracy = min(1.0, max(0.0, 0.9 + 0.03 * size + 0.02 * draw.gauss(0, 1)))
        details["curve"] = [0.6 * accuracy, 0.9 * accuracy, accuracy]
        return TrialResult("ok", {"accuracy": accuracy, **costs}, details)


def _timed(name: str, run: Path, builds: dict[str, Path], repeats: int) -> list[dict[str, str]]:
    """Rows of the table, one a build; the builds take turns."""
    found: dict[str, list[Measured]] = {build: [] for build in builds}
    for _ in range(repeats):
        for build, command in builds.items():
            found[build].append(_run(name, run, command))
    wanted, rows = COMMANDS[name], []
    for build, all_of in found.items():
        seconds, peak = [each.seconds for each in all_of], max(each.peak_mb for each in all_of)
        goal = f"<= {wanted.seconds:g} s, {wanted.megabytes:g} MB" if build == "now" else "none, for comparison"
        summary(f"{name}, {build}", f"{max(seconds):.1f} s, {peak:.0f} MB", goal)
        rows.append(
            {
                "command": name,
                "build": build,
                "seconds": spread(seconds),
                "processor": spread([each.processor_s for each in all_of]),
                "peak, MB": f"{peak:.0f}",
                "written, MB": f"{all_of[0].written_mb:.1f}",
            }
        )
    return rows


@dataclass(frozen=True)
class Measured:
    """What one process took, and how much it wrote: on stdout, or the page."""

    seconds: float
    processor_s: float
    peak_mb: float
    written_mb: float


_LAUNCHER = """
import os, sys, time
began = time.monotonic()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(process, 0)
seconds = time.monotonic() - began
os.write(3, repr((os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss)).encode())
"""
"""A small program between this one and a command: the system counts a process's peak from its fork on, when it is still
a copy of the one that starts it."""


def _run(name: str, run: Path, hwnas: Path) -> Measured:
    words = COMMANDS[name].words
    python = hwnas.with_name("python")
    command = [str(hwnas), words[0], str(run), *words[1:]] if words else [str(python), "-P", "-c", _RESUME, str(run)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as told:
        subprocess.run(
            [
                "/bin/sh",
                "-c",
                f'exec "$@" 3<&{told.fileno()}',
                "sh",
                sys.executable,
                "-I",
                "-S",
                "-c",
                _LAUNCHER,
                *command,
            ],
            stdout=out,
            stderr=err,
            pass_fds=(told.fileno(),),
            check=True,
        )
        told.seek(0)
        code, seconds, processor_s, peak_kib = ast.literal_eval(told.read().decode())
        written = (run / "report.html").stat().st_size if name == "report" else out.seek(0, os.SEEK_END)
        if code != 0:
            err.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit code {code}: {err.read().decode()[-2000:]}")
    return Measured(seconds, processor_s, 1024 * peak_kib / _MB, written / _MB)


if __name__ == "__main__":
    main()
