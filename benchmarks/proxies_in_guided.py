"""Worth of zero-cost scores to `guided`, with a space's own features and with those of any space.

The searches are those of configs/bench-nasbench201-proxies.yaml, whose changes `--set` takes. `--generic` has the
space tell no features, as one that nobody has described; `--small-pool` lets the strategies look at no more candidates
than when each has to be built to be scored. Told are the means over the devices of the share of the hypervolume, with
95 % intervals over the seeds, and the seconds that the scores of all candidates took whoever published them.
"""

import numpy as np
from common import REPOSITORY, interval, summary
from options import begin, changes, flag, option, positive

from pipeline.bench.config import load_bench
from pipeline.bench.run import Task, Workbench
from pipeline.bench.summary import Summary
from pipeline.evaluators.published_scores import SelectedScores
from pipeline.spaces.nasbench201 import NasBench201Space

_CONFIG = REPOSITORY / "configs" / "bench-nasbench201-proxies.yaml"


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--seeds", 3),
        option("--first", 0, "the first seed", type=int),
        flag("--generic", "the space tells no features"),
        flag("--small-pool", "the strategies look at few candidates"),
        changes(),
    )
    if arguments.generic:
        NasBench201Space.features = lambda self, architectures: None  # type: ignore[assignment,method-assign]
    if arguments.small_pool:
        SelectedScores.expensive = True
    bench = Workbench(load_bench(_CONFIG, arguments.changes), str(_CONFIG))
    bench.check()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for number, label in enumerate(bench.config.labels()):
        tasks = [Task(number, device, seed) for seed in seeds for device in bench.config.columns()]
        figures = Summary(bench.config, {task: bench.run(task) for task in tasks})
        for trials in bench.config.report_at:
            told = figures.curve(number, figures.devices[0], "hypervolume", np.array([trials]))[:, 0]
            summary(f"{label} after {trials}", interval(*told, form=".4f"), "more with scores than without")
        seconds = [row["proxy_seconds"] for row in figures.results() if "proxy_seconds" in row]
        if seconds:
            print(f"  scores of all candidates: {np.mean(seconds):,.0f} s a search", flush=True)


if __name__ == "__main__":
    main()
