"""Parts that all benchmark scripts share: places, the command `hwnas`, plain output."""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

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


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, minimum and maximum in one phrase."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"median {middle:.{digits}f}, min {low:.{digits}f}, max {high:.{digits}f}"


def interval(middle: float, low: float, high: float, form: str) -> str:
    """A figure and its interval in one phrase."""
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def table(rows: Iterable[Mapping[str, str]]) -> None:
    """Print rows with aligned columns; the first row's keys are the heads."""
    rows = list(rows)
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row in rows:
        print("  ".join(row[head].ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip(), flush=True)


def hwnas(
    *words: object,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    codes: Sequence[int] = (0,),
    quiet: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `settings` become `--set`. Unless `quiet`, its progress goes to the terminal.

    Raises:
        SystemExit: its exit code isn't among `codes`; the message is what it said.
    """
    pairs = [part for key, value in (settings or {}).items() for part in ("--set", f"{key}={value}")]
    command, variables = [str(HWNAS), *map(str, words), *pairs], {**os.environ, **(environment or {})}
    pipe = subprocess.PIPE
    done = subprocess.run(command, stdout=pipe, stderr=pipe if quiet else None, text=True, env=variables, check=False)
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr or ''}")
    return done
