"""Share of a config's search space that its limits exclude.

Random candidates are built and their static costs counted, and with `--latency` measured as a search would. For
each limit: the share of candidates that break it. For each metric: its percentiles over the space, which tell
where a sensible limit lies.

    python benchmarks/random_infeasible.py configs/digits-cpu.yaml [--latency] [--set constraints.macs=2000000]

The config's data has to be there, or `--input 3x32x32` and `--classes 10` given in its place.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import at_least_one, distinct_architectures, heading, percentile, seeded, summary, table

from export.exporter.graph_builder import quick_graph
from latency_models.devices.resolve import resolve_device
from latency_models.graph.static_costs import static_costs
from latency_models.timing.meter import LatencyMeter
from pipeline.config.file import load_config
from pipeline.costs.latency_source import SEARCH_MEASURE_S
from pipeline.costs.metrics import counted
from pipeline.data import load_data
from pipeline.registry import load
from pipeline.tables import SPACES
from pipeline.trials.objectives import excess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.run import RunConfig

_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_COUNT, _COUNT_TIMED = 200, 100


def main() -> None:
    """Draw candidates, cost them, print shares and percentiles."""
    arguments = _arguments()
    heading(__doc__)
    config = load_config(arguments.config, arguments.overrides)
    shape, classes = _images(config, arguments)
    space = load("space", config.space.name, SPACES)(config.space, shape, classes)
    count = arguments.candidates or (_COUNT_TIMED if arguments.latency else _COUNT)
    drawn = distinct_architectures(space, random.Random(arguments.seed), count)
    if len(drawn) < count:
        print(f"the space gave no more than {len(drawn)} different candidates")
    began = time.perf_counter()
    costs = _costs(config, space, shape, drawn, timed=arguments.latency)
    seconds = time.perf_counter() - began
    print(f"{len(costs)} random candidates of {arguments.config} at {'×'.join(map(str, shape))} in {seconds:.1f} s\n")
    _print_percentiles(costs)
    _print_shares(costs, config.limits)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument("--latency", action="store_true", help="measure the latency as well")
    parser.add_argument("--candidates", type=at_least_one, help=f"(default: {_COUNT}, with --latency {_COUNT_TIMED})")
    parser.add_argument("--input", type=_shape, help="channels x height x width, in place of the data's")
    parser.add_argument("--classes", type=at_least_one, default=10, help="with --input (default: %(default)s)")
    seeded(parser)
    return parser.parse_args()


def _shape(text: str) -> tuple[int, int, int]:
    channels, height, width = (at_least_one(part) for part in text.split("x"))
    return channels, height, width


def _images(config: RunConfig, arguments: argparse.Namespace) -> tuple[tuple[int, int, int], int]:
    if arguments.input:
        return arguments.input, arguments.classes
    data = load_data(config.data)
    return data.input_shape, len(data.classes)


def _costs(
    config: RunConfig, space: Any, shape: tuple[int, int, int], drawn: Sequence[Mapping[str, Any]], *, timed: bool
) -> list[dict[str, float]]:
    device = config.device
    meter = LatencyMeter(resolve_device(device.name, device.threads, device.batch_size, device.precision))
    found = []
    for architecture in drawn:
        graph, _ = quick_graph(space.build(architecture), shape)
        content = graph.SerializeToString()
        costs = counted(static_costs(content, device))
        if timed:
            costs["latency_ms"] = meter.measure(content, budget_s=SEARCH_MEASURE_S).latency_ms
        found.append(costs)
    return found


def _print_percentiles(costs: Sequence[Mapping[str, float]]) -> None:
    rows = []
    for metric in costs[0]:
        values = [row[metric] for row in costs]
        rows.append(
            {"metric": metric, **{f"p{share:.0%}"[:-1]: _short(percentile(values, share)) for share in _SHARES}}
        )
    table(rows)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"


def _print_shares(costs: Sequence[Mapping[str, float]], limits: Mapping[str, float]) -> None:
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
