"""The winner of a search against published networks, under the same recipe and on the same device.

Fashion-MNIST, the config configs/fashion-mnist-cpu.yaml with a longer search and training, `hwnas search --references`.
Printed for winner and references: accuracies, latency with its 95 % interval, the ratio of latencies (timed in
alternation), size, memory, parameters; then the ratio at equal or better test accuracy, for each seed.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from common import REPOSITORY, SHARED, hwnas, interval, summary, table
from options import SEED, Options, begin, changes, file_path, positive


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--images", 10_000, "training images"),
        positive("--trials", 30, "of the search"),
        positive("--trial-epochs", 3, "a candidate's"),
        positive("--epochs", 20, "winner's and references'"),
        changes("a change of configs/fashion-mnist-cpu.yaml, such as device.precision=int8"),
        positive("--seeds", 1, "how many searches; the first one is --seed"),
        SEED,
        file_path("--keep", text="keep the runs in this folder, and go on with those that are there"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            found = _searched(Path(arguments.keep or folder) / f"run-{seed}", seed, arguments)
            print(
                f"\nseed {seed}, picked {found['picked']}, {found['metrics']['test_images']:,} test images", flush=True
            )
            table([_row("the winner", found["metrics"]), *(_row(r["name"], r) for r in found["references"])])
            print(found["references_verdict"])
            _conclude(seed, found)


def _searched(run: Path, seed: int, arguments: Options) -> dict[str, Any]:
    settings = {
        "data.root": SHARED / "data",
        "data.train_samples": arguments.images,
        "seed": seed,
        "budget.trials": arguments.trials,
        "budget.minutes": 60,
        "evaluator.epochs": arguments.trial_epochs,
        "final.epochs": arguments.epochs,
        "export.quantize": "never",
        **dict(change.split("=", 1) for change in arguments.changes),
    }
    if (run / "config.yaml").is_file():
        shown = hwnas("resume", run, "--references", "--json", quiet=False)
    else:
        words = (REPOSITORY / "configs" / "fashion-mnist-cpu.yaml", "--run-dir", run, "--references", "--json")
        shown = hwnas("search", *words, settings=settings, quiet=False)
    document: dict[str, Any] = json.loads(shown.stdout)
    return document


def _row(name: str, found: dict[str, Any]) -> dict[str, str]:
    def told(key: str, form: str, scale: float = 1.0) -> str:
        value = found.get(key)
        return "–" if value is None else format(value * scale, form)

    def bounds(key: str, form: str) -> str:
        low, high = (told(f"{key}_{end}", form) for end in ("low", "high"))
        return "" if low == "–" else f" ({low} to {high})"

    latency = f" ({told('latency_low_ms', '.4g')} to {told('latency_high_ms', '.4g')})"
    return {
        "network": name,
        "validation": told("accuracy_validation", ".4f"),
        "test": told("accuracy_test", ".4f"),
        "latency, ms": told("latency_ms", ".4g") + latency,
        "÷ winner's": told("latency_ratio", ".2f") + bounds("latency_ratio", ".2f"),
        "size, MB": told("size_bytes", ".3f", 1e-6),
        "memory, MB": told("peak_memory_bytes", ".3f", 1e-6),
        "parameters": told("params", ",.0f"),
        "remark": found.get("remark", ""),
    }


def _conclude(seed: int, found: dict[str, Any]) -> None:
    told = [row for row in found["references"] if row["latency_ratio"] is not None]
    equal = [row for row in told if row["accuracy_test_difference"] >= 0]
    if equal:
        row = min(equal, key=lambda row: row["latency_ratio"])
        ratio = interval(*(row[f"latency_ratio{end}"] for end in ("", "_low", "_high")), form=".2f")
        text = f"{ratio} against {row['name']}"
    else:
        text = f"none of {len(told)} references is as accurate as the winner"
    summary(f"seed {seed}: latency of the fastest reference as accurate, over the winner's", text, "above 1")
    better = sum(row["accuracy_test_difference"] >= 0 and row["latency_ratio_high"] < 1 for row in told)
    summary(f"seed {seed}: references at least as accurate and faster", f"{better} of {len(told)}", "none")


if __name__ == "__main__":
    main()
