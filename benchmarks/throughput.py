"""Candidates an hour: searches by two builds in alternation, of the same architectures at the same recipe.

`--before` is a checkout of another commit (`git worktree add ../before COMMIT`); it runs in this environment. Each
search proposes at random from one seed, so that both builds train the same networks, and is ended when enough of them
have a result. The time counts from the command's start to that result; the rate of the rest from the first one's end.
Memory is the sum of what the command and its processes take, shared pages counted once. Run it on an idle machine.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from common import REPOSITORY, SHARED, summary, table
from journal_files import Row, counted, journal_rows
from options import SEED, begin, file_path, option, positive

_LOOK_EVERY_S = 0.25
_LIMIT_S = 1800.0
_CONFIGS: dict[str, tuple[str, dict[str, object], float]] = {
    "digits": ("configs/digits-cpu.yaml", {}, 3.0),
    "width 16": (
        "configs/fashion-mnist-cpu.yaml",
        {"space.width": 16, "data.train_samples": 4000, "data.validation_samples": 2000, "constraints": {}},
        2.0,
    ),
    "width 8": (
        "configs/fashion-mnist-cpu.yaml",
        {"space.width": 8, "data.train_samples": 4000, "data.validation_samples": 2000, "constraints": {}},
        0.0,
    ),
}
"""Name → the config of the build before, what is changed in it, and how many times the candidates are wanted."""


@dataclass(frozen=True)
class Run:
    """What one search did: seconds from the command to the last result, candidates an hour, MB at most, accuracies."""

    seconds: float
    an_hour: float
    peak_mb: float
    accuracies: dict[str, float]


def main() -> None:
    options = begin(
        __doc__,
        file_path("--before", text="a checkout of the build to compare with"),
        option("--searches", ",".join(_CONFIGS), "which, separated by commas"),
        positive("--trials", 6, "of each search"),
        positive("--rounds", 2, "of both builds in turn"),
        SEED,
    )
    if options.before is None:
        raise SystemExit("--before: a checkout of the build to compare with is needed")
    builds = {"before": options.before.absolute(), "now": REPOSITORY}
    for name in options.searches.split(","):
        source, changes, goal = _CONFIGS[name]
        config = _config(options.before / source, changes, options.trials, options.seed)
        runs: dict[str, list[Run]] = {build: [] for build in builds}
        for number in range(options.rounds):
            for build, checkout in builds.items():
                run = _search(checkout, config, options.trials)
                runs[build].append(run)
                print(f"  {name}, round {number + 1}, {build}: {run.seconds:.0f} s", flush=True)
        _tell(name, runs, goal)


def _tell(name: str, runs: dict[str, list[Run]], goal: float) -> None:
    table(
        {
            "search": name,
            "build": build,
            "to the last result s": ", ".join(f"{each.seconds:.0f}" for each in found),
            "candidates an hour": ", ".join(f"{each.an_hour:.0f}" for each in found),
            "peak MB": ", ".join(f"{each.peak_mb:.0f}" for each in found),
            "accuracy": f"{statistics.mean(a for each in found for a in each.accuracies.values()):.4f}",
        }
        for build, found in runs.items()
    )
    rate, seconds, memory = (
        statistics.median(values)
        for values in (
            [now.an_hour / before.an_hour for before, now in _pairs(runs)],
            [before.seconds / now.seconds for before, now in _pairs(runs)],
            [now.peak_mb / before.peak_mb for before, now in _pairs(runs)],
        )
    )
    off = [now.accuracies[id_] - a for before, now in _pairs(runs) for id_, a in before.accuracies.items()
           if id_ in now.accuracies]  # fmt: skip
    summary(f"{name}: candidates an hour", f"{rate:.2f} times", f"{goal:g}" if goal else "none")
    summary(f"{name}: from the command to the last result", f"{seconds:.2f} times as soon", "none")
    summary(f"{name}: memory", f"{memory:.2f} times", "1.2 at most")
    if len(off) > 1:
        reach = 2 * statistics.stdev(off) / len(off) ** 0.5
        middle = statistics.mean(off)
        summary(f"{name}: accuracy, {len(off)} networks by both", f"{middle:+.4f} ± {reach:.4f}", "not lower")
    print()


def _pairs(runs: dict[str, list[Run]]) -> list[tuple[Run, Run]]:
    return list(zip(runs["before"], runs["now"], strict=True))


def _config(source: Path, changes: dict[str, object], trials: int, seed: int) -> str:
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    common = {"strategy": {"name": "random"}, "seed": seed, "budget": {"trials": 2 * trials, "minutes": 60}}
    for key, value in {**common, **changes}.items():
        section, _, rest = key.partition(".")
        if rest:
            document[section][rest] = value
        else:
            document[section] = value
    if "root" in document["data"]:
        document["data"]["root"] = str(SHARED / "data")
    return yaml.safe_dump(document)


def _search(checkout: Path, config: str, trials: int) -> Run:
    """Run a search until enough candidates have a result, then end it."""
    entry = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["hwnas"]
    module, _, function = entry.partition(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "search.yaml").write_text(config, encoding="utf-8")
        begin_it = f"import sys; from {module} import {function}; sys.argv[0] = 'hwnas'; {function}()"
        command = [sys.executable, "-P", "-c", begin_it, "search", "search.yaml", "--run-dir", "run"]
        began, peak = time.monotonic(), 0.0
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                command, cwd=folder, stdout=said, stderr=said, env={**os.environ, "PYTHONPATH": str(checkout)}
            )
        try:
            while counted(rows := journal_rows(folder / "run" / "journal.sqlite")) < trials:
                if process.poll() is not None or time.monotonic() - began > _LIMIT_S:
                    raise SystemExit((folder / "said").read_text(encoding="utf-8", errors="replace")[-2000:])
                peak = max(peak, _memory_mb(process.pid))
                time.sleep(_LOOK_EVERY_S)
            seconds = time.monotonic() - began
        finally:
            process.kill()  # its own processes end with it
            process.wait()
            time.sleep(1.0)
        return _run(rows, trials, seconds, peak)


def _run(rows: list[Row], trials: int, seconds: float, peak_mb: float) -> Run:
    ok = [row for row in rows if row["status"] == "ok"][:trials]
    first, last = ok[0]["elapsed_s"], ok[-1]["elapsed_s"]
    accuracies = {row["id"]: json.loads(row["objectives"])["accuracy"] for row in ok}
    return Run(seconds, 3600 * (len(ok) - 1) / (last - first), peak_mb, accuracies)


def _memory_mb(pid: int) -> float:
    """Memory of a process and all that it began, each shared page by its share."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss / 1e6
    return total


if __name__ == "__main__":
    main()
