"""Whether today's training ranks networks as an earlier build's does, and as high: the same networks trained by both.

`--before` is a checkout of another commit (`git worktree add ../before COMMIT`); it runs in this environment. Networks
are drawn at random from the config's space, within its limits on multiply-adds. Each build trains each of them with two
seeds of initial weights and order, each training in one thread, two at a time, the builds in turn. What ranks differ by
when one build trains twice is the noise that ranks across builds are held against.

By default the digits with one epoch, where a search has four: the shorter a training, the more accuracies differ,
and few of the small set's are the same by chance.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from common import BENCHMARKS, REPOSITORY, SHARED, interval, summary, table
from networks import distinct_architectures
from options import SEED, begin, changes, file_path, positive
from scipy.stats import rankdata, t

from pipeline.config.file import parse_config
from pipeline.data import load_data
from pipeline.spaces.make import make_space

_CONFIG = Path("configs/digits-cpu.yaml")
_SEEDS = 2
_LANES = 2
_RESAMPLES = 2000
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Accuracies = npt.NDArray[np.float64]  # (networks, builds, seeds)


class Trainer:
    """A process of a build that trains one network after the other."""

    def __init__(self, checkout: Path, config: dict[str, Any]) -> None:
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", str(BENCHMARKS / "training_child.py")]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._say(config)

    def accuracy(self, architecture: dict[str, Any], seed: int) -> float:
        """The accuracy on the validation images."""
        self._say([architecture, seed])
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._process.args}: ended with exit code {self._process.wait()}")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _say(self, message: object) -> None:
        assert self._process.stdin is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)


def main() -> None:
    options = begin(
        __doc__,
        file_path("--before", text="a checkout of the build to compare with"),
        file_path("--config", _CONFIG, "of that build, or a file anywhere"),
        positive("--samples", 40, "networks"),
        positive("--epochs", 1, "of a training"),
        changes(),
        SEED,
    )
    if options.before is None:
        raise SystemExit("--before: a checkout of the build to compare with is needed")
    builds = {"before": options.before.absolute(), "now": REPOSITORY}
    source = options.config if options.config.is_absolute() else builds["before"] / options.config
    config = _config(source, options.epochs, options.changes)
    architectures = _networks(config, options.samples, options.seed)
    began = time.monotonic()
    found = _trained(builds, config, architectures, options.seed)
    print(f"{found.size} trainings in {time.monotonic() - began:.0f} s\n")
    _tell(found)


def _config(source: Path, epochs: int, overrides: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    config["evaluator"] = {"name": "train", "epochs": epochs}
    if "root" in config["data"]:
        config["data"]["root"] = str(SHARED / "data")
    for change in overrides:
        key, _, value = change.partition("=")
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place[section]
        place[last] = yaml.safe_load(value)
    return config


def _networks(config: dict[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """Networks within the limit on multiply-adds, as today's build counts them."""
    from export.exporter.graph_builder import cost_graph
    from latency_models.counted_costs import static_costs
    from latency_models.devices.resolve import resolve_device

    parsed = parse_config(config, "the benchmark's config")
    data = load_data(parsed.data)
    space, device = make_space(parsed, data), resolve_device("cpu")
    limit = parsed.limits.get("macs", float("inf"))
    found = []
    for architecture in distinct_architectures(space, random.Random(seed), 20 * count):
        graph, _ = cost_graph(space.build(architecture), data.input_shape)
        macs: Any = static_costs(graph.SerializeToString(), device).macs
        if macs <= limit:
            found.append(architecture)
        if len(found) == count:
            break
    return found


def _trained(
    builds: dict[str, Path], config: dict[str, Any], architectures: list[dict[str, Any]], seed: int
) -> Accuracies:
    found = np.full((len(architectures), len(builds), _SEEDS), np.nan)

    def lane(first: int) -> None:
        trainers = [Trainer(checkout, config) for checkout in builds.values()]
        try:
            for row in range(first, len(architectures), _LANES):
                for at in range(_SEEDS):
                    turn = list(enumerate(trainers))
                    for build, trainer in turn if (row + at) % 2 else reversed(turn):
                        found[row, build, at] = trainer.accuracy(architectures[row], 1000 * seed + 2 * row + at)
                print(f"  {row + 1}: {' '.join(f'{a:.4f}' for a in found[row].ravel())}", flush=True)
        finally:
            for trainer in trainers:
                trainer.close()

    with ThreadPoolExecutor(_LANES) as pool:
        for done in [pool.submit(lane, first) for first in range(_LANES)]:
            done.result()
    return found


def _tell(found: Accuracies) -> None:
    table(
        {
            "build": name,
            "accuracy": f"{found[:, build].mean():.4f}",
            "from": f"{found[:, build].min():.4f}",
            "to": f"{found[:, build].max():.4f}",
            "± between seeds": f"{np.abs(np.diff(found[:, build], axis=1)).mean() / np.sqrt(2):.4f}",
            "networks with an accuracy of their own": str(len(np.unique(found[:, build, 0]))),
        }
        for build, name in enumerate(("before", "now"))
    )
    print()
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(found), size=len(found)) for _ in range(_RESAMPLES)]
    for name, figure in (("before, trained twice", _before), ("now, trained twice", _now), ("before × now", _across)):
        summary(f"Spearman, {name}", _with_interval(figure, found, draws, ".3f"), "none")
    gap = _with_interval(lambda rows: _across(rows) - _before(rows), found, draws, "+.3f")
    lost = float(np.nanpercentile([_across(found[rows]) - _before(found[rows]) for rows in draws], 97.5)) < 0
    summary(
        "Spearman across builds, over training twice", gap, "not below 0 with 95 %: " + ("it is" if lost else "met")
    )
    off = found[:, 1].mean(axis=1) - found[:, 0].mean(axis=1)
    reach = float(t.ppf(0.975, len(off) - 1)) * off.std(ddof=1) / len(off) ** 0.5
    verdict = "it is" if off.mean() + reach < 0 else "met"
    shown = interval(off.mean(), off.mean() - reach, off.mean() + reach, "+.4f")
    summary("accuracy now - before, paired", shown, f"not below 0 with 95 %: {verdict}")


def _with_interval(
    figure: Callable[[Accuracies], float], found: Accuracies, draws: list[npt.NDArray[np.int64]], form: str
) -> str:
    low, high = np.nanpercentile([figure(found[rows]) for rows in draws], [2.5, 97.5])
    return interval(figure(found), float(low), float(high), form)


def _before(found: Accuracies) -> float:
    return _spearman(found[:, 0, 0], found[:, 0, 1])


def _now(found: Accuracies) -> float:
    return _spearman(found[:, 1, 0], found[:, 1, 1])


def _across(found: Accuracies) -> float:
    return float(np.mean([_spearman(found[:, 0, i], found[:, 1, j]) for i in range(_SEEDS) for j in range(_SEEDS)]))


def _spearman(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(two) == 0:  # nothing is ranked
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(two))[0, 1])


if __name__ == "__main__":
    main()
