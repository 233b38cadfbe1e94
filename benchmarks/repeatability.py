"""Repeatability of latencies: fresh processes in four conditions, beside the plain median and mean of 1,000 runs.

Nets of about 0.2 ms and 2 ms from the convolutional space, and one of about 2 ms whose weights and activations are too
large for the inner caches, are measured by fresh processes, in turn

    idle    with nothing beside them (as far as the machine's other users allow),
    bursty  beside one process a core that works and sleeps by turns of 20 to 300 ms,
    pinned  held to one core, which two processes that never sleep share with them,
    hog     beside a process that copies 256 MB of memory again and again.

Each process measures once for `--seconds`, times 1,000 runs plainly, and takes short measurements, whose 95 % intervals
are held against the median of what all idle processes found. `--results` keeps what was taken in a file, so that
conditions can be run one at a time; a later call with `--processes 0` prints the figures of all of them.
"""

import argparse
import contextlib
import ctypes
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import BENCHMARKS, heading, summary, table
from options import SEED, Options, amount, file_path, option, parsed, some_of

CONDITIONS = {
    "idle": [],
    "bursty": [("bursty", "0"), ("bursty", "1")],
    "pinned": [("busy", "0"), ("busy", "0")],
    "hog": [("hog", "-")],
}
"""The loads beside the measuring process, each with the core that it is held to."""
NETS = {"small": (0.2, 0, 2.4e6), "large": (2.0, 0, 2.4e6), "heavy": (2.0, 4.5e6, 1e9)}
"""Milliseconds to come near to, and the bounds of the working set in bytes."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PLAIN_RUNS = 1000
_SHORT_S = 0.25
_CANDIDATES = 60


def main() -> None:
    arguments = parsed(
        __doc__,
        option("--processes", 3, "fresh processes each", type=int),
        amount("--seconds", 1.5, "budget of a measurement"),
        option("--short", 5, "short measurements a process", type=int),
        some_of("--conditions", CONDITIONS),
        some_of("--nets", NETS),
        file_path("--results", text="a file of JSON lines to add to and to report from"),
        file_path("--models", text="where the nets lie, or are made; a temporary folder by default"),
        option("--as-process", text=argparse.SUPPRESS, nargs="+"),
        option("--as-load", text=argparse.SUPPRESS, nargs=2),
        SEED,
    )
    if arguments.as_load:
        return _load(*arguments.as_load)
    if arguments.as_process:
        return _process(*arguments.as_process)
    heading(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.models or Path(temporary)
        results = arguments.results or Path(temporary) / "results.jsonl"
        if arguments.processes:
            _make_nets(folder, arguments.seed)
            _take(arguments, folder, results)
        _report([json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()])
    return None


def _make_nets(folder: Path, seed: int) -> None:
    """Of random candidates those nearest to what `NETS` asks for, unless they are there."""
    if all((folder / f"{name}.onnx").exists() for name in NETS):
        return
    from networks import convnet, random_architecture

    from export.exporter.graph_builder import quick_graph
    from latency_models.devices.resolve import resolve_device
    from latency_models.timing.meter import LatencyMeter
    from latency_models.timing.reference_mix import working_set_bytes

    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    found: list[tuple[bytes, float, int]] = []
    with LatencyMeter(resolve_device("cpu"), store=folder / "references.json") as meter:
        for at in range(_CANDIDATES):
            shape = (3, 32, 32) if at % 2 else (1, 16, 16)
            space = convnet(shape, activations=["relu", "hardswish", "silu", "leaky_relu"])
            content = quick_graph(space.build(random_architecture(space, rng)), shape)[0].SerializeToString()
            latency = meter.measure(content, budget_s=0.03)
            found.append((content, latency.latency_ms, working_set_bytes(content, 1) or 0))
    for name, (about_ms, least, most) in NETS.items():
        fitting = [each for each in found if least <= each[2] <= most]
        content, ms, size = min(fitting, key=lambda each, to=about_ms: abs(math.log(each[1] / to)))
        (folder / f"{name}.onnx").write_bytes(content)
        print(f"{name}: {ms:.3g} ms, working set {size / 1e6:.2f} MB", flush=True)


def _take(arguments: Options, folder: Path, results: Path) -> None:
    for condition in arguments.conditions:
        with _loads(condition):
            for name in arguments.nets:
                for _ in range(arguments.processes):
                    row = _run(condition, folder / f"{name}.onnx", arguments.seconds, arguments.short)
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"condition": condition, "net": name, **row}) + "\n")


def _run(condition: str, net: Path, seconds: float, short: int) -> dict[str, Any]:
    """Figures that one fresh process finds."""
    command = [sys.executable, __file__, "--as-process", condition, str(net), str(seconds), str(short)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=BENCHMARKS)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _process(condition: str, net: str, seconds: str, short: str) -> None:
    """A fresh process: one measurement, plain runs, short measurements; JSON on standard output."""
    if condition == "pinned":
        os.sched_setaffinity(0, {0})
    from latency_models.devices.resolve import resolve_device
    from latency_models.timing.meter import LatencyMeter

    path = Path(net)
    with LatencyMeter(resolve_device("cpu"), store=path.with_name("references.json")) as meter:
        latency = meter.measure(path, budget_s=float(seconds), target_half_width=0.0)
        shorts = [meter.measure(path, budget_s=_SHORT_S, target_half_width=0.0) for _ in range(int(short))]
    plain = _plain_ms(path)
    row = {
        "latency": [latency.latency_ms, latency.low_ms, latency.high_ms],
        "reference": latency.reference,
        "shorts": [[each.latency_ms, each.low_ms, each.high_ms] for each in shorts],
        "median": statistics.median(plain),
        "mean": statistics.fmean(plain),
        "warnings": list(latency.warnings),
    }
    print(json.dumps(row))


def _plain_ms(path: Path) -> list[float]:
    """Median and mean of plain runs, as one would time without this project."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in declared.shape]
    feed = {declared.name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    times = []
    for at in range(_PLAIN_RUNS + 10):
        start = time.perf_counter()
        session.run(None, feed)
        if at >= 10:
            times.append((time.perf_counter() - start) * 1e3)
    return times


@contextlib.contextmanager
def _loads(condition: str) -> Iterator[None]:
    """The loads of a condition, ended whatever happens."""
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--as-load", *load], cwd=BENCHMARKS, env={**os.environ, **_ONE_THREAD}
        )
        for load in CONDITIONS[condition]
    ]
    try:
        time.sleep(1.0 if started else 0.0)
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def _load(kind: str, core: str) -> None:
    """Disturb others until killed, at the latest with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if core != "-":
        os.sched_setaffinity(0, {int(core) % (os.cpu_count() or 1)})
    if kind == "hog":
        source = np.ones(1 << 25)
        target = np.empty_like(source)
        while True:
            np.copyto(target, source)
    matrix = np.ones((300, 300), np.float32)
    rng = random.Random(os.getpid())
    while True:
        end = time.perf_counter() + rng.uniform(0.02, 0.3)
        while time.perf_counter() < end:
            matrix @ matrix
        if kind == "bursty":
            time.sleep(rng.uniform(0.02, 0.3))


def _report(rows: list[dict[str, Any]]) -> None:
    lines, centres = [], {}
    for name in dict.fromkeys(row["net"] for row in rows):
        of_net = [row for row in rows if row["net"] == name]
        for condition in dict.fromkeys(row["condition"] for row in of_net):
            chosen = [row for row in of_net if row["condition"] == condition]
            values = {
                "hwnas": [row["latency"][0] for row in chosen],
                "median": [row["median"] for row in chosen],
                "mean": [row["mean"] for row in chosen],
            }
            centres[name, condition] = {kind: statistics.median(each) for kind, each in values.items()}
            line = {"net": name, "condition": condition, "processes": str(len(chosen))}
            line["ms"] = f"{centres[name, condition]['hwnas']:.4f}"
            line |= {f"cv {kind}": f"{_cv(each):.2%}" for kind, each in values.items()}
            line["±"] = (
                f"{statistics.median((r['latency'][2] - r['latency'][1]) / 2 / r['latency'][0] for r in chosen):.2%}"
            )
            lines.append(line)
    table(lines)
    print()
    for name in dict.fromkeys(row["net"] for row in rows):
        of_net = {condition: centre for (net, condition), centre in centres.items() if net == name}
        spreads = {
            kind: max(each[kind] for each in of_net.values()) / min(each[kind] for each in of_net.values()) - 1
            for kind in ("hwnas", "median", "mean")
        }
        worst = {c: line["cv hwnas"] for line in lines if line["net"] == name for c in [line["condition"]]}
        summary(f"{name}, cv", ", ".join(f"{c} {cv}" for c, cv in worst.items()), "0.5 %, hog 1 %")
        beside = f"median {spreads['median']:.2%}, mean {spreads['mean']:.2%}"
        summary(f"{name}, bias between conditions", f"{spreads['hwnas']:.2%} (plain {beside})", "at most 1 %")
    _coverage(rows)


def _coverage(rows: list[dict[str, Any]]) -> None:
    """How many intervals hold the median of what the idle processes found."""
    inside: dict[tuple[str, str], list[bool]] = {}
    for name in dict.fromkeys(row["net"] for row in rows):
        idle = [row["latency"][0] for row in rows if row["net"] == name and row["condition"] == "idle"]
        if not idle:
            continue
        truth = statistics.median(idle)
        for row in rows:
            if row["net"] == name:
                held = [low <= truth <= high for _, low, high in [row["latency"], *row["shorts"]]]
                inside.setdefault((name, row["condition"]), []).extend(held)
    for (name, condition), held in inside.items():
        print(f"{name}, {condition}: {sum(held)} of {len(held)} intervals hold the long-run value")
    light = [each for (name, _), held in inside.items() if name != "heavy" for each in held]
    everything = [each for held in inside.values() for each in held]
    for label, held in (("small and large", light), ("all nets", everything)):
        if held:
            found = f"{sum(held) / len(held):.1%} of {len(held)}"
            summary(f"intervals that hold the long-run value, {label}", found, "90 to 99 % of 200")


def _cv(values: list[float]) -> float:
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
