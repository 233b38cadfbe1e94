"""Whether every strategy works in spaces with conditional choices, and in those that are far too large to list.

Three spaces, through engine and journal, with made-up accuracies and costs (`made_up.py`):

- `blocks`: a depth of 1 to 4; each block within it has a kind and a kernel, and where it expands an expansion: 11,110
  architectures among 331,776 combinations of labels;
- `convnet`: this project's own, three stages 1 to 4 blocks deep, an activation a block;
- `mixed`: numbers, names and truth values, conditions upon conditions, more than 10^12.

Told for each strategy, over the seeds: trials; networks among them that differ, by a description that doesn't come
from the choices' conditions; how often it asked for a known one; when the first trial ended; milliseconds a trial; by
how much the process's peak memory grew; hypervolume over random's after as many trials, paired, with a 95 % interval.
"""

import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import summary, table
from made_up import SPACES, MadeUp
from options import begin, positive, some_of
from searches import ListeningEngine, config_of, direct_engine, in_a_fork, strategy_on

from pipeline.bench.summary import mean_with_interval
from pipeline.tables import STRATEGIES
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.objectives import hypervolume
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

_LEARNT = "guided, cost learnt"
_REPEATING = ("random", "evolution")
"""Strategies of NNI's that ask for known architectures, which are answered without a trial."""


@dataclass(frozen=True)
class Found:
    """Figures of one search."""

    trials: int
    different: int
    repeats: int
    first_s: float
    seconds: float
    grown_bytes: int
    volume: float


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 100, "of each search"),
        positive("--seeds", 5, "of each strategy"),
        some_of("--spaces", SPACES),
        some_of("--strategies", [*STRATEGIES, _LEARNT]),
    )
    for name in arguments.spaces:
        space = SPACES[name]()
        print(f"{name}: {space.size():.3g} architectures, {len(space.choices)} choices", flush=True)
        rows, volumes = [], {}
        for strategy in dict.fromkeys(["random", *arguments.strategies]):  # what the others are compared with
            runs = [in_a_fork(_search, name, strategy, seed, arguments.trials) for seed in range(arguments.seeds)]
            volumes[strategy] = np.array([run.volume for run in runs])
            rows.append(_row(strategy, runs, volumes[strategy] / volumes["random"]))
            _summary(name, strategy, runs, arguments.trials)
        print()
        table(rows)
        print()


class _Watch(Reporter):
    """Notes when the first trial ended."""

    def __init__(self) -> None:
        self.first_s = 0.0

    def trial_ended(self, record: TrialRecord) -> None:
        self.first_s = self.first_s or time.perf_counter()


def _search(space_name: str, name: str, seed: int, trials: int) -> Found:
    space = SPACES[space_name]()
    truth = MadeUp(space)
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    sections: Any = {"strategy": {"name": name.partition(",")[0]}, "space": {"name": "convnet"}, "seed": seed}
    config, watch, journal = (
        config_of(trials, objectives=["accuracy", "macs"], **sections),
        _Watch(),
        Journal.in_memory(),
    )

    def judge(architecture: Any) -> TrialResult:
        return TrialResult("ok", truth.objectives(architecture))

    engine: Any = direct_engine(config, space, journal, judge, reporter=watch, kind=ListeningEngine)
    strategy_on(config, space, None if name == _LEARNT else truth)(engine)
    seconds = time.perf_counter() - began
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    records = journal.trials()
    losses = np.array([[1 - r.objectives["accuracy"], r.objectives[truth.metrics[0]]] for r in records])
    return Found(
        len(records),
        _different(space, records),
        len(engine.asked) - len(records),
        watch.first_s - began,
        seconds,
        grown,
        hypervolume(losses, truth.reference),
    )


def _different(space: Any, records: list[TrialRecord]) -> int:
    """Number of different networks, compared by their layers."""
    for record in records:
        assert space.canonical(space.complete(record.architecture)) == record.architecture
    return len({space.network(record.architecture) for record in records})


def _summary(space: str, strategy: str, runs: list[Found], trials: int) -> None:
    label = f"{space}, {strategy}"
    fewest, wasted = min(run.trials for run in runs), sum(run.trials - run.different for run in runs)
    summary(f"{label}: trials of a search", str(fewest), str(trials))
    summary(f"{label}: trials of a network that had one", str(wasted), "0")
    repeats = sum(run.repeats for run in runs)
    summary(f"{label}: known ones asked for", str(repeats), "free" if strategy in _REPEATING else "0")


def _row(strategy: str, runs: list[Found], ratios: np.ndarray) -> dict[str, str]:
    mean, _, high = mean_with_interval(ratios)
    return {
        "strategy": strategy,
        "trials": str(sum(run.trials for run in runs)),
        "different": str(sum(run.different for run in runs)),
        "repeats": str(sum(run.repeats for run in runs)),
        "first after, s": f"{max(run.first_s for run in runs):.2f}",
        "ms per trial": f"{1e3 * np.mean([run.seconds / max(1, run.trials) for run in runs]):.1f}",
        "peak grew by": f"{max(run.grown_bytes for run in runs) / 1e6:.0f} MB",
        "volume over random's": f"{mean:.3f}" if np.isnan(high) else f"{mean:.3f} ± {high - mean:.3f}",
    }


if __name__ == "__main__":
    main()
