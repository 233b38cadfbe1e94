"""A search with the cost model against the same search that measures each candidate.

Fashion-MNIST, the space of configs/fashion-mnist-cpu.yaml, a short training. Printed for each way: candidates judged,
latencies that were measured, seconds spent on latencies, and the hypervolume of the front, whose members are all
measured. Seeds are repeated, because two searches that see slightly different numbers go different ways.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import REPOSITORY, SHARED, hwnas, summary
from options import Options, begin, positive, some_of

from pipeline.trials.objectives import as_losses, hypervolume, pareto_front

_WAYS = ("measure", "auto", "predict")
_LIMIT_MS = 0.68
_WORST_ERROR = 0.9  # by chance; a short training on few images knows little more


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 40, "of each search"),
        positive("--images", 1000, "training images"),
        some_of("--ways", _WAYS),
        positive("--seeds", 3),
    )
    found: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"XDG_DATA_HOME": folder}
        for way in arguments.ways:  # `auto` before there is a calibrated model: it learns from what it measures
            began = time.monotonic()
            for seed in range(arguments.seeds):
                run = Path(folder) / f"{way}-{seed}"
                _search(run, way, seed, arguments, environment)
                found[way].append(_figures(run, environment))
                print(way, seed, {k: round(v, 4) for k, v in found[way][-1].items()}, flush=True)
            print(f"{way}: {time.monotonic() - began:.0f} s in all", flush=True)
    for name in ("candidates", "latencies", "measured", "cost_s", "hypervolume"):
        shown = [f"{way} {np.mean([row[name] for row in rows]):.4g}" for way, rows in found.items()]
        print(f"{name:12s} {', '.join(shown)}")
    for way, rows in found.items():
        share = np.mean([row["measured"] / row["latencies"] for row in rows])
        summary(f"share of latencies that {way} measures", f"{share:.0%}", "fewer than measure's")
    volumes = {way: np.array([row["hypervolume"] for row in rows]) for way, rows in found.items()}
    for way in found:
        summary(
            f"hypervolume of {way}", f"{volumes[way].mean():.4f} ± {volumes[way].std():.4f}", "not less than measure's"
        )


def _search(run: Path, way: str, seed: int, arguments: Options, environment: dict[str, str]) -> None:
    settings = {
        "data.root": SHARED / "data",
        "data.train_samples": arguments.images,
        "data.validation_samples": 500,
        "space.width": 8,
        "train.batch_size": 32,
        "cost_model": way,
        "seed": seed,
        "budget.trials": arguments.trials,
        "final.epochs": 1,
        "constraints.latency_ms": _LIMIT_MS,
        "export.quantize": "never",
    }
    config = REPOSITORY / "configs" / "fashion-mnist-cpu.yaml"
    hwnas("search", config, "--run-dir", run, settings=settings, environment=environment)


def _figures(run: Path, environment: dict[str, str]) -> dict[str, float]:
    trials: list[dict[str, Any]] = json.loads(hwnas("trials", run, "--json", environment=environment).stdout)
    latencies = [trial["details"]["latency"] for trial in trials if "latency" in trial["details"]]
    names = ("accuracy", "latency_ms")
    losses = as_losses([trial["objectives"] for trial in trials if trial["status"] == "ok"], names)
    reference = np.array([-1.0 + _WORST_ERROR, _LIMIT_MS])
    front = losses[pareto_front(losses)]
    return {
        "candidates": float(len(trials)),
        "latencies": float(len(latencies)),
        "measured": float(sum(latency["source"] == "measured" for latency in latencies)),
        "cost_s": float(sum(latency["cost_s"] for latency in latencies)),
        "hypervolume": hypervolume(front, reference) / (_WORST_ERROR * _LIMIT_MS),
    }


if __name__ == "__main__":
    main()
