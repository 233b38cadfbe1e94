"""Searches that a benchmark keeps in a folder: begun, gone on with, and read again once they are finished.

Part of finished studies (`joint_search.py`, `precision_search.py`, `real_training.py`), not maintained.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from common import HWNAS, REPOSITORY, SHARED, at_least_one

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    import onnx

ACTIVATIONS = ("relu", "hardswish", "silu", "leaky_relu", "mish", "prelu", "gelu", "swish_beta")
_TAIL = 15


def add_options(parser: argparse.ArgumentParser, *, seeds: int, final_epochs: int) -> None:
    """What decides the searches, and `--keep`."""
    add = partial(_with_default, parser)
    add("--data", Path, SHARED / "data", "holds FashionMNIST/raw")
    add("--images", at_least_one, 10_000, "training images")
    add("--validation-images", at_least_one, 5000, "that accuracies are taken on")
    add("--seeds", at_least_one, seeds, "how many")
    add("--first-seed", int, 0, "the first of them")
    add("--trials", at_least_one, 24, "of each search")
    add("--epochs", at_least_one, 1, "of a candidate")
    add("--width", at_least_one, 16, "`space.width`; 8 for smaller candidates")
    add("--final-epochs", at_least_one, final_epochs, "of a search's winner")
    parser.add_argument("--activations", nargs="+", default=list(ACTIVATIONS), help="of the space (%(default)s)")
    parser.add_argument("--limit-ms", type=float, help="a limit of the latency; none by default")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder, and go on with those that are there")


def _with_default(parser: argparse.ArgumentParser, name: str, kind: Any, default: Any, text: str) -> None:
    parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")


def kept_in(arguments: argparse.Namespace, compare: Callable[[Path, argparse.Namespace], None]) -> None:
    """Compare in the folder that is to be kept, or in one that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(arguments.keep or folder), arguments)


def seeds_of(arguments: argparse.Namespace) -> range:
    """The seeds that the options ask for."""
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


def config_of(arguments: argparse.Namespace, name: str, seed: int, activations: Sequence[str]) -> dict[str, Any]:
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
        "root": str(arguments.data),
        "train_samples": arguments.images,
        "validation_samples": arguments.validation_images,
    }
    config["space"] |= {"width": arguments.width, "activations": list(activations)}
    config["evaluator"]["epochs"] = arguments.epochs
    return config


def searched(folder: Path, config: Mapping[str, Any]) -> Path:
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
    if _is_finished(run):
        print(f"{name}: finished already", flush=True)
        return run
    going = (run / "config.yaml").is_file()
    command = ["resume", str(run)] if going else ["search", str(file), "--run-dir", str(run)]
    began = time.monotonic()
    _run(command, folder / f"{name}.log")
    print(f"{name}: {'gone on with' if going else 'searched'} in {time.monotonic() - began:.0f} s", flush=True)
    return run


def _is_finished(run: Path) -> bool:
    return (run / "bundle" / "manifest.json").is_file() and (run / "report.html").is_file()


def _run(command: Sequence[str], log: Path) -> None:
    with log.open("a") as out:
        code = subprocess.run([str(HWNAS), *command], stdout=out, stderr=out, check=False).returncode
    if code != 0:
        tail = "\n".join(log.read_text().splitlines()[-_TAIL:])
        raise SystemExit(f"hwnas {' '.join(command)} ended with exit code {code}; {log} ends with:\n{tail}")


def trained(run: Path) -> list[dict[str, Any]]:
    """A run's trained and feasible trials, as `hwnas trials --json` gives them."""
    from pipeline.commands.runs import load_run

    return [trial.as_dict() for trial in load_run(run).trials if trial.status == "ok"]


def seconds_per_trial(run: Path) -> float:
    """The mean, training and measuring together."""
    return float(np.mean([trial["seconds"] for trial in trained(run)]))


def manifest(run: Path) -> dict[str, Any]:
    """Of the run's bundle."""
    found: dict[str, Any] = json.loads((run / "bundle" / "manifest.json").read_text())
    return found


def quick_graphs(run: Path, trials: Sequence[Mapping[str, Any]]) -> list[onnx.ModelProto]:
    """The graphs that the search timed: untrained weights, lowered as the final file is."""
    from export.exporter.graph_builder import quick_graph
    from pipeline.run import RunDirectory
    from pipeline.search import load_inputs

    data, space = load_inputs(RunDirectory.open(run).config, str(run))
    return [quick_graph(space.build(trial["architecture"]), data.input_shape)[0] for trial in trials]


def places(trial: Mapping[str, Any]) -> dict[str, str]:
    """Where → activation."""
    from pipeline.spaces.base import activations_of

    return activations_of(trial["architecture"])


def volume(
    errors: Sequence[float], latencies: Sequence[float], box: Mapping[str, float], *, log: bool = False
) -> float:
    """The dominated share of the box between the ideal point and the reference point, 0 to 1; NaN for an empty box.

    Args:
        errors: of the candidates, 0 to 1.
        latencies: of the same candidates, ms.
        box: `error_best`, `error_worst`, `latency_best_ms`, `latency_worst_ms`.
        log: measure the latency's side of the box by its logarithm.
    """
    from pipeline.trials.objectives import hypervolume

    scale = math.log if log else float
    ends = [scale(box["latency_best_ms"]), scale(box["latency_worst_ms"])]
    rows = np.array([[e, scale(ms)] for e, ms in zip(errors, latencies, strict=True)]).reshape(-1, 2)
    whole = (box["error_worst"] - box["error_best"]) * (ends[1] - ends[0])
    return hypervolume(rows, np.array([box["error_worst"], ends[1]])) / whole if whole > 0 else math.nan


def box_of(errors: Sequence[float], latencies: Sequence[float], share: float = 0.9) -> dict[str, float]:
    """From the best of all candidates to a percentile of all: what hypervolumes are measured in."""
    return {
        "error_best": float(min(errors)),
        "error_worst": float(np.quantile(errors, share)),
        "latency_best_ms": float(min(latencies)),
        "latency_worst_ms": float(np.quantile(latencies, share)),
    }


def box_words(box: Mapping[str, float]) -> str:
    """The box in one phrase."""
    return (
        f"error {box['error_worst']:.4f} and {box['latency_worst_ms']:.4g} ms (the 90th percentiles of all trained "
        f"candidates); 1 is the box from there to error {box['error_best']:.4f} and {box['latency_best_ms']:.4g} ms"
    )


def write_summary(folder: Path, name: str, document: Mapping[str, Any]) -> None:
    """`NAME.json` in the folder, and where it lies."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"\nall figures: {path}", flush=True)
