"""Time of a candidate besides its training: from the architecture to all its costs.

Random architectures of `convnet` at 32×32×3 with 0.45 to 0.8 million parameters go the way of a trial: build, quick
graph, serialise, static costs, latency measurement. Each is judged twice, with one torch thread and with torch's
default, in turn first and second. Times are by the wall; processor time stands beside, because on a busy machine
the two differ. A candidate that needs a reference model that was not timed before pays for its calibration;
such candidates are listed on their own.
"""

import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import spread, summary, table
from networks import convnet, parameters, random_architecture
from options import SEED, begin, positive

from export.exporter.graph_builder import quick_graph
from latency_models.counted_costs import static_costs
from latency_models.devices.resolve import resolve_device
from latency_models.timing.meter import LatencyMeter
from pipeline.costs.latency_source import SEARCH_MEASURE_S
from pipeline.costs.metrics import counted
from pipeline.trials.objectives import excess

_GOAL_MS = 150.0
_SHAPE = (3, 32, 32)
_LEAST_PARAMETERS, _MOST_PARAMETERS = 450_000, 800_000
_STAGES = ("build", "graph", "serialise", "static costs", "session + timing")


@dataclass(frozen=True)
class Judged:
    """One candidate: stage → milliseconds by the wall and of processor time."""

    wall_ms: list[float]
    processor_ms: list[float]
    built_by: str
    latency_ms: float
    calibrated: bool

    @property
    def total_ms(self) -> float:
        """Milliseconds of all stages, by the wall."""
        return sum(self.wall_ms)


def main() -> None:
    arguments = begin(__doc__, positive("--candidates", 30), SEED)
    space = convnet(_SHAPE)
    chosen = _of_size(space, random.Random(arguments.seed), arguments.candidates)
    default_threads = torch.get_num_threads()
    settings = {"1 torch thread": 1, f"default ({default_threads} torch threads)": default_threads}
    judged: dict[str, list[Judged]] = {name: [] for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "references.json"
        meter = LatencyMeter(resolve_device("cpu"), store=store)
        first = _judge(space, chosen[0], meter, store)
        again = _judge(space, chosen[0], meter, store)
        for number, architecture in enumerate(chosen):
            names = list(settings) if number % 2 == 0 else list(settings)[::-1]
            for name in names:
                torch.set_num_threads(settings[name])
                judged[name].append(_judge(space, architecture, meter, store))
    _print_first(first, again)
    for name, rows in judged.items():
        _print_setting(name, rows)


def _of_size(space: Any, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Architectures with a number of parameters in the range."""
    chosen: list[dict[str, Any]] = []
    sizes = []
    looked_at = 0
    while len(chosen) < count:
        looked_at += 1
        architecture = random_architecture(space, rng)
        size = parameters(space.build(architecture))
        if _LEAST_PARAMETERS <= size <= _MOST_PARAMETERS:
            chosen.append(architecture)
            sizes.append(size)
    print(
        f"{count} of {looked_at} random architectures have {_LEAST_PARAMETERS / 1e6} to {_MOST_PARAMETERS / 1e6} M"
        f" parameters; their median has {statistics.median(sizes) / 1e6:.2f} M"
    )
    return chosen


def _judge(space: Any, architecture: dict[str, Any], meter: LatencyMeter, store: Path) -> Judged:
    """The stages of `TrialRunner.run` up to the training, each with its time."""
    known = store.stat().st_size if store.exists() else 0
    clock = [(time.perf_counter(), time.process_time())]

    def lap() -> None:
        clock.append((time.perf_counter(), time.process_time()))

    model = space.build(architecture)
    lap()
    graph, built_by = quick_graph(model, _SHAPE)
    lap()
    content = graph.SerializeToString()
    lap()
    excess(counted(static_costs(content, meter.device)), {})
    lap()
    latency = meter.measure(content, budget_s=SEARCH_MEASURE_S)
    lap()
    wall, processor = (1e3 * np.diff(column) for column in zip(*clock, strict=True))
    return Judged(wall.tolist(), processor.tolist(), built_by, latency.latency_ms, store.stat().st_size != known)


def _print_first(first: Judged, again: Judged) -> None:
    print(
        f"first candidate of a machine: {first.total_ms:.0f} ms, the same one again: {again.total_ms:.0f} ms;"
        f" {first.total_ms - again.total_ms:.0f} ms more for the reference's calibration and first-use set-up"
    )
    for name, one, two in zip(_STAGES, first.wall_ms, again.wall_ms, strict=True):
        print(f"  {name}: {one:.1f} ms, again {two:.1f} ms")


def _print_setting(name: str, rows: list[Judged]) -> None:
    settled = [row for row in rows if not row.calibrated]
    calibrated = [row.total_ms for row in rows if row.calibrated]
    built = sum(row.built_by == "builder" for row in rows)
    latencies = [row.latency_ms for row in rows]
    print(f"\n{name}: {len(rows)} candidates, latency {min(latencies):.3f} to {max(latencies):.3f} ms")
    print(f"{built} of {len(rows)} graphs by the quick builder")
    if calibrated:
        print(f"left out: {len(calibrated)} with a reference's calibration, {max(calibrated):.0f} ms at most")
    table([_stage_row(stage, index, settled) for index, stage in enumerate(_STAGES)])
    totals = [row.total_ms for row in settled]
    processor = [sum(row.processor_ms) for row in settled]
    for clock, values in (("wall", totals), ("processor", processor)):
        within = sum(value <= _GOAL_MS for value in values)
        summary(
            f"cost of a candidate, {name}, {clock} time",
            f"{spread(values, 0)} ms, {within} of {len(values)} within the goal",
            f"median at most {_GOAL_MS:.0f} ms",
        )


def _stage_row(stage: str, index: int, rows: list[Judged]) -> dict[str, str]:
    wall = [row.wall_ms[index] for row in rows]
    processor = [row.processor_ms[index] for row in rows]
    return {
        "stage": stage,
        "median ms": f"{statistics.median(wall):.2f}",
        "min ms": f"{min(wall):.2f}",
        "max ms": f"{max(wall):.2f}",
        "median processor ms": f"{statistics.median(processor):.2f}",
    }


if __name__ == "__main__":
    main()
