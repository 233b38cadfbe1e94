"""Parts that the benchmark scripts share: the machine in one line, random architectures, plain output."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    import random
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("HWNAS_SHARED", REPOSITORY.parent / "shared")).absolute()
"""The shared data: $HWNAS_SHARED, or beside the repository."""
HWNAS = Path(sys.executable).with_name("hwnas")
"""The command of the environment that runs the script."""


def machine() -> str:
    """The processor's name, the number of cores, and how busy they are now."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, load average {load}"


def _processor() -> str:
    found = subprocess.run(["lscpu"], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    for line in found.stdout.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model name":
            return value.strip()
    return platform.processor() or platform.machine()


def heading(docstring: str | None) -> None:
    """Print the script's first line, and the machine that it runs on."""
    print((docstring or "").strip().splitlines()[0])
    print(f"on {machine()}\n", flush=True)


def summary(figure: str, found: str, goal: str) -> None:
    """Print one figure's final line, with the goal beside it."""
    print(f"RESULT {figure}: {found} (goal: {goal})", flush=True)


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    import argparse

    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile by linear interpolation; `share` from 0 to 1."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, minimum and maximum in one phrase."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"median {middle:.{digits}f}, min {low:.{digits}f}, max {high:.{digits}f}"


class Clock:
    """Time since it was made: by the wall, and of this process's processor time."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def lap_ms(self) -> tuple[float, float]:
        """Milliseconds by the wall and of processor time since the last lap."""
        wall, processor = time.perf_counter(), time.process_time()
        laps = (wall - self._wall) * 1e3, (processor - self._processor) * 1e3
        self._wall, self._processor = wall, processor
        return laps


def convnet(input_shape: tuple[int, int, int], classes: int = 10, **options: Any) -> Any:
    """The space `convnet` without any data; `options` are its keys in a config."""
    from pipeline.config.space import ConvNetOptions
    from pipeline.spaces.convnet import ConvNetSpace

    return ConvNetSpace(ConvNetOptions(name="convnet", **options), input_shape, classes)


def random_architecture(space: Any, rng: random.Random) -> dict[str, Any]:
    """An architecture with each label drawn uniformly, as NNI's random strategy does, in canonical form."""
    return dict(space.canonical({choice.label: rng.choice(choice.values) for choice in space.choices}))


def distinct_architectures(space: Any, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Random architectures without repeats; fewer than `count` where a small space gives out."""
    from pipeline.spaces.base import architecture_id

    found: dict[str, dict[str, Any]] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        architecture = random_architecture(space, rng)
        found[architecture_id(architecture)] = architecture
    return list(found.values())


def parameters(model: Any) -> int:
    """Number of a network's trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


def seeded(parser: argparse.ArgumentParser) -> None:
    """Add the option `--seed` to a parser."""
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")


def table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows with aligned columns; the first row's keys are the heads."""
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row in rows:
        print("  ".join(row[head].ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip(), flush=True)
