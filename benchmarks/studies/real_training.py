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

import hashlib
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

import kept_searches as kept
from common import interval, summary, table
from options import Options, option

from pipeline.bench.summary import mean_with_interval
from pipeline.costs.known_costs import known_costs
from pipeline.run import RunDirectory
from pipeline.search import load_inputs

_STRATEGIES = ("guided", "evolution", "random")
_LEAST_SEEDS = 2

Key = tuple[str, int]
_ERROR, _MS, _END_S, _SECONDS = range(4)
"""Columns of a search's trials (trials, 4): error, latency, end since the search began, duration."""


def main() -> None:
    strategies = option("--strategies", list(_STRATEGIES), "the first is set against the others", nargs="+")
    kept.study(__doc__, _compare, strategies, images=3000, validation_images=3000, trials=40, width=8)


def _compare(folder: Path, arguments: Options) -> None:
    runs: dict[Key, Path] = {}
    for seed in kept.seeds_of(arguments):
        for name in arguments.strategies:
            config = kept.config_of(arguments, f"{name}-{seed}", seed, arguments.activations)
            runs[name, seed] = kept.searched(folder, config | {"cost_model": "predict", "strategy": {"name": name}})
    trials = _trials(runs)
    every = np.concatenate([*trials.values()])
    box = kept.box_of(every[:, _ERROR], every[:, _MS])
    print(f"\nhypervolumes below {kept.box_words(box)}\n")
    for (name, seed), rows in trials.items():
        print(f"{name}-{seed}: {len(rows)} trials, {rows[:, _SECONDS].mean():.1f} s each")
    marks: dict[str, list[float]] = {
        "trials": list(range(10, arguments.trials + 1, 10)) or [arguments.trials],
        "seconds": _times(trials),
    }
    for unit, places in marks.items():
        shares = {key: [_share(rows, unit, place, box) for place in places] for key, rows in trials.items()}
        _show(unit, places, shares, arguments)


def _trials(runs: dict[Key, Path]) -> dict[Key, np.ndarray]:
    """The trained ones, in order, with latencies from the cost model that all runs share."""
    opened = {key: RunDirectory.open(path) for key, path in runs.items()}
    if len({hashlib.sha256(run.cost_model.read_bytes()).hexdigest() for run in opened.values()}) > 1:
        raise SystemExit("the runs keep different cost models: calibrate once, then use another --keep")
    first = next(iter(opened.values()))
    data, space = load_inputs(first.config, str(first.path))
    known = known_costs(first, data, space, begun=True)
    assert known is not None
    found: dict[Key, np.ndarray] = {}
    for key, run in opened.items():
        journal = run.open_journal(read_only=True)
        records = [record for record in journal.trials() if record.status == "ok"]
        journal.close()
        ms = known.costs([record.architecture for record in records])[:, 0]
        rows = [[1.0 - record.objectives["accuracy"], 0.0, record.elapsed_s, record.seconds] for record in records]
        found[key] = np.array(rows)
        found[key][:, _MS] = ms
    return found


def _times(trials: dict[Key, np.ndarray]) -> list[float]:
    """A quarter, a half, three quarters and all of the time that the shortest search took."""
    shortest = min(rows[-1, _END_S] for rows in trials.values())
    return [round(shortest * share, 1) for share in (0.25, 0.5, 0.75, 1.0)]


def _share(rows: np.ndarray, unit: str, place: float, box: dict[str, float]) -> float:
    seen = rows[: int(place)] if unit == "trials" else rows[rows[:, _END_S] <= place]
    return kept.volume(seen[:, _ERROR], seen[:, _MS], box)


def _show(unit: str, places: list[float], shares: dict[Key, list[float]], arguments: Options) -> None:
    seeds = list(kept.seeds_of(arguments))
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
        leads = [interval(mean, low, high, "+.3f") for mean, low, high in mean_with_interval(lead).T]
        for place, told in zip(places, leads, strict=True):
            what = f"{arguments.strategies[0]} less {name} @{place:g} {unit}"
            summary(what, told, "an interval above 0")


if __name__ == "__main__":
    main()
