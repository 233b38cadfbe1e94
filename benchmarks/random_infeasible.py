"""Share of a config's search space that its limits exclude.

Random candidates are built and their static costs counted, and with `--latency` measured as a search would. For
each limit: the share of candidates that break it. For each metric: its percentiles over the space, which tell
where a sensible limit lies.
"""

import random
import time
from typing import Any

import numpy as np
from common import summary, table
from networks import distinct_architectures
from options import SEED, begin, changes, file_path, flag, positive

from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.config.file import load_config
from pipeline.costs.latency_source import SEARCH_MEASURE_S
from pipeline.costs.target import Target
from pipeline.search import load_inputs
from pipeline.trials.objectives import excess

_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_COUNT, _COUNT_TIMED = 200, 100


def main() -> None:
    arguments = begin(
        __doc__,
        file_path("config"),
        changes(),
        flag("--latency", "measure the latency as well"),
        positive("--candidates", text=f"(default: {_COUNT}, with --latency {_COUNT_TIMED})"),
        SEED,
    )
    config = load_config(arguments.config, arguments.changes)
    data, space = load_inputs(config, str(arguments.config))
    wanted = arguments.candidates or (_COUNT_TIMED if arguments.latency else _COUNT)
    drawn = distinct_architectures(space, random.Random(arguments.seed), wanted)
    if len(drawn) < wanted:
        print(f"the space gave no more than {len(drawn)} different candidates")
    began = time.perf_counter()
    target, shape = Target(LatencyMeter(device_of(config.device))), data.input_shape
    costs = _costs(target, space, shape, drawn, timed=arguments.latency)
    seconds = time.perf_counter() - began
    print(f"{len(costs)} random candidates of {arguments.config} at {'×'.join(map(str, shape))} in {seconds:.1f} s\n")
    _print_percentiles(costs)
    _print_shares(costs, config.limits)


def _costs(
    target: Target, space: Any, shape: tuple[int, int, int], drawn: list[dict[str, Any]], *, timed: bool
) -> list[dict[str, float]]:
    found = []
    for architecture in drawn:
        graph = target.graph_of(space.build(architecture), shape)
        costs = target.counted(graph)
        if timed:
            costs["latency_ms"] = target.meter.measure(graph.content, budget_s=SEARCH_MEASURE_S).latency_ms
        found.append(costs)
    return found


def _print_percentiles(costs: list[dict[str, float]]) -> None:
    rows = []
    for metric in costs[0]:
        values = np.quantile([row[metric] for row in costs], _SHARES)
        shown = {f"p{share:.0%}"[:-1]: _short(value) for share, value in zip(_SHARES, values, strict=True)}
        rows.append({"metric": metric, **shown})
    table(rows)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"


def _print_shares(costs: list[dict[str, float]], limits: dict[str, float]) -> None:
    print()
    checked = {name: limit for name, limit in limits.items() if name in costs[0]}
    for name in limits.keys() - checked.keys():
        print(f"{name}: limit {limits[name]:g} not looked at" + ("; use --latency" if name == "latency_ms" else ""))
    for name, limit in checked.items():
        broken = sum(row[name] > limit for row in costs)
        print(f"{name}: limit {limit:g} excludes {broken} of {len(costs)} ({broken / len(costs):.1%})")
    excluded = sum(bool(excess(row, checked)) for row in costs)
    summary("candidates that a limit excludes", f"{excluded} of {len(costs)} ({excluded / len(costs):.1%})", "none set")


if __name__ == "__main__":
    main()
