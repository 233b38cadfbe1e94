"""Activations searched jointly with the architecture, against the same search with one activation fixed.

A finished study, not maintained. Found (3 seeds, 20 trials each): nothing can be told apart; hypervolumes .660 ± .051
(joint), .672 ± .110 (relu), .638 ± .068 (hardswish). See docs/activations.md.

Fashion-MNIST, the space of configs/fashion-mnist-cpu.yaml, an activation for each stage. For each seed three searches
of the same budget: all of `--activations`, relu alone, hardswish alone. Every latency is measured. When all searches
are done, the members of all fronts are timed again in one rotation, so that their latencies come from one rotation.
Printed: the fronts' hypervolumes, paired differences with a 95 % t-interval over the seeds, best accuracies, the
fastest at an accuracy that every search reached, and the activations on the joint fronts beside those that were tried.

A candidate's accuracy after a short training is a noisy figure, and the best of several flatters itself; both hold for
the three ways alike. Seeds pair the data and the recipe, not the architectures that the searches ask for.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

import kept_searches as kept
from common import summary, table
from options import Options, amount

from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter
from pipeline.bench.summary import mean_with_interval

_FIXED = ("relu", "hardswish")
_WAYS = ("joint", *_FIXED)


def main() -> None:
    text = "seconds for timing all fronts in one rotation; 0: the searches' own latencies"
    kept.study(__doc__, _compare, amount("--remeasure", 90.0, text))


def _compare(folder: Path, arguments: Options) -> None:
    runs: dict[tuple[str, int], Path] = {}
    for seed in kept.seeds_of(arguments):
        for way in _WAYS:
            names = arguments.activations if way == "joint" else [way]
            runs[way, seed] = kept.searched(folder, kept.config_of(arguments, f"{way}-{seed}", seed, names))
    trials = {key: kept.trained(run) for key, run in runs.items()}
    sitting = _one_sitting(folder, runs, trials, arguments.remeasure)
    _take_over(trials, sitting)
    fronts = {key: [trial for trial in rows if trial["on_front"]] for key, rows in trials.items()}
    every = [trial for rows in trials.values() for trial in rows]
    box = kept.box_of([_error(trial) for trial in every], [_latency(trial) for trial in every])
    print(f"\nhypervolumes below {kept.box_words(box)}")
    print(f"latencies of the fronts: {'one sitting' if sitting else 'of the searches'}")
    floor = min(max(trial["objectives"]["accuracy"] for trial in front) for front in fronts.values())
    figures = {key: _figures(front, box, floor) for key, front in fronts.items()}
    for key, run in runs.items():
        figures[key] |= {"trials": float(len(trials[key])), "trial_s": kept.seconds_per_trial(run)}
    _show(figures, floor)
    _conclude(figures, list(kept.seeds_of(arguments)))
    _show_chosen(arguments.activations, trials, fronts)


def _error(trial: dict[str, Any]) -> float:
    return 1.0 - float(trial["objectives"]["accuracy"])


def _latency(trial: dict[str, Any]) -> float:
    return float(trial["objectives"]["latency_ms"])


def _one_sitting(folder: Path, runs: dict[Any, Path], trials: dict[Any, Any], budget_s: float) -> dict[str, float]:
    """Run and trial → ms of all fronts' members, timed in one rotation, or read where that was done; empty for 0 s."""
    if budget_s <= 0:
        return {}
    members = {key: [trial for trial in rows if trial["on_front"]] for key, rows in trials.items()}
    names = [_name(key, trial) for key, rows in members.items() for trial in rows]
    file = folder / "one_sitting.json"
    if file.is_file() and sorted(found := json.loads(file.read_text())) == sorted(names):
        return dict(found)
    models = [model for key, rows in members.items() for model in kept.quick_graphs(runs[key], rows)]
    print(f"timing {len(models)} members of {len(runs)} fronts in one rotation, {budget_s:g} s", flush=True)
    with LatencyMeter(Device()) as meter:
        times, ratios = kept.timed_together(meter, models, budget_s)
    measured = dict(zip(names, times, strict=True))
    print(f"median half-width of an interval {np.median([ratio.half_width for ratio in ratios[1:]] or [0]):.2%}")
    file.write_text(json.dumps(measured, indent=1))
    return measured


def _name(key: tuple[str, int], trial: dict[str, Any]) -> str:
    return f"{key[0]}-{key[1]}/{trial['id']}"


def _take_over(trials: dict[tuple[str, int], list[dict[str, Any]]], sitting: dict[str, float]) -> None:
    """The new latencies in place of the searches' own; which trials are the front's stays as the search saw it."""
    for key, rows in trials.items():
        for trial in rows:
            if (name := _name(key, trial)) in sitting:
                trial["objectives"]["latency_ms"] = sitting[name]


def _figures(front: list[dict[str, Any]], box: dict[str, float], floor: float) -> dict[str, float]:
    errors, latencies = [_error(trial) for trial in front], [_latency(trial) for trial in front]
    return {
        "hypervolume": kept.volume(errors, latencies, box),
        "hypervolume_log": kept.volume(errors, latencies, box, log=True),
        "members": float(len(front)),
        "best_accuracy": 1.0 - min(errors),
        "fastest_ms": min(latencies),
        "fastest_at_floor_ms": min(_latency(t) for t in front if t["objectives"]["accuracy"] >= floor),
    }


def _show(figures: dict[tuple[str, int], dict[str, float]], floor: float) -> None:
    print()
    table(
        {
            "search": f"{way}-{seed}",
            "trained": f"{row['trials']:.0f}",
            "s a trial": f"{row['trial_s']:.1f}",
            "front": f"{row['members']:.0f}",
            "hypervolume": f"{row['hypervolume']:.4f}",
            "by log latency": f"{row['hypervolume_log']:.4f}",
            "best accuracy": f"{row['best_accuracy']:.4f}",
            "fastest, ms": f"{row['fastest_ms']:.4g}",
            f"fastest at {floor:.4f}, ms": f"{row['fastest_at_floor_ms']:.4g}",
        }
        for (way, seed), row in figures.items()
    )
    print()


def _conclude(figures: dict[tuple[str, int], dict[str, float]], seeds: list[int]) -> None:
    for way in _WAYS:
        values = np.array([figures[way, seed]["hypervolume"] for seed in seeds])
        spread = f" ± {values.std(ddof=1):.4f} (sd of {len(seeds)} seeds)" if len(seeds) > 1 else " (one seed)"
        summary(f"hypervolume of {way}", f"{values.mean():.4f}{spread}", "joint's the largest")
    for name in ("hypervolume", "hypervolume_log", "best_accuracy", "fastest_at_floor_ms"):
        for way in _FIXED:
            pairs = [figures["joint", seed][name] - figures[way, seed][name] for seed in seeds]
            interval = mean_with_interval(np.array(pairs))[1:].tolist() if len(pairs) > 1 else None
            listed = ", ".join(f"{value:+.4f}" for value in pairs)
            better = -1.0 if name.endswith("_ms") else 1.0
            goal = "above 0" if better > 0 else "below 0"
            summary(f"{name}, joint − {way}", f"{listed}: {_verdict(pairs, interval, better, way)}", goal)


def _verdict(values: list[float], interval: list[float] | None, better: float, way: str) -> str:
    mean = float(np.mean(values))
    if interval is None:
        return f"{mean:+.4f}, no interval from one seed"
    low, high = interval
    told = f"mean {mean:+.4f} ({low:+.4f} to {high:+.4f})"
    if low <= 0.0 <= high:
        return f"{told}, the two can't be told apart"
    return f"{told}, {'joint' if better * mean > 0 else f'{way} alone'} is better"


def _show_chosen(activations: list[str], trials: dict[Any, Any], fronts: dict[Any, Any]) -> None:
    """How often each activation stands at a place of a joint front, beside how often the joint searches tried it."""
    joint = [key for key in trials if key[0] == "joint"]
    on_fronts, tried = (
        Counter(name for key in joint for trial in of[key] for name in kept.places(trial).values())
        for of in (fronts, trials)
    )
    ordered = sorted(activations, key=lambda name: -on_fronts[name])
    print()
    table(
        {
            "activation": name,
            "places on joint fronts": f"{on_fronts[name]} ({on_fronts[name] / on_fronts.total():.0%})",
            "places in all trained": f"{tried[name]} ({tried[name] / tried.total():.0%})",
        }
        for name in ordered
    )
    for key in joint:
        for trial in fronts[key]:
            where = ", ".join(f"{place} {name}" for place, name in kept.places(trial).items())
            print(f"  {_name(key, trial)}: {trial['objectives']['accuracy']:.4f}, {_latency(trial):.4g} ms, {where}")
    listed = ", ".join(f"{name} {on_fronts[name] / on_fronts.total():.0%}" for name in ordered if on_fronts[name])
    summary("activations on the joint fronts, share of places", listed, "told")


if __name__ == "__main__":
    main()
