"""Whether every strategy works in spaces with conditional choices, and in those that are far too large to list.

    python benchmarks/wide_spaces.py [--trials 100] [--seeds 5] [--spaces blocks convnet mixed] [--strategies …]

Three spaces, through engine and journal, with made-up accuracies and costs (`made_up.py`):

- `blocks`: a depth of 1 to 4; each block within it has a kind and a kernel, and where it expands an expansion: 11,110
  architectures among 331,776 combinations of labels;
- `convnet`: this project's own, three stages 1 to 4 blocks deep, an activation a block;
- `mixed`: numbers, names and truth values, conditions upon conditions, more than 10^12.

Told for each strategy, over the seeds: trials; networks among them that differ, by a description that doesn't come
from the choices' conditions; how often it asked for a known one; when the first trial ended; milliseconds a trial; by
how much the process's peak memory grew; hypervolume over random's after as many trials, paired, with a 95 % interval.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from common import at_least_one, heading, summary, table
from made_up import SPACES, MadeUp, Space

from pipeline.bench.summary import mean_with_interval
from pipeline.config.file import parse_config
from pipeline.engines.direct import DirectEngine
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.tables import STRATEGIES
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.objectives import hypervolume
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config.run import RunConfig
    from pipeline.nni_types import ExecutableModelSpace
    from pipeline.trials.journal import TrialRecord

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
    """Each strategy on each space."""
    arguments = _arguments()
    heading(__doc__)
    for name in arguments.spaces:
        space = SPACES[name]()
        print(f"{name}: {space.size():.3g} architectures, {len(space.choices)} choices", flush=True)
        rows, volumes = [], {}
        for strategy in dict.fromkeys(["random", *arguments.strategies]):  # what the others are compared with
            runs = [_in_a_fork(name, strategy, seed, arguments.trials) for seed in range(arguments.seeds)]
            volumes[strategy] = np.array([run.volume for run in runs])
            rows.append(_row(strategy, runs, volumes[strategy] / volumes["random"]))
            _summary(name, strategy, runs, arguments.trials)
        print()
        table(rows)
        print()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*STRATEGIES, _LEARNT]
    parser.add_argument("--trials", type=at_least_one, default=100, help="of each search (default: %(default)s)")
    parser.add_argument("--seeds", type=at_least_one, default=5, help="of each strategy (default: %(default)s)")
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--strategies", nargs="+", default=names, choices=names)
    return parser.parse_args()


def _in_a_fork(*search: Any) -> Found:
    """A process for each search, so that the peak of its memory is its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_search, search)


class _Watch(Reporter):
    """Notes when the first trial ended."""

    def __init__(self) -> None:
        self.first_s = 0.0

    def trial_ended(self, record: TrialRecord) -> None:
        self.first_s = self.first_s or time.perf_counter()


class _Listening(DirectEngine):
    """Counts what it is asked for."""

    asked = 0

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Count the models, then answer them as the engine does."""
        self.asked += len(models)
        super().submit_models(*models)


def _search(space_name: str, name: str, seed: int, trials: int) -> Found:
    space = SPACES[space_name]()
    truth = MadeUp(space)
    problem = Problem(space, seed, ("accuracy", truth.metrics[0]), {}, None if name == _LEARNT else truth)
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    config, watch = _config(name.partition(",")[0], seed, trials), _Watch()
    journal = Journal.in_memory()

    def judge(architecture: Any) -> TrialResult:
        return TrialResult("ok", truth.objectives(architecture))

    engine = _Listening(config, space, journal, Budget(config.budget, []), watch, judge)
    options: Any = config.strategy
    strategy = strategy_of(options, problem)
    strategy(SimplifiedModelSpace.from_model(space.model_space()), engine)
    seconds = time.perf_counter() - began
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    records = journal.trials()
    losses = np.array([[1 - r.objectives["accuracy"], r.objectives[truth.metrics[0]]] for r in records])
    return Found(
        len(records),
        _different(space, records),
        engine.asked - len(records),
        watch.first_s - began,
        seconds,
        grown,
        hypervolume(losses, truth.reference),
    )


def _different(space: Space, records: Sequence[TrialRecord]) -> int:
    """Number of different networks, compared by their layers."""
    for record in records:
        assert space.canonical(space.complete(record.architecture)) == record.architecture
    return len({space.network(record.architecture) for record in records})


def _config(name: str, seed: int, trials: int) -> RunConfig:
    sections = {"strategy": {"name": name}, "budget": {"trials": trials}, "seed": seed}
    config = parse_config(
        {"data": {"name": "digits"}, "space": {"name": "convnet"}, "objectives": ["accuracy", "macs"], **sections},
        "the benchmark's config",
    )
    strategy = config.strategy.resolved(trials=trials, pick=config.final.pick)
    return config.model_copy(update={"strategy": strategy})


def _summary(space: str, strategy: str, runs: Sequence[Found], trials: int) -> None:
    label = f"{space}, {strategy}"
    fewest, wasted = min(run.trials for run in runs), sum(run.trials - run.different for run in runs)
    summary(f"{label}: trials of a search", str(fewest), str(trials))
    summary(f"{label}: trials of a network that had one", str(wasted), "0")
    repeats = sum(run.repeats for run in runs)
    summary(f"{label}: known ones asked for", str(repeats), "free" if strategy in _REPEATING else "0")


def _row(strategy: str, runs: Sequence[Found], ratios: np.ndarray) -> dict[str, str]:
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
