"""Time of a trial besides its judging: strategies on a table, through the engine and the journal.

    python benchmarks/engine_overhead.py [--trials 10000] [--strategies random evolution] [--table FILE.csv.gz]

The table is NAS-Bench-201's, whose rows are found at once, so all that is timed is NNI's strategy, the engine and the
journal: in memory as `hwnas bench` has it, and in a file as a search has it. Beside each: processor time, the engine's
and journal's part of the time, the largest trial, and the process's memory after a tenth, a half and all of the trials.
Each search is a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from common import SHARED, at_least_one, heading, seeded, summary, table

from pipeline.config.file import parse_config
from pipeline.engines.direct import DirectEngine
from pipeline.evaluators.lookup import Lookup, read_table
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.tables import STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.reporter import Reporter

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.trials.journal import TrialRecord

_TABLE = SHARED / "data" / "nasbench201.csv.gz"
_GOAL_MS = 5.0


def main() -> None:
    """Time each strategy with each journal, print the figures."""
    arguments = _arguments()
    heading(__doc__)
    rows = []
    for name in arguments.strategies:
        for where in ("memory", "file"):
            found = _in_a_fork(name, where, arguments)
            rows.append(found)
            summary(f"{name}, journal in {where}", f"{found['ms per trial']} ms per trial", f"<= {_GOAL_MS:g} ms")
    print()
    table(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=_TABLE, help="(default: %(default)s)")
    parser.add_argument("--trials", type=at_least_one, default=10_000)
    parser.add_argument("--strategies", nargs="+", default=["random", "evolution"], choices=list(STRATEGIES))
    seeded(parser)
    return parser.parse_args()


class _Watch(Reporter):
    """Notes when each trial ended, and the memory after a tenth, a half and all of them."""

    def __init__(self, trials: int) -> None:
        self._looks = {trials // 10, trials // 2, trials}
        self.ends_s: list[float] = []
        self.resident_bytes: list[int] = []

    def trial_ended(self, record: TrialRecord) -> None:
        self.ends_s.append(time.perf_counter())
        if len(self.ends_s) in self._looks:
            self.resident_bytes.append(psutil.Process().memory_info().rss)


def _in_a_fork(*search: Any) -> dict[str, str]:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_one, search)


def _one(name: str, where: str, arguments: argparse.Namespace) -> dict[str, str]:
    config = _config(name, arguments)
    options: Any = config.evaluator
    space = NasBench201Space(config.space, (3, 32, 32), 10)
    columns = {options.accuracy: "accuracy", options.costs["latency_ms"]: "costs.latency_ms"}
    lookup = Lookup(read_table(arguments.table, options.key, columns), space, options, ["latency_ms"], {})
    watch = _Watch(arguments.trials)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        journal = Journal.in_memory() if where == "memory" else Journal.create(Path(folder) / "journal.sqlite", {})
        engine = DirectEngine(config, space, journal, Budget(config.budget, []), watch, lookup.run)
        problem = Problem(space, config.seed, ("accuracy", "latency_ms"), {}, lookup.known)
        strategy = strategy_of(config.strategy, problem)
        model_space = SimplifiedModelSpace.from_model(space.model_space())
        began, busy = time.perf_counter(), time.process_time()
        strategy(model_space, engine)
        busy_ms = 1e3 * (time.process_time() - busy)
        took_ms = 1e3 * (time.perf_counter() - began)
        count = len(journal.trials())
        journal.close()
    return {
        "strategy": name,
        "journal in": where,
        "trials": str(count),
        "ms per trial": f"{took_ms / count:.2f}",
        "processor": f"{busy_ms / count:.2f}",
        "engine and journal": f"{1e3 * engine.answering_s / count:.2f}",
        "99th percentile": f"{1e3 * np.percentile(np.diff(watch.ends_s), 99):.2f}",
        "largest": f"{1e3 * np.diff(watch.ends_s).max():.1f}",
        "memory, MB": ", ".join(f"{each / 1e6:.0f}" for each in watch.resident_bytes),
        "peak": f"{1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.0f}",
    }


def _config(name: str, arguments: argparse.Namespace) -> RunConfig:
    evaluator = {"name": "table", "path": str(arguments.table), "key": "arch_str", "accuracy": "cifar10_test_200"}
    config = parse_config(
        {
            "seed": arguments.seed,
            "data": {"name": "digits"},
            "space": {"name": "nasbench201"},
            "strategy": {"name": name},
            "evaluator": {**evaluator, "scale": 0.01, "costs": {"latency_ms": "gold_6226_ms"}},
            "budget": {"trials": arguments.trials},
        },
        "the benchmark's config",
    )
    strategy = config.strategy.resolved(trials=arguments.trials, pick=config.final.pick)
    return config.model_copy(update={"strategy": strategy})


if __name__ == "__main__":
    main()
