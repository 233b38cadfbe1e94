"""What a trial takes besides its judging: strategies on a table, through the engine and the journal.

    python benchmarks/engine_overhead.py [--trials 10000] [--strategies random evolution] [--table FILE.csv.gz]

The table is NAS-Bench-201's, whose rows are found at once, so all that is timed is NNI's strategy, the engine and the
journal: in memory as `hwnas bench` has it, and in a file as a search has it. Beside each: the engine's and journal's
part of the time, the largest trial, and how the process's memory grew from the first tenth of the trials to the end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from common import REPOSITORY, at_least_one, heading, seeded, summary, table

from pipeline.budget import Budget
from pipeline.config_file import parse_config
from pipeline.console import Reporter
from pipeline.engines.direct import DirectEngine
from pipeline.evaluators.lookup import Lookup, read_table
from pipeline.journal import Journal
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.registry import load
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.strategies.options import resolved
from pipeline.strategies.problem import Problem
from pipeline.strategies.table import STRATEGIES

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.journal import TrialRecord

_TABLE = Path(os.environ.get("HWNAS_SHARED", REPOSITORY.parent / "shared")) / "data" / "nasbench201.csv.gz"
_GOAL_MS = 5.0


def main() -> None:
    """Time each strategy with each journal, print the figures."""
    arguments = _arguments()
    heading(__doc__)
    rows = []
    for name in arguments.strategies:
        for where in ("memory", "file"):
            found = _one(name, where, arguments)
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
    """Notes when each trial ended, and the memory at a tenth of them."""

    def __init__(self, trials: int) -> None:
        self._early = trials // 10
        self.ends_s: list[float] = []
        self.early_bytes = 0

    def trial_ended(self, record: TrialRecord) -> None:
        self.ends_s.append(time.perf_counter())
        if len(self.ends_s) == self._early:
            self.early_bytes = psutil.Process().memory_info().rss


def _one(name: str, where: str, arguments: argparse.Namespace) -> dict[str, str]:
    config = _config(name, arguments)
    options: Any = config.evaluator
    space = NasBench201Space(config.space, (3, 32, 32), 10)
    columns = {options.accuracy: "accuracy", options.costs["latency_ms"]: "costs.latency_ms"}
    lookup = Lookup(read_table(arguments.table, options.key, columns), space, options, ["latency_ms"], {})
    watch = _Watch(arguments.trials)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        journal = Journal.in_memory() if where == "memory" else Journal.create(Path(folder) / "journal.sqlite", {})
        engine = DirectEngine(config, space, journal, Budget(config.budget, []), watch, lookup)
        problem = Problem(space, config.seed, ("accuracy", "latency_ms"), {}, lookup.known)
        strategy = load("strategy", name, STRATEGIES)(config.strategy, problem)
        model_space = SimplifiedModelSpace.from_model(space.model_space())
        began = time.perf_counter()
        strategy(model_space, engine)
        took_ms = 1e3 * (time.perf_counter() - began)
        count = len(journal.trials())
        journal.close()
    grown = psutil.Process().memory_info().rss - watch.early_bytes
    return {
        "strategy": name,
        "journal in": where,
        "trials": str(count),
        "ms per trial": f"{took_ms / count:.2f}",
        "of it engine and journal": f"{1e3 * engine.answering_s / count:.2f}",
        "99th percentile": f"{1e3 * np.percentile(np.diff(watch.ends_s), 99):.2f}",
        "largest": f"{1e3 * np.diff(watch.ends_s).max():.1f}",
        "memory grew by": f"{grown / 1e6:.0f} MB",
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
    strategy = resolved(config.strategy, trials=arguments.trials, pick=config.final.pick)
    return config.model_copy(update={"strategy": strategy})


if __name__ == "__main__":
    main()
