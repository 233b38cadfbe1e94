"""Time of a trial besides its judging: strategies on a table, through the engine and the journal.

The table is NAS-Bench-201's, whose rows are found at once, so all that is timed is NNI's strategy, the engine and the
journal: in memory as `hwnas bench` has it, and in a file as a search has it. Beside each: processor time, the engine's
and journal's part of the time, the largest trial, and the process's memory after a tenth, a half and all of the trials.
Each search is a process of its own.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from common import summary, table
from networks import nasbench201
from options import SEED, Options, begin, positive, some_of
from searches import TABLE_SECTIONS, config_of, direct_engine, in_a_fork, strategy_on, table_lookup

from pipeline.tables import STRATEGIES
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.reporter import Reporter

_GOAL_MS = 5.0


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 10_000),
        some_of("--strategies", STRATEGIES, ["random", "evolution"]),
        SEED,
    )
    rows = []
    for name in arguments.strategies:
        for where in ("memory", "file"):
            found = in_a_fork(_one, name, where, arguments)
            rows.append(found)
            summary(f"{name}, journal in {where}", f"{found['ms per trial']} ms per trial", f"<= {_GOAL_MS:g} ms")
    print()
    table(rows)


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


def _one(name: str, where: str, arguments: Options) -> dict[str, str]:
    config = config_of(arguments.trials, seed=arguments.seed, strategy={"name": name}, **TABLE_SECTIONS)
    space, lookup = nasbench201(), table_lookup({})
    watch = _Watch(arguments.trials)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        journal = Journal.in_memory() if where == "memory" else Journal.create(Path(folder) / "journal.sqlite", {})
        engine = direct_engine(config, space, journal, lookup.run, reporter=watch)
        search = strategy_on(config, space, lookup.known)
        began, busy = time.perf_counter(), time.process_time()
        search(engine)
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


if __name__ == "__main__":
    main()
