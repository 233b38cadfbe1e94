"""Worth of zero-cost scores to `guided`, with a space's own features and with those of any space.

    python benchmarks/proxies_in_guided.py [--seeds 3] [--first 0] [--generic] [--small-pool] [--set KEY=VALUE …]

The searches are those of configs/bench-nasbench201-proxies.yaml, whose changes `--set` takes. `--generic` has the
space tell no features, as one that nobody has described; `--small-pool` lets the strategies look at no more candidates
than when each has to be built to be scored. Told are the means over the devices of the share of the hypervolume, with
95 % intervals over the seeds, and the seconds that the scores of all candidates took whoever published them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import REPOSITORY, at_least_one, heading, summary

from pipeline.bench.config import load_bench
from pipeline.bench.curves import value_at
from pipeline.bench.run import Task, Workbench
from pipeline.bench.summary import mean_with_interval
from pipeline.evaluators.published_scores import SelectedScores
from pipeline.spaces.nasbench201 import NasBench201Space

_CONFIG = REPOSITORY / "configs" / "bench-nasbench201-proxies.yaml"


def main() -> None:
    """Search with each strategy, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=_CONFIG)
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--generic", action="store_true")
    parser.add_argument("--small-pool", action="store_true")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    heading(__doc__)
    if arguments.generic:
        NasBench201Space.features = lambda self, architectures: None  # type: ignore[assignment,method-assign]
    if arguments.small_pool:
        SelectedScores.expensive = True
    bench = Workbench(load_bench(arguments.config, arguments.changes), str(arguments.config))
    bench.check()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for number, label in enumerate(bench.config.labels()):
        _tell(bench, number, label, seeds)


def _tell(bench: Workbench, number: int, label: str, seeds: range) -> None:
    config = bench.config
    found = [[bench.run(Task(number, device, seed)) for device in config.columns()] for seed in seeds]
    shares = [[[value_at(each.hypervolume, n) for n in config.report_at] for each in row] for row in found]
    told = mean_with_interval(np.array(shares).mean(axis=1)).T
    for trials, (mean, low, high) in zip(config.report_at, told.tolist(), strict=True):
        summary(
            f"{label} after {trials}", f"{mean:.4f} (95 % {low:.4f} to {high:.4f})", "more with scores than without"
        )
    seconds = [each.proxy_seconds for row in found for each in row if each.proxy_seconds is not None]
    if seconds:
        print(f"  scores of all candidates: {np.mean(seconds):,.0f} s a search", flush=True)


if __name__ == "__main__":
    main()
