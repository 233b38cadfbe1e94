"""`guided` against evolution and random search where every accuracy is a real training: Fashion-MNIST, `convnet`.

A finished study, not maintained. Found (40 trials, 3 seeds): nothing can be told apart; hypervolumes .68 ± .10
(guided), .66 ± .05 (evolution), .68 ± .05 (random). See docs/strategies.md.

The space of configs/fashion-mnist-cpu.yaml, calibrated once, so that the same latencies stand behind all searches: the
hypervolumes are of the latencies that this one cost model tells of the trials, not of single measurements, which differ
between repetitions. Printed: hypervolume after 10, 20, 30 and 40 trials and after equal times of the clock, mean
and standard deviation over the seeds, and `guided`'s lead over the others, paired by seed, with a 95 % t-interval.

Accuracies after a short training are noisy, for the three strategies alike. Seeds decide what the strategies draw; how
a network is trained depends on it, too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

from common import heading, summary, table
from kept_searches import (
    add_options,
    box_of,
    box_words,
    config_of,
    kept_in,
    searched,
    seeds_of,
    volume,
    write_summary,
)

from pipeline.bench.summary import mean_with_interval

_STRATEGIES = ("guided", "evolution", "random")
_LEAST_SEEDS = 2

Key = tuple[str, int]


@dataclass(frozen=True)
class _Trial:
    """One that was trained; `at_s` is when it ended, since its search began."""

    error: float
    ms: float
    at_s: float
    seconds: float


Trials = list[_Trial]


def main() -> None:
    """Run what isn't there yet, and compare."""
    arguments = _arguments()
    heading(__doc__)
    kept_in(arguments, _compare)


def _compare(folder: Path, arguments: argparse.Namespace) -> None:
    runs: dict[Key, Path] = {}
    for seed in seeds_of(arguments):
        for name in arguments.strategies:
            config = config_of(arguments, f"{name}-{seed}", seed, arguments.activations)
            runs[name, seed] = searched(folder, config | {"cost_model": "predict", "strategy": {"name": name}})
    trials = _trials(runs)
    every = [trial for rows in trials.values() for trial in rows]
    box = box_of([trial.error for trial in every], [trial.ms for trial in every])
    print(f"\nhypervolumes below {box_words(box)}\n")
    for (name, seed), rows in trials.items():
        print(f"{name}-{seed}: {len(rows)} trials, {np.mean([trial.seconds for trial in rows]):.1f} s each")
    marks: dict[str, list[float]] = {
        "trials": list(range(10, arguments.trials + 1, 10)) or [arguments.trials],
        "seconds": _times(trials),
    }
    document: dict[str, Any] = {"box": box, "searches": {}}
    for unit, places in marks.items():
        shares = {key: [_share(rows, unit, place, box) for place in places] for key, rows in trials.items()}
        document["searches"][unit] = [
            {"strategy": name, "seed": seed, "at": places, "hypervolume": found}
            for (name, seed), found in shares.items()
        ]
        _show(unit, places, shares, arguments)
    write_summary(folder, "real_training", document)


def _trials(runs: dict[Key, Path]) -> dict[Key, Trials]:
    """The trained ones, in order, with latencies from the cost model that all runs share."""
    from pipeline.costs.known_costs import known_costs
    from pipeline.run import RunDirectory
    from pipeline.search import load_inputs

    opened = {key: RunDirectory.open(path) for key, path in runs.items()}
    if len({hashlib.sha256(run.cost_model.read_bytes()).hexdigest() for run in opened.values()}) > 1:
        raise SystemExit("the runs keep different cost models: calibrate once, then use another --keep")
    first = next(iter(opened.values()))
    data, space = load_inputs(first.config, str(first.path))
    known = known_costs(first, data, space, begun=True)
    assert known is not None
    found: dict[Key, Trials] = {}
    for key, run in opened.items():
        journal = run.open_journal(read_only=True)
        records = [record for record in journal.trials() if record.status == "ok"]
        journal.close()
        ms = known.costs([record.architecture for record in records])[:, 0].tolist()
        found[key] = [
            _Trial(1.0 - record.objectives["accuracy"], each, record.elapsed_s, record.seconds)
            for record, each in zip(records, ms, strict=True)
        ]
    return found


def _times(trials: dict[Key, Trials]) -> list[float]:
    """A quarter, a half, three quarters and all of the time that the shortest search took."""
    shortest = min(rows[-1].at_s for rows in trials.values())
    return [round(shortest * share, 1) for share in (0.25, 0.5, 0.75, 1.0)]


def _share(rows: Trials, unit: str, place: float, box: dict[str, float]) -> float:
    seen = rows[: int(place)] if unit == "trials" else [trial for trial in rows if trial.at_s <= place]
    return volume([trial.error for trial in seen], [trial.ms for trial in seen], box)


def _show(unit: str, places: list[float], shares: dict[Key, list[float]], arguments: argparse.Namespace) -> None:
    seeds = list(seeds_of(arguments))
    of = {name: np.array([shares[name, seed] for seed in seeds]) for name in arguments.strategies}
    rows = []
    for name, found in of.items():
        spread = found.std(axis=0, ddof=1) if len(seeds) >= _LEAST_SEEDS else np.full(len(places), np.nan)
        words = [f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=0), spread, strict=True)]
        heads = [f"@{place:g} {unit}" for place in places]
        rows.append({"hypervolume": name, **dict(zip(heads, words, strict=True))})
    print()
    table(rows)
    for name in arguments.strategies[1:]:
        if len(seeds) < _LEAST_SEEDS:
            break
        lead = of[arguments.strategies[0]] - of[name]
        leads = [f"{mean:+.3f} ({low:+.3f} to {high:+.3f})" for mean, low, high in mean_with_interval(lead).T]
        for place, told in zip(places, leads, strict=True):
            what = f"{arguments.strategies[0]} less {name} @{place:g} {unit}"
            summary(what, told, "an interval above 0")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser, seeds=3, final_epochs=1)
    parser.set_defaults(images=3000, validation_images=3000, trials=40, width=8)
    parser.add_argument(
        "--strategies", nargs="+", default=list(_STRATEGIES), help="the first is set against the others"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
