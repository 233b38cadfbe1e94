"""Time of a small search and of a fit: from the command line, from Python, and without hwnas's settings of threads.

Each is the whole of a run of a few trials in a fresh process, beside one busy process for each core: there, threads
that wait by spinning take the cores that others need. Without the settings means with the libraries' own defaults,
which are set by name, because hwnas leaves alone whatever the user has set. Threads that spin show in the processor
time, too, however busy the machine is.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import HWNAS, heading, spread, summary
from options import flag, parsed, positive

CONFIG = {
    "name": "threads",
    "data": {"name": "digits"},
    "space": {"name": "convnet", "width": 8, "depths": [1], "kernels": [3], "activations": ["relu"]},
    "strategy": {"name": "random"},
    "evaluator": {"name": "train", "epochs": 2},
    "objectives": ["accuracy", "macs"],
    "final": {"epochs": 2},
    "export": {"quantize": "never"},
}
# OpenMP's and OpenBLAS's own defaults, spelled out.
DEFAULTS = {"GOMP_SPINCOUNT": "300000", "OPENBLAS_NUM_THREADS": str(os.cpu_count() or 1)}
BUSY = "import time; end = time.time() + 1200\nwhile time.time() < end: pass"
PROGRAM = "import sys, hwnas; hwnas.search(sys.argv[1], run_dir=sys.argv[2])"
# A program of the user's may have loaded torch long before it calls hwnas.
TORCH_FIRST = "import torch\n" + PROGRAM


# The linear algebra alone, in a process that has loaded NumPy with OpenBLAS's own threads.
FIT = """
import random, sys, time
import numpy
from contextlib import nullcontext
from latency_models.predictors.operator_model import Observation, OperatorModel
from latency_models.predictors.operator_kernel import Hyper
from latency_models.predictors.operators import elementwise
from pipeline.thread_settings import calm_threads
draw = random.Random(0)
nets = [[elementwise("silu", draw.randrange(1, 200), 8) for _ in range(8)] for _ in range(300)]
rows = [Observation(tuple(net), sum(o.work[0] for o in net) * 1e-6, 0.01) for net in nets]
with calm_threads():
    document = OperatorModel.fit(rows, Hyper()).as_dict()
with calm_threads() if sys.argv[1] == "calm" else nullcontext():
    began = time.perf_counter()
    OperatorModel.from_dict(document)
    print(time.perf_counter() - began)
"""


def fit_seconds(way: str) -> float:
    """Of fitting a cost model in a fresh process, with hwnas's settings or without."""
    clean = {name: value for name, value in os.environ.items() if name not in {*DEFAULTS, "OMP_NUM_THREADS"}}
    done = subprocess.run([sys.executable, "-c", FIT, way], env=clean, capture_output=True, text=True, check=True)
    return float(done.stdout)


def seconds(command: list[str], settings: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of one search in a fresh process and a fresh run directory."""
    clean = {name: value for name, value in os.environ.items() if name not in {*DEFAULTS, "OMP_NUM_THREADS"}}
    with tempfile.TemporaryDirectory() as folder:
        config, run = Path(folder) / "config.yaml", Path(folder) / "run"
        config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        places = {"CONFIG": str(config), "RUN": str(run)}
        words = [places.get(word, word) for word in command]
        began, before = time.perf_counter(), processor_s()
        subprocess.run(words, env={**clean, **settings}, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - began, processor_s() - before


def processor_s() -> float:
    """Processor time of all processes that this one began and that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    options = parsed(
        __doc__,
        positive("--repeats", 3),
        positive("--trials", 2),
        flag("--fit-only", "no search, only a fit"),
        flag("--idle", "without the busy processes"),
    )
    CONFIG["budget"] = {"trials": options.trials, "minutes": 20}
    heading(__doc__)
    python = [sys.executable, "-c", PROGRAM, "CONFIG", "RUN"]
    ways = {
        "command line": ([str(HWNAS), "search", "CONFIG", "--run-dir", "RUN"], {}),
        "Python": (python, {}),
        "Python, torch loaded before": ([sys.executable, "-c", TORCH_FIRST, "CONFIG", "RUN"], {}),
        "Python without the settings": (python, DEFAULTS),
    }
    hogs = [] if options.idle else [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        fits = {way: [fit_seconds(way) for _ in range(options.repeats)] for way in ("calm", "raw")}
        for _ in range(0 if options.fit_only else options.repeats):
            for name, (command, settings) in ways.items():
                found[name].append(seconds(command, settings))
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    for way, name in (("calm", "with hwnas's settings"), ("raw", "with the library's own threads")):
        summary(f"fit of a cost model {name}", f"{spread(fits[way], 2)} s", "none set")
    if options.fit_only:
        return
    least = min(found["command line"])
    for name, values in found.items():
        goal = "about 1" if name != "Python without the settings" else "none set"
        ratios = " and ".join(
            f"{min(own) / base:.2f}" for own, base in zip(zip(*values, strict=True), least, strict=True)
        )
        wall, used = (spread(own) for own in zip(*values, strict=True))
        text = f"{wall} s; processor {used} s; {ratios} times the command line's"
        summary(name, text, goal)


if __name__ == "__main__":
    main()
