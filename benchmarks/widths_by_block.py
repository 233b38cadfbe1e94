"""Widths in eights against widths by the device's own block of channels: two searches of so many trials each, compared.

For each of `--seeds` both searches run on a part of Fashion-MNIST ($HWNAS_SHARED), alike but for `space.width_step`,
with the same number of trials; the block is timed once, first. The fronts of both are then measured again, all in one
rotation, and compared by their hypervolume: of 1 - accuracy, from `--worst-error` down, and the latency, from `--limit`
down, as a share of that rectangle, which is the same for all. Accuracies are those of the searches, of a short training
each, in which chance has a part: the interval over the seeds says how much.
"""

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, interval, summary, table
from options import Options, amount, begin, option, positive

from latency_models.timing.meter import LatencyMeter
from pipeline.bench.summary import mean_with_interval
from pipeline.config.device import device_of
from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.costs.target import Target
from pipeline.costs.width_step import asks_device, own_step, with_any_step
from pipeline.run import RunDirectory
from pipeline.search import load_inputs, run_search
from pipeline.spaces.base import Architecture
from pipeline.spaces.make import make_space
from pipeline.thread_settings import with_calm_threads
from pipeline.trials.objectives import hypervolume
from pipeline.trials.reporter import Reporter
from pipeline.winner.pick import front_of

EIGHTS, BLOCK = "eights", "block"
STEPS: dict[str, Any] = {EIGHTS: 8, BLOCK: "device"}
SECONDS_EACH = 1.0
"""For each network of the fronts, when they are measured again."""


@dataclass(frozen=True)
class Front:
    """The front of one search: its architectures, their accuracies; seconds and trained trials of the search."""

    architectures: list[Architecture]
    accuracies: list[float]
    seconds: float
    trials: int


class Said(Reporter):
    """Prints what is noted."""

    def note(self, text: str) -> None:
        """Print a line."""
        print(f"  {text}", flush=True)


def main() -> None:
    options = begin(
        __doc__,
        positive("--trials", 30, "of each search"),
        positive("--seeds", 3, "pairs of searches"),
        positive("--samples", 2000, "training images"),
        positive("--epochs", 1, "of each candidate"),
        positive("--width", 16, "of the space"),
        amount("--limit", 0.8, "of the latency in ms, and the reference of the hypervolume"),
        amount("--worst-error", 0.6, "the reference of the hypervolume"),
        option("--strategy", "guided", "of the searches"),
    )
    configs = stepped(options)
    rows = []
    for seed in range(options.seeds):
        # Whichever is first meets another machine than the second: they take turns.
        order = [EIGHTS, BLOCK] if seed % 2 == 0 else [BLOCK, EIGHTS]
        fronts = {kind: searched(configs[kind], seed) for kind in order}
        rows.append(compared(configs, fronts, seed, options))
    show(rows)


def stepped(options: Options) -> dict[str, RunConfig]:
    """The two configs, with the block as a number."""
    configs = {}
    for kind, step in STEPS.items():
        config = config_of(step, options)
        data, _ = load_inputs(with_any_step(config), "the benchmark's config")
        configs[kind] = own_step(config, data, Said()).config if asks_device(config) else config
        widths = make_space(configs[kind], data).widths
        print(f"widths in {kind}: {', '.join(map(str, widths))}", flush=True)
    if configs[EIGHTS].space == configs[BLOCK].space:
        raise SystemExit("the device's block is 8, or not clear: both searches would be the same")
    return configs


def config_of(step: Any, options: Options) -> RunConfig:
    sizes = {"train_samples": options.samples, "validation_samples": 2000}
    return parse_config(
        {
            "name": "widths",
            "data": {"name": "fashion_mnist", "root": str(SHARED / "data"), **sizes},
            "space": {
                "name": "convnet",
                "width": options.width,
                "width_step": step,
                "activations": ["relu", "hardswish"],
                "activation_scope": "network",
                "depths": [1, 2],
            },
            "strategy": {"name": options.strategy},
            "evaluator": {"name": "train", "epochs": options.epochs},
            "train": {"learning_rate": 0.004, "batch_size": 32},
            "cost_model": "measure",
            "objectives": ["accuracy", "latency_ms"],
            "constraints": {"latency_ms": options.limit},
            "budget": {"trials": options.trials, "minutes": 60},
        },
        "the benchmark's config",
    )


@with_calm_threads
def searched(config: RunConfig, seed: int) -> Front:
    """Search; no winner is trained to the end."""
    config = config.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", config)
        data, space = load_inputs(run.config, "the benchmark's config")
        start = time.monotonic()
        with closing(run.open_journal()) as journal:
            run_search(run, journal, data, space, Reporter())
            records = journal.trials()
        if failed := [record.error for record in records if record.status == "failed"]:
            raise SystemExit(f"{len(failed)} trials of seed {seed} failed: {failed[0]}")
        seconds = time.monotonic() - start
        front = front_of(records, config.objectives)
    accuracies = [record.objectives["accuracy"] for record in front]
    trained = sum(record.status == "ok" for record in records)
    return Front([record.architecture for record in front], accuracies, seconds, trained)


def compared(configs: dict[str, RunConfig], fronts: dict[str, Front], seed: int, options: Options) -> dict[str, Any]:
    """Measure both fronts again, in one rotation; print the figures of the pair."""
    graphs, owners = [], []
    with LatencyMeter(device_of(configs[EIGHTS].device)) as meter:
        for kind, front in fronts.items():
            data, space = load_inputs(configs[kind], "the benchmark's config")
            target = Target.of(space, meter)
            graphs += [target.graph_of(space.build(each), data.input_shape).content for each in front.architectures]
            owners += [kind] * len(front.architectures)
        if not graphs:
            raise SystemExit(f"seed {seed}: neither search has a front; see --limit")
        joint = meter.measure_together(graphs, budget_s=SECONDS_EACH * len(graphs))
    latencies = np.array([each.latency_ms for each in joint.latencies])
    row: dict[str, Any] = {"seed": seed}
    for kind, front in fronts.items():
        own = latencies[[owner == kind for owner in owners]]
        losses = np.column_stack([(1.0 - np.array(front.accuracies)) / options.worst_error, own / options.limit])
        row[kind] = hypervolume(losses, np.ones(2))
        row[f"{kind}_s"] = front.seconds
        print(
            f"seed {seed}, {kind}: {front.trials} trials in {front.seconds:.0f} s; front (ms: accuracy)"
            f" {', '.join(f'{ms:.3f}: {a:.3f}' for ms, a in sorted(zip(own, front.accuracies, strict=True)))}",
            flush=True,
        )
    print(f"seed {seed}: hypervolume by the block {row[BLOCK]:.4f}, in eights {row[EIGHTS]:.4f}\n", flush=True)
    return row


def show(rows: list[dict[str, Any]]) -> None:
    table(
        {
            "seed": str(row["seed"]),
            "hypervolume, eights": f"{row[EIGHTS]:.4f}",
            "by the block": f"{row[BLOCK]:.4f}",
            "difference": f"{row[BLOCK] - row[EIGHTS]:+.4f}",
            "seconds, eights": f"{row[f'{EIGHTS}_s']:.0f}",
            "seconds, block": f"{row[f'{BLOCK}_s']:.0f}",
        }
        for row in rows
    )
    mean, low, high = mean_with_interval(np.array([row[BLOCK] - row[EIGHTS] for row in rows]))
    words = f"{mean:+.4f}" if np.isnan(low) else interval(mean, low, high, "+.4f")
    summary("hypervolume by the block minus in eights, paired", words, "told, whichever wins")


if __name__ == "__main__":
    main()
