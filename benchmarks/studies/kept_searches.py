"""Searches that a benchmark keeps in a folder: begun, gone on with, and read again once they are finished.

Part of finished studies (`joint_search.py`, `precision_search.py`, `real_training.py`), not maintained.
"""

import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import HWNAS, REPOSITORY, SHARED
from options import Option, Options, begin, file_path, option, positive

from export.exporter.graph_builder import quick_graph
from latency_models.timing.meter import LatencyMeter, Ratio
from pipeline.commands.runs import load_run
from pipeline.run import RunDirectory
from pipeline.search import load_inputs
from pipeline.spaces.base import activations_of
from pipeline.trials.objectives import hypervolume

ACTIVATIONS = ("relu", "hardswish", "silu", "leaky_relu", "mish", "prelu", "gelu", "swish_beta")
_TAIL = 15


def study(doc: str | None, compare: Callable[[Path, Options], None], *more: Option, **defaults: int) -> None:
    """A study's `main`: compare searches in the folder that is to be kept, or in one that is deleted afterwards.

    Args:
        doc: the script's.
        compare: runs the searches in a folder as the options have it, and prints the figures.
        more: options of this study alone.
        defaults: of the options that all studies have, where they are others.
    """
    arguments = begin(
        doc,
        positive("--images", 10_000, "training images"),
        positive("--validation-images", 5000, "that accuracies are taken on"),
        positive("--seeds", 3, "how many"),
        option("--first-seed", 0, "the first of them", type=int),
        positive("--trials", 24, "of each search"),
        positive("--epochs", 1, "of a candidate"),
        positive("--width", 16, "`space.width`; 8 for smaller candidates"),
        positive("--final-epochs", 1, "of a search's winner"),
        option("--activations", list(ACTIVATIONS), "of the space", nargs="+"),
        option("--limit-ms", text="a limit of the latency; none by default", type=float),
        file_path("--keep", text="keep the runs in this folder, and go on with those that are there"),
        *more,
        **defaults,
    )
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments.keep or Path(temporary), arguments)


def seeds_of(arguments: Options) -> range:
    """The seeds that the options ask for."""
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


def config_of(arguments: Options, name: str, seed: int, activations: list[str]) -> dict[str, Any]:
    """configs/fashion-mnist-cpu.yaml with every latency measured and the budget that was asked for."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / "fashion-mnist-cpu.yaml").read_text())
    config |= {
        "name": name,
        "seed": seed,
        "cost_model": "measure",
        "constraints": {} if arguments.limit_ms is None else {"latency_ms": arguments.limit_ms},
        "budget": {"trials": arguments.trials, "minutes": 24.0 * 60.0},
        "final": {"pick": "knee", "epochs": arguments.final_epochs, "patience": max(3, arguments.final_epochs)},
        "export": {"quantize": "never"},
    }
    config["data"] |= {
        "root": str(SHARED / "data"),
        "train_samples": arguments.images,
        "validation_samples": arguments.validation_images,
    }
    config["space"] |= {"width": arguments.width, "activations": list(activations)}
    config["evaluator"]["epochs"] = arguments.epochs
    return config


def searched(folder: Path, config: dict[str, Any]) -> Path:
    """The run directory of a finished search, which is begun or gone on with where it has to be.

    Its config stands beside it, and so does what it said (`NAME.log`). Ends the program where the folder holds a
    search of that name with another config, or where the search fails.
    """
    name = str(config["name"])
    run, file = folder / name, folder / f"{name}.yaml"
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    if file.is_file() and file.read_text() != text:
        raise SystemExit(f"{file} is the config of another search than is asked for: use another --keep")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if (run / "bundle" / "manifest.json").is_file() and (run / "report.html").is_file():
        print(f"{name}: finished already", flush=True)
        return run
    going = (run / "config.yaml").is_file()
    command = ["resume", str(run)] if going else ["search", str(file), "--run-dir", str(run)]
    began = time.monotonic()
    _run(command, folder / f"{name}.log")
    print(f"{name}: {'gone on with' if going else 'searched'} in {time.monotonic() - began:.0f} s", flush=True)
    return run


def _run(command: list[str], log: Path) -> None:
    with log.open("a") as out:
        code = subprocess.run([str(HWNAS), *command], stdout=out, stderr=out, check=False).returncode
    if code != 0:
        tail = "\n".join(log.read_text().splitlines()[-_TAIL:])
        raise SystemExit(f"hwnas {' '.join(command)} ended with exit code {code}; {log} ends with:\n{tail}")


def trained(run: Path) -> list[dict[str, Any]]:
    """A run's trained and feasible trials, as `hwnas trials --json` gives them."""
    return [trial.as_dict() for trial in load_run(run).trials if trial.status == "ok"]


def seconds_per_trial(run: Path) -> float:
    """The mean, training and measuring together."""
    return float(np.mean([trial["seconds"] for trial in trained(run)]))


def quick_graphs(run: Path, trials: list[dict[str, Any]]) -> list[bytes]:
    """The files that the search timed: untrained weights, lowered as the final file is."""
    data, space = load_inputs(RunDirectory.open(run).config, str(run))
    graphs = [quick_graph(space.build(trial["architecture"]), data.input_shape)[0] for trial in trials]
    return [graph.SerializeToString() for graph in graphs]


def places(trial: dict[str, Any]) -> dict[str, str]:
    """Where → activation."""
    return activations_of(trial["architecture"])


def timed_together(meter: LatencyMeter, models: list[bytes], budget_s: float) -> tuple[list[float], list[Ratio]]:
    """Milliseconds of models that are timed in one rotation, and their ratios to the first one."""
    together = meter.measure_together(models, budget_s=budget_s)
    return [ratio.ratio * together.latencies[0].latency_ms for ratio in together.ratios], list(together.ratios)


def volume(errors: Any, latencies: Any, box: dict[str, float], *, log: bool = False) -> float:
    """The dominated share of a box (see `box_of`), 0 to 1; NaN for an empty box.

    Args:
        errors: of the candidates, 0 to 1.
        latencies: of the same candidates, ms.
        box: between the ideal point and the reference point.
        log: measure the latency's side of the box by its logarithm.
    """
    scale = math.log if log else float
    ends = [scale(box["latency_best_ms"]), scale(box["latency_worst_ms"])]
    rows = np.column_stack([errors, [scale(ms) for ms in latencies]]).reshape(-1, 2)
    whole = (box["error_worst"] - box["error_best"]) * (ends[1] - ends[0])
    return hypervolume(rows, np.array([box["error_worst"], ends[1]])) / whole if whole > 0 else math.nan


def box_of(errors: Any, latencies: Any, share: float = 0.9) -> dict[str, float]:
    """From the best of all candidates to a percentile of all: what hypervolumes are measured in."""
    return {
        "error_best": float(min(errors)),
        "error_worst": float(np.quantile(errors, share)),
        "latency_best_ms": float(min(latencies)),
        "latency_worst_ms": float(np.quantile(latencies, share)),
    }


def box_words(box: dict[str, float]) -> str:
    """The box in one phrase."""
    return (
        f"error {box['error_worst']:.4f} and {box['latency_worst_ms']:.4g} ms (the 90th percentiles of all trained "
        f"candidates); 1 is the box from there to error {box['error_best']:.4f} and {box['latency_best_ms']:.4g} ms"
    )
