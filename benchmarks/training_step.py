"""What each way to speed up a training gains, alone and together, against a plain loop in alternation.

Random networks of `convnet` train for some steps and are evaluated once: by a plain loop (contiguous maps, torch's
default optimizer and schedule, memory as the C library handles it, evaluation in batches of 512), by the same loop with
one part of the product's training each, and by the product's `train`. Each way has a process of its own, because what
the C library learns about freed blocks stays. Ratios are of processor time with one thread, and of
wall time with several; the smallest of the repeats counts.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from common import heading, summary, table
from networks import convnet, random_architecture
from options import SEED, option, parsed, positive, some_of
from torch.nn import functional as F

from export.preprocessing import Preprocessing
from pipeline.config.data import DigitsOptions
from pipeline.config.run import TrainOptions
from pipeline.data import DataSet, Split, load_data
from pipeline.evaluators.convolution_forms import fast_convolutions
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.memory_layout import fast_layout
from pipeline.evaluators.optimizers import OneCycle, ScheduledOptimizer
from pipeline.evaluators.training import train
from pipeline.memory_settings import kept_memory

CASES = {
    "digits": {"width": 8, "width_multipliers": [1, 2, 3], "depths": [1, 2]},
    "1x28x28": {"width": 16},
    "3x32x32": {"width": 16},
}
"""Images → options of the space; those of `digits` are `configs/digits-cpu.yaml`'s."""
WAYS = (
    "plain",
    "kept memory",
    "channels-last",
    "fused optimizer",
    "evaluation by 128",
    "matrix products",
    "bf16",
    "all: train()",
)
_FORMS = ("matrix products", "bf16")
"""Ways that need channels-last, and have it: `bf16` has the matrix products, too."""


def data_of(case: str, batches: int) -> tuple[DataSet, TrainOptions]:
    """The digits, or random images of that shape, as many as `batches` take; and the recipe."""
    if case == "digits":
        return load_data(DigitsOptions(name="digits")), TrainOptions(learning_rate=0.006, batch_size=32)
    channels, height, width = (int(number) for number in case.split("x"))
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        return Split(images, rng.integers(0, 10, count))

    record = Preprocessing(channels, height, width, 1 / 255, (0.5,) * channels, (0.25,) * channels)
    names = tuple("0123456789")
    empty = split(1)
    return DataSet("random", names, split(64 * batches), split(512), record, lambda: empty), TrainOptions(batch_size=64)


class Plain:
    """Torch's own optimizer and schedule, as a plain loop has them."""

    def __init__(self, model: torch.nn.Module, recipe: TrainOptions, steps: int) -> None:
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, OneCycle(steps).factor)

    def step(self) -> None:
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)


def train_by(way: str, model: torch.nn.Module, data: DeviceData, recipe: TrainOptions) -> None:
    """One epoch and one evaluation."""
    if way == WAYS[-1]:
        train(model, data, recipe, epochs=1)
        return
    sample = data.network_input(data.images[:2])
    memory = kept_memory() if way == "kept memory" else nullcontext()
    layout = fast_layout(model, sample) if way in ("channels-last", *_FORMS) else nullcontext()
    forms = fast_convolutions(model, bf16=way == "bf16") if way in _FORMS else nullcontext()
    with memory, layout, forms:
        make = ScheduledOptimizer if way == "fused optimizer" else Plain
        optimizer = make(model, recipe, data.batch_count(recipe))
        model.train()
        for images, labels in data.batches(recipe):
            loss = F.cross_entropy(model(images), labels)
            if not np.isfinite(loss.item()):
                raise SystemExit("diverged")
            loss.backward()
            optimizer.step()
        if way == "evaluation by 128":
            data.accuracy(model, *data.validation)
        else:
            with torch.inference_mode():
                for images in data.validation[0].split(512):
                    model.eval()(data.network_input(images))


def child(options: argparse.Namespace) -> None:
    """Answer each line (an architecture) with the seconds, the page faults and the peak of one training, as JSON."""
    torch.set_num_threads(options.threads)
    source, recipe = data_of(options.case, options.batches)
    data = DeviceData(source)
    space = convnet(source.input_shape, **CASES[options.case])
    clock = time.process_time if options.threads == 1 else time.perf_counter
    for line in sys.stdin:
        torch.manual_seed(0)
        model = space.build(json.loads(line))
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, clock()
        train_by(options.way, model, data, recipe)
        took, used = clock() - began, resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([took, used.ru_minflt - before, used.ru_maxrss]), flush=True)


def measured(case: str, options: argparse.Namespace) -> dict[str, list[Any]]:
    """Way → for each network the least seconds, its page faults, and the process's peak in KiB."""
    source, _ = data_of(case, 1)
    space, rng = convnet(source.input_shape, **CASES[case]), random.Random(options.seed)
    words = [sys.executable, __file__, "--case", case, "--threads", str(options.threads)]
    words += ["--batches", str(options.batches)]
    pipe = subprocess.PIPE
    children = {way: subprocess.Popen([*words, "--way", way], stdin=pipe, stdout=pipe, text=True) for way in WAYS}
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    try:
        for _ in range(options.networks):
            request = json.dumps(random_architecture(space, rng))
            best: dict[str, list[Any]] = {}
            for _ in range(options.repeats):
                for way, process in children.items():
                    assert process.stdin is not None
                    assert process.stdout is not None
                    print(request, file=process.stdin, flush=True)
                    answer = json.loads(process.stdout.readline())
                    best[way] = min(best.get(way, answer), answer)
            for way, answer in best.items():
                found[way].append(answer)
    finally:
        for process in children.values():
            process.kill()
            process.wait()
    return found


def main() -> None:
    hidden = argparse.SUPPRESS
    options = parsed(
        __doc__,
        some_of("--cases", CASES),
        positive("--networks", 4),
        positive("--repeats", 2),
        positive("--batches", 6, "of an epoch of random images"),
        positive("--threads", 1, "of torch"),
        SEED,
        option("--case", None, hidden),
        option("--way", None, hidden),
    )
    if options.way:
        child(options)
        return
    heading(__doc__)
    for case in options.cases:
        found = measured(case, options)
        plain = found["plain"]
        rows = []
        for way, values in found.items():
            ratios = [value[0] / base[0] for value, base in zip(values, plain, strict=True)]
            rows.append(
                {
                    "training": way,
                    "time, of plain": f"{statistics.mean(ratios):.2f}",
                    "min": f"{min(ratios):.2f}",
                    "max": f"{max(ratios):.2f}",
                    "page faults": f"{statistics.mean(value[1] for value in values):,.0f}",
                    "peak MiB": f"{max(value[2] for value in values) / 1024:.0f}",
                }
            )
        print(f"{case}, {options.threads} threads")
        table(rows)
        goal = "≤ .67" if case == "digits" else "≤ .60 with one thread"
        summary(f"train() on {case}", f"{rows[-1]['time, of plain']} of a plain loop's time", goal)
        peaks = [max(value[2] for value in found[way]) for way in ("plain", WAYS[-1])]
        summary(f"peak memory on {case}", f"{peaks[1] / peaks[0]:.2f} of a plain loop's", "≤ 1.20")


if __name__ == "__main__":
    main()
