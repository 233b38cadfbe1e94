"""Latencies measured during a parallel search, against the same networks measured alone afterwards.

A search on Fashion-MNIST trains candidates side by side and measures each; it is ended when enough of them have a
latency. Then the same files are measured in several rounds with nothing beside them, by the same reference models, in
another order each round, so that a drift of the machine is seen and isn't taken for a bias. A network's latency alone
is the median of its rounds. Beside the search's intervals, those of the rounds are held against the other rounds'
median: so many of them hold the truth at best. Run it on an idle machine; `--engine inline` is the check that the
search itself is no reason.
"""

import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from common import HWNAS, REPOSITORY, SHARED, interval, summary, table
from journal_files import Row, journal_rows
from options import SEED, Options, begin, option, positive

from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.config.file import parse_config
from pipeline.costs.latency_source import SEARCH_MEASURE_S
from pipeline.costs.target import Target
from pipeline.data import load_data
from pipeline.spaces.base import trial_seed
from pipeline.spaces.make import make_space

_LOOK_EVERY_S = 0.5
_LIMIT_S = 1200.0
_RESAMPLES = 2000
_ENGINES: dict[str, dict[str, Any]] = {
    "auto": {"name": "auto"},
    "processes": {"name": "processes", "workers": 2},
    "inline": {"name": "inline"},
}


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 40, "candidates"),
        positive("--rounds", 9, "of measurements alone"),
        option("--engine", "processes", choices=list(_ENGINES)),
        positive("--images", 1500, "training images"),
        SEED,
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_DATA_HOME"] = str(folder / "data")  # one set of references' times, made by the search
        config = _config(arguments)
        began = time.monotonic()
        rows = _searched(folder, config, arguments.trials)
        print(f"search: {time.monotonic() - began:.0f} s, {len(rows)} measured candidates", flush=True)
        alone = _alone(config, rows, arguments)
    _tell(rows, alone)


def _config(arguments: Options) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / "fashion-mnist-cpu.yaml").read_text())
    config["data"] |= {"root": str(SHARED / "data"), "train_samples": arguments.images, "validation_samples": 500}
    config["space"]["width"] = 8
    return config | {
        "seed": arguments.seed,
        "strategy": {"name": "random"},
        "engine": _ENGINES[arguments.engine],
        "cost_model": "measure",
        "constraints": {},
        "budget": {"trials": 2 * arguments.trials, "minutes": 60},
    }


def _searched(folder: Path, config: dict[str, Any], trials: int) -> list[Row]:
    """The first trials of a search with a measured latency; the search is ended then."""
    (folder / "search.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "said").open("wb") as said:
        command = [str(HWNAS), "search", "search.yaml", "--run-dir", "run"]
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
    began = time.monotonic()
    try:
        while len(rows := _measured(journal_rows(folder / "run" / "journal.sqlite"))) < trials:
            if process.poll() is not None or time.monotonic() - began > _LIMIT_S:
                raise SystemExit((folder / "said").read_text(encoding="utf-8", errors="replace")[-2000:])
            time.sleep(_LOOK_EVERY_S)
    finally:
        process.kill()  # its own processes end with it
        process.wait()
        time.sleep(2.0)
    return rows[:trials]


def _measured(rows: list[Row]) -> list[Row]:
    columns = ("details", "objectives")
    parsed = [{**row, **{name: json.loads(row[name]) for name in columns}} for row in rows]
    return [row for row in parsed if row["details"].get("latency", {}).get("source") == "measured"]


def _alone(config: dict[str, Any], rows: list[Row], arguments: Options) -> list[list[Any]]:
    """Latencies of each candidate, one a round."""
    parsed = parse_config(config, "the benchmark's config")
    data = load_data(parsed.data)
    space = make_space(parsed, data)
    found: list[list[Any]] = [[] for _ in rows]
    with LatencyMeter(device_of(parsed.device)) as meter:
        target = Target.of(space, meter)
        files = []
        for row in rows:
            torch.manual_seed(trial_seed(parsed.seed, row["id"]))
            network = space.build(json.loads(row["architecture"]))
            files.append(target.graph_of(network, data.input_shape).content)
        rng = random.Random(arguments.seed)
        for number in range(arguments.rounds):
            began = time.monotonic()
            for at in rng.sample(range(len(files)), len(files)):
                found[at].append(meter.measure(files[at], budget_s=SEARCH_MEASURE_S))
            print(f"round {number + 1}: {time.monotonic() - began:.0f} s", flush=True)
    return found


def _tell(rows: list[Row], alone: list[list[Any]]) -> None:
    searched = np.array([row["objectives"]["latency_ms"] for row in rows])
    low, high = (np.array([row["details"]["latency"][name] for row in rows]) for name in ("low_ms", "high_ms"))
    rounds = np.array([[each.latency_ms for each in of_one] for of_one in alone])  # (networks, rounds)
    truth = np.median(rounds, axis=1)
    beside = sum("beside a training" in text for row in rows for text in row["details"]["latency"]["warnings"])
    table(
        {
            "round": f"{number + 1}",
            "over the median": f"{np.median(rounds[:, number] / truth):.4f}",
            "spread": f"{np.std(np.log(rounds[:, number] / truth)):.4f}",
        }
        for number in range(rounds.shape[1])
    )
    print(f"\nlatencies from {truth.min():.3f} to {truth.max():.3f} ms, median {np.median(truth):.3f}")
    print(f"half-width of the search's intervals: median {np.median((high - low) / 2 / searched):.2%}")
    print(f"measured beside a training, with a warning: {beside} of {len(rows)}")
    ratios = searched / truth
    rng = np.random.default_rng(0)
    draws = [float(np.median(rng.choice(ratios, len(ratios)))) for _ in range(_RESAMPLES)]
    shown = interval(float(np.median(ratios)) - 1, *(float(np.percentile(draws, p)) - 1 for p in (2.5, 97.5)), "+.2%")
    summary("bias of the search's latencies", shown, "within 1 %")
    summary("their spread, 1 sd", f"{np.std(np.log(ratios)):.2%}", "none")
    held = np.mean((low <= truth) & (truth <= high))
    summary("intervals that hold the latency alone", f"{held:.0%} of {len(rows)}", "90 to 99 %")
    by_rounds = [
        each.low_ms <= statistics.median(other.latency_ms for other in of_one if other is not each) <= each.high_ms
        for of_one in alone
        if len(of_one) > 1
        for each in of_one
    ]
    if by_rounds:
        summary("of the measurements alone", f"{np.mean(by_rounds):.0%} of {len(by_rounds)}", "as many")


if __name__ == "__main__":
    main()
