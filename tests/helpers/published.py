"""Small published tables for tests, and the real ones where the checkout has them beside it."""

import csv
import gzip
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

CHOICES, ALTERNATIVES = 3, (0, 1, 2)
SPACE = {"name": "table", "choices": CHOICES, "alternatives": list(ALTERNATIVES)}
EVALUATOR = {"name": "table", "key": "arch", "accuracy": "acc", "scale": 0.01}
Row = Callable[[tuple[int, ...]], Mapping[str, Any]]


def plain_row(choices: tuple[int, ...]) -> dict[str, Any]:
    """Accuracy and two costs that pull in different directions."""
    a, b, c = choices
    return {"acc": 60 + 9 * a + 4 * b * (2 - c) + c, "slow_ms": 1 + a + 0.5 * b, "fast_ms": 0.5 + 0.2 * b + 0.3 * c * a}


def write_table(path: Path, row: Row = plain_row, **changes: Mapping[str, Any]) -> Path:
    """All 27 architectures; `changes` replaces cells of rows by key, or drops a row (None)."""
    names = ["arch", "acc", "slow_ms", "fast_ms"]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for choices in itertools.product(ALTERNATIVES, repeat=CHOICES):
            key = "".join(map(str, choices))
            change = changes.get(f"k{key}", {})
            if change is not None:
                writer.writerow({"arch": key, **row(choices), **change})
    return path


def bench_config(folder: Path, table: Path | None = None, **changes: Any) -> Path:
    """A benchmark of the small table, with keys changed (None takes one away)."""
    table = table or write_table(folder / "table.csv.gz")
    values: dict[str, Any] = {
        "name": "small",
        "space": SPACE,
        "evaluator": {**EVALUATOR, "path": str(table)},
        "strategies": ["random", {"name": "evolution", "population": 4, "sample": 2}],
        "seeds": 2,
        "report_at": [3, 6, 12],
        "devices": ["slow_ms", "fast_ms"],
        **changes,
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}), encoding="utf-8")
    return path
