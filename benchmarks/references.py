"""The winner of a search against published networks, under the same recipe and on the same device.

Fashion-MNIST, the config configs/fashion-mnist-cpu.yaml with a longer search and training, `hwnas search --references`.
Printed for winner and references: accuracies, latency with its 95 % interval, the ratio of latencies (timed in
alternation), size, memory, parameters; then the ratio at equal or better test accuracy, for each seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import HWNAS, REPOSITORY, SHARED, at_least_one, heading, summary, table


def main() -> None:
    """Run the searches and print what they found."""
    arguments = _arguments()
    heading(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            found = _searched(Path(arguments.keep or folder) / f"run-{seed}", seed, arguments)
            print(
                f"\nseed {seed}, picked {found['picked']}, {found['metrics']['test_images']:,} test images", flush=True
            )
            table([_row("the winner", found["metrics"]), *(_row(r["name"], r) for r in found["references"])])
            print(found["references_verdict"])
            _conclude(seed, found)


def _searched(run: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = {
        "data.root": arguments.data,
        "data.train_samples": arguments.images,
        "seed": seed,
        "budget.trials": arguments.trials,
        "budget.minutes": arguments.minutes,
        "evaluator.epochs": arguments.trial_epochs,
        "final.epochs": arguments.epochs,
        "final.pick": arguments.pick,
        "export.quantize": "never",
        "device.precision": arguments.precision,
        "references.names": f"[{', '.join(arguments.names)}]" if arguments.names else None,
    }
    if arguments.precision == "int8":
        settings["export.quantize"] = "auto"
    pairs = [part for key, value in settings.items() if value is not None for part in ("--set", f"{key}={value}")]
    if (run / "config.yaml").is_file():
        command = [str(HWNAS), "resume", str(run), "--references", "--json"]
    else:
        command = [str(HWNAS), "search", str(arguments.config), "--run-dir", str(run), "--references", "--json", *pairs]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    document: dict[str, Any] = json.loads(shown.stdout)
    return document


def _row(name: str, found: dict[str, Any]) -> dict[str, str]:
    def told(key: str, form: str, scale: float = 1.0) -> str:
        value = found.get(key)
        return "–" if value is None else format(value * scale, form)

    def interval(key: str, form: str) -> str:
        low, high = (told(f"{key}_{end}", form) for end in ("low", "high"))
        return "" if low == "–" else f" ({low} to {high})"

    latency = f" ({told('latency_low_ms', '.4g')} to {told('latency_high_ms', '.4g')})"
    return {
        "network": name,
        "validation": told("accuracy_validation", ".4f"),
        "test": told("accuracy_test", ".4f"),
        "latency, ms": told("latency_ms", ".4g") + latency,
        "÷ winner's": told("latency_ratio", ".2f") + interval("latency_ratio", ".2f"),
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
        interval = f"{row['latency_ratio_low']:.2f} to {row['latency_ratio_high']:.2f}"
        text = f"{row['latency_ratio']:.2f} ({interval}) against {row['name']}"
    else:
        text = f"none of {len(told)} references is as accurate as the winner"
    summary(f"seed {seed}: latency of the fastest reference as accurate, over the winner's", text, "above 1")
    better = sum(row["accuracy_test_difference"] >= 0 and row["latency_ratio_high"] < 1 for row in told)
    summary(f"seed {seed}: references at least as accurate and faster", f"{better} of {len(told)}", "none")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = REPOSITORY / "configs" / "fashion-mnist-cpu.yaml"
    parser.add_argument("--config", type=Path, default=default, help="of the search (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="holds FashionMNIST/raw")
    parser.add_argument("--images", type=at_least_one, default=10_000, help="training images (default: %(default)s)")
    parser.add_argument("--trials", type=at_least_one, default=30, help="of the search (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the search at most (default: %(default)s)")
    parser.add_argument("--trial-epochs", type=at_least_one, default=3, help="a candidate's (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=at_least_one, default=20, help="winner's and references' (default: %(default)s)"
    )
    parser.add_argument("--pick", default="knee", help="which member of the front (default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--names", nargs="+", help="references, all by default")
    parser.add_argument("--seeds", type=at_least_one, default=1, help="how many searches (default: %(default)s)")
    parser.add_argument("--keep", help="keep the runs in this folder, and go on with those that are there")
    parser.add_argument("--seed", type=int, default=0, help="the first one (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
