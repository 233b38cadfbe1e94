"""Latency of every NAS-Bench-201 network on six devices, predicted from a few whole nets.

For each device and number of measured nets: Spearman's rank correlation over all nets that were not measured, and
the share of them predicted within ±10 %, as mean ± standard deviation over seeds. Beside the model of
`latency_models.predictors.feature_model`: FLOPs and parameters alone, linear models over several sets of features
(ridge with cross-validated strength, in ms and in log ms), gradient boosting and random forest over all features.
The linear models are fitted both to the chosen nets that ours gets and to random ones, the others to random ones.
"Best linear" is the best of them all for each device and number, looked up
afterwards: no user could have chosen so well.
"""

import csv
import gzip
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from common import summary, table
from networks import NASBENCH201, NASBENCH201_DEVICES
from options import begin, positive, some_of
from scipy.stats import spearmanr
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import RidgeCV

from latency_models.predictors.feature_model import FeatureModel
from latency_models.predictors.herding import representative_subset
from pipeline.spaces.nasbench201_features import FEATURE_GROUPS, features, parse

_COUNTS = (20, 50, 100)
_OURS, _OURS_RANDOM = "feature model", "feature model, random nets"
_LINEAR = {
    "operators": ("operators",),
    "edges": ("edges",),
    "operators + used": ("operators", "used operators"),
    "kept": ("kept operators",),
    "all features": tuple(group.name for group in FEATURE_GROUPS),
}
_GOALS = {20: 0.94, 100: 0.975}
_DEVICE_GOALS = {"edgegpu_ms": {20: 0.80, 100: 0.95}, "raspi4_ms": {20: 0.92, 100: 0.95}}
_LINEAR_MARGIN = 0.005

Key = tuple[str, str, int]
Score = tuple[float, float, float]
"""Of one seed: Spearman's correlation, the share within ±10 %, the share within the 90 % intervals (NaN without)."""
Scores = dict[Key, list[Score]]
"""By method, device and number of nets."""


def main() -> None:
    arguments = begin(__doc__, some_of("--devices", NASBENCH201_DEVICES), positive("--seeds", 20))
    data = _Table(arguments.devices)
    found: Scores = defaultdict(list)
    seconds: list[tuple[float, float]] = []
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        for scores, took in pool.map(_one_seed, [data] * arguments.seeds, range(arguments.seeds)):
            for key, score in scores.items():
                found[key].append(score)
            seconds += took
    for device in arguments.devices:
        _print_device(device, found)
    _print_goals(arguments.devices, found)
    fit, predict = np.median(np.array(seconds), axis=0)
    print(f"\nfitting to 100 nets takes {fit:.2f} s, predicting {len(data.columns)} takes {predict:.2f} s (medians)")


class _Table:
    """The table's columns as arrays over all nets."""

    def __init__(self, devices: list[str]) -> None:
        with gzip.open(NASBENCH201, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.columns = features([parse(row["arch_str"]) for row in rows])
        self.latency_ms = {device: np.array([float(row[device]) for row in rows]) for device in devices}
        self.flops, self.params = (
            np.array([[float(row[name])] for row in rows]) for name in ("flops_m_cifar10", "params_m_cifar10")
        )
        ends = np.cumsum([group.columns for group in FEATURE_GROUPS])
        self._of = {
            group.name: range(end - group.columns, end) for group, end in zip(FEATURE_GROUPS, ends, strict=True)
        }
        self.standardised = {name: self._standardised(groups) for name, groups in _LINEAR.items()}

    def _standardised(self, names: tuple[str, ...]) -> np.ndarray:
        """The groups' columns with zero mean and unit variance over the space."""
        chosen = self.columns[:, [column for name in names for column in self._of[name]]]
        return (chosen - chosen.mean(axis=0)) / np.maximum(chosen.std(axis=0), 1e-12)


def _one_seed(data: _Table, seed: int) -> tuple[dict[Key, Score], list[tuple[float, float]]]:
    """Scores, and seconds of fitting our model to the most nets and of predicting all."""
    found: dict[Key, Score] = {}
    seconds: list[tuple[float, float]] = []
    chosen = representative_subset(data.columns, FEATURE_GROUPS, max(_COUNTS), seed=seed)
    drawn = np.random.default_rng(seed).permutation(len(data.columns))[: max(_COUNTS)]
    for device, latency_ms in data.latency_ms.items():
        for count in _COUNTS:
            for name, picked in ((_OURS, chosen[:count]), (_OURS_RANDOM, drawn[:count])):
                began = time.perf_counter()
                model = FeatureModel.fit(data.columns[picked], latency_ms[picked], FEATURE_GROUPS)
                fitted = time.perf_counter()
                predicted = model.predict(data.columns)
                if count == max(_COUNTS):
                    seconds.append((fitted - began, time.perf_counter() - fitted))
                inside = (predicted.low_ms <= latency_ms) & (latency_ms <= predicted.high_ms)
                score = _score(predicted.latency_ms, latency_ms, picked)
                found[name, device, count] = (*score, float(np.delete(inside, picked).mean()))
            for name, predict in _others(data, seed):
                samples = {name: drawn[:count]}
                if name.startswith("linear"):
                    samples[f"{name}, chosen nets"] = chosen[:count]
                for label, picked in samples.items():
                    score = _score(predict(picked, latency_ms), latency_ms, picked)
                    found[label, device, count] = (*score, float("nan"))
    return found, seconds


def _mean(found: Scores, name: str, device: str, count: int, what: int = 0) -> float:
    return float(np.mean([score[what] for score in found[name, device, count]]))


def _others(data: _Table, seed: int) -> Iterator[tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]]:
    """Name and `predict(indices of measured nets, latencies of all)` → latencies of all."""
    yield "FLOPs", lambda picked, ms: _linear(data.flops, picked, ms, log=False)
    yield "parameters", lambda picked, ms: _linear(data.params, picked, ms, log=False)
    for name, columns in data.standardised.items():
        for unit, log in (("ms", False), ("log", True)):
            yield (
                f"linear in {unit}: {name}",
                lambda picked, ms, columns=columns, log=log: _linear(columns, picked, ms, log=log),
            )
    everything = data.standardised["all features"]
    for name, trees in (
        ("gradient boosting", lambda: GradientBoostingRegressor(random_state=seed)),
        ("random forest", lambda: RandomForestRegressor(100, random_state=seed)),
    ):
        yield (
            name,
            lambda picked, ms, trees=trees: np.exp(
                trees().fit(everything[picked], np.log(ms[picked])).predict(everything)
            ),
        )


def _linear(columns: np.ndarray, picked: np.ndarray, latency_ms: np.ndarray, *, log: bool) -> np.ndarray:
    target = np.log(latency_ms[picked]) if log else latency_ms[picked]
    found = RidgeCV(np.logspace(-4, 3, 15)).fit(columns[picked], target).predict(columns)
    return np.exp(np.minimum(found, 30.0)) if log else found


def _score(found_ms: np.ndarray, latency_ms: np.ndarray, picked: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation and the share within ±10 %, over the nets that were not measured."""
    found_ms, latency_ms = np.delete(found_ms, picked), np.delete(latency_ms, picked)
    near = float((np.abs(found_ms / latency_ms - 1.0) <= 0.1).mean())
    return float(spearmanr(found_ms, latency_ms)[0]), near


def _print_device(device: str, found: Scores) -> None:
    rows = []
    for name in dict.fromkeys(name for name, _, _ in found):
        row = {device: name}
        for count in _COUNTS:
            scores = np.array(found[name, device, count])
            row[f"Spearman @{count}"] = f"{scores[:, 0].mean():.4f} ± {scores[:, 0].std():.4f}"
            row[f"±10 % @{count}"] = f"{scores[:, 1].mean():.1%}"
        rows.append(row)
    table(rows)
    shares = (f"{_mean(found, _OURS, device, count, 2):.1%} @{count}" for count in _COUNTS)
    print(f"90 % intervals hold {', '.join(shares)}\n", flush=True)


def _print_goals(devices: list[str], found: Scores) -> None:
    for count in _COUNTS:
        ranks, near = (np.mean([_mean(found, _OURS, device, count, what) for device in devices]) for what in (0, 1))
        goal = f">= {_GOALS[count]}" if count in _GOALS else "none set"
        summary(f"mean Spearman, {count} nets", f"{ranks:.4f}, within ±10 % {near:.1%}", goal)
    for device in sorted(_DEVICE_GOALS.keys() & set(devices)):
        for count, least in _DEVICE_GOALS[device].items():
            rank, share = (_mean(found, _OURS, device, count, what) for what in (0, 1))
            summary(f"Spearman on {device}, {count} nets", f"{rank:.4f}, within ±10 % {share:.1%}", f">= {least}")
    _print_margin(devices, found)
    _print_coverage(devices, found)


def _print_margin(devices: list[str], found: Scores) -> None:
    """How far the model falls behind the best linear one, where it does."""
    linear = [name for name in dict.fromkeys(name for name, _, _ in found) if name.startswith("linear")]
    rows = []
    margins = {}
    for device in devices:
        for count in _COUNTS:
            best = max(linear, key=lambda name: _mean(found, name, device, count))
            theirs, ours = _mean(found, best, device, count), _mean(found, _OURS, device, count)
            margins[f"{device} @{count}"] = ours - theirs
            shown = {"nets": str(count), "ours": f"{ours:.4f}", "best linear": f"{theirs:.4f}", "which": best}
            rows.append({"device": device, **shown})
    table(rows)
    worst = min(margins, key=lambda key: margins[key])
    summary("least margin over the best linear model", f"{margins[worst]:+.4f} ({worst})", f">= -{_LINEAR_MARGIN}")


def _print_coverage(devices: list[str], found: Scores) -> None:
    shares = {f"{device} @{n}": _mean(found, _OURS, device, n, 2) for device in devices for n in _COUNTS}
    told = f"{np.mean(list(shares.values())):.1%} overall, {min(shares.values()):.1%} to {max(shares.values()):.1%}"
    outside = [f"{name} {share:.1%}" for name, share in shares.items() if not 0.85 <= share <= 0.95]
    summary("90 % intervals hold", told + (f"; outside: {', '.join(outside)}" if outside else ""), "85 to 95 %")


if __name__ == "__main__":
    main()
