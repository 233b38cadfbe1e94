"""Searches that stop trainings early against one that doesn't: trials, epochs, hypervolume at equal cost.

Small networks are trained on the digits (or on a part of Fashion-MNIST: `--data fashion_mnist`, read from
$HWNAS_SHARED) within this process, in one thread. A search ends when it spent `--trials` × `--epochs` epochs; one that
stops trainings early so gets more trials. A last trial that ends beyond these epochs doesn't count, in any figure.

First random search: `--networks` are trained whole, once, and `--replays` searches take them in random orders, which is
exact, because a rule only decides where a training ends; it says nothing of other networks. Then real searches with
`--strategies`, from `--seeds`, which differ in the rule alone.

The hypervolume is of the recorded accuracies, a stopped trial's being that of its last epoch, and of log(MACs), as a
share of what all searches of all rules found together; behind it is the mean difference to `none`, which is paired,
with its 95 % interval over replays or seeds.
"""

import random
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from common import SHARED, summary, table
from networks import distinct_architectures
from options import Options, at_least_one, begin, option, positive
from scipy.stats import spearmanr
from searches import config_of, direct_engine, strategy_on

from pipeline.bench.summary import mean_with_interval
from pipeline.config.evaluator import StoppingOptions
from pipeline.config.run import RunConfig
from pipeline.engines.direct import DirectEngine
from pipeline.engines.trial import TrialRunner
from pipeline.evaluators.learning_curve import LearningCurve
from pipeline.evaluators.stopping_rules import verdict
from pipeline.spaces.base import Architecture
from pipeline.trials.journal import Journal
from pipeline.trials.objectives import hypervolume
from pipeline.trials.result import TrialResult, is_stopped

RULES = ("none", "median", "halving")
"""Rules as they are by default; with `--first` also those that speak later, as in `halving:3`."""
WORST_ERROR = 0.5
"""The reference point's; its costs are the largest found."""


@dataclass(frozen=True)
class Search:
    """One search's trials.

    Attributes:
        accuracies: (trials,) as recorded.
        macs: (trials,).
        epochs: (trials,) spent until a trial had ended.
        seconds: likewise, of the processor's time.
        stopped: (trials,) whether they were.
    """

    accuracies: Any
    macs: Any
    epochs: Any
    seconds: Any
    stopped: Any

    def within(self, epochs: int) -> Self:
        """Without a trial that ended when more epochs were spent: so much no other search had."""
        kept = self.epochs <= epochs
        columns = (self.accuracies, self.macs, self.epochs, self.seconds, self.stopped)
        return type(self)(*(column[kept] for column in columns))

    def volume(self, known: Any, reference: Any, low: Any) -> float:
        """Hypervolume of the trials that `known` (trials,) selects, each axis scaled to 1."""
        losses = np.column_stack([1 - self.accuracies, np.log(self.macs)])[known]
        return hypervolume((losses - low) / (reference - low), np.ones(2))


def stopping(label: str) -> dict[str, Any]:
    """The config's section of a rule's label."""
    rule, _, first = label.partition(":")
    return {"rule": rule, "first": int(first or 1)}


def search_config(rule: str, strategy: str, seed: int, settings: Options) -> RunConfig:
    """A search's config; its budget is counted in epochs, see `run`."""
    data: dict[str, Any] = {"name": "digits"}
    if settings.data == "fashion_mnist":
        sizes = {"train_samples": settings.images, "validation_samples": 1000, "image_size": 14}
        data = {"name": "fashion_mnist", "root": str(SHARED / "data"), **sizes}
    space = {"name": "convnet", "stages": 2, "width": 8, "depths": [1, 2], "activation_scope": "network"}
    return config_of(
        settings.trials,
        seed=seed,
        data=data,
        space={**space, "activations": ["relu", "silu"]},
        strategy={"name": strategy},
        evaluator={"name": "train", "epochs": settings.epochs, "stopping": stopping(rule)},
        train={"learning_rate": 0.008, "batch_size": 128},
        objectives=["accuracy", "macs"],
        budget={"trials": settings.trials * settings.epochs, "minutes": 10_000},
    )


def run(config: RunConfig, epochs: int) -> Search:
    """One search that ends when it spent so many epochs."""
    runner = TrialRunner(config)
    spent: list[tuple[int, float]] = [(0, 0.0)]

    class Engine(DirectEngine):
        def budget_available(self) -> bool:
            return spent[-1][0] < epochs and super().budget_available()

    def judge(architecture: Architecture) -> TrialResult:
        began = time.process_time()
        result = runner.run(architecture, lambda *_: None)
        runner.add_peers([{"curve": result.details["curve"], "objectives": result.objectives}])
        runner.learn([{"architecture": architecture, **asdict(result)}])
        done, seconds = spent[-1]
        spent.append((done + len(result.details["curve"]), seconds + time.process_time() - began))
        return result

    journal = Journal.in_memory()
    strategy_on(config, runner.space)(direct_engine(config, runner.space, journal, judge, kind=Engine))
    records = journal.trials()
    columns = [np.array([record.objectives[name] for record in records]) for name in ("accuracy", "macs")]
    done, seconds = (np.array(column) for column in zip(*spent[1:], strict=True))
    stopped = np.array([is_stopped(record.details) for record in records])
    return Search(*columns, done, seconds, stopped).within(epochs)


def trained(config: RunConfig, count: int) -> list[tuple[LearningCurve, float]]:
    """Random networks trained whole: curve with its cost, seconds of the processor's time."""
    runner = TrialRunner(config)
    found = []
    for number, architecture in enumerate(distinct_architectures(runner.space, random.Random(0), count), 1):
        began = time.process_time()
        result = runner.run(architecture, lambda *_: None)
        curve = LearningCurve(tuple(result.details["curve"]), (result.objectives["macs"],))
        found.append((curve, time.process_time() - began))
        if number % 10 == 0:
            print(f"  {number} of {count} networks trained", flush=True)
    return found


def replay(rule: str, whole: list[tuple[LearningCurve, float]], order: Any, epochs: int) -> Search:
    """Random search over networks whose curves are known, in one order, until the epochs are spent."""
    options, peers, spent = StoppingOptions(**stopping(rule)), [], [(0, 0.0)]
    for place in order:
        curve, seconds = whole[place]
        total = len(curve.accuracies)
        for epoch in range(1, total + 1):
            own = LearningCurve(curve.accuracies[:epoch], curve.costs)
            if verdict(options, own, peers, total) is not None:
                break
        peers.append(own)
        spent.append((spent[-1][0] + epoch, spent[-1][1] + seconds * epoch / total))
        if spent[-1][0] >= epochs:
            break
    done, seconds_spent = (np.array(column) for column in zip(*spent[1:], strict=True))
    columns = np.array([[peer.accuracies[-1], peer.costs[0]] for peer in peers]).T
    stopped = np.array([len(peer.accuracies) < total for peer in peers])
    return Search(*columns, done, seconds_spent, stopped).within(epochs)


def agreement(whole: list[tuple[LearningCurve, float]]) -> str:
    """Rank correlation (Spearman) of the accuracy after each epoch with that after the last."""
    curves = np.array([curve.accuracies for curve, _ in whole])
    found = [spearmanr(curves[:, epoch], curves[:, -1]).statistic for epoch in range(curves.shape[1] - 1)]
    return ", ".join(f"{value:.2f}" for value in found)


def rows_of(rules: list[str], searches: dict[tuple[str, int], Search], epochs: int, seeds: int) -> list[dict[str, str]]:
    """Rows of a table, one a rule: means over seeds."""
    points = np.vstack([np.column_stack([1 - s.accuracies, np.log(s.macs)]) for s in searches.values()])
    low, reference = points.min(axis=0), np.array([WORST_ERROR, points[:, 1].max() + 1e-9])
    together = Search(1 - points[:, 0], np.exp(points[:, 1]), *[np.zeros(len(points))] * 3)
    whole = together.volume(np.full(len(points), True), reference, low)

    def shares(rule: str, column: str, limits: list[float]) -> Any:
        found = [searches[rule, seed] for seed in range(seeds)]
        known = [getattr(s, column) <= limit for s, limit in zip(found, limits, strict=True)]
        return np.array([s.volume(k, reference, low) / whole for s, k in zip(found, known, strict=True)])

    fastest = [min(searches[rule, seed].seconds[-1] for rule in rules) for seed in range(seeds)]
    rows = []
    for rule in rules:
        found = [searches[rule, seed] for seed in range(seeds)]
        row = {
            "rule": rule,
            "trials": _mean([len(s.macs) for s in found]),
            "stopped": _mean([s.stopped.sum() for s in found]),
        }
        row["best accuracy"] = f"{np.mean([s.accuracies.max() for s in found]):.4f}"
        row["seconds"] = _mean([s.seconds[-1] for s in found])
        for name, column, limits in (
            ("at 1/3 of the epochs", "epochs", [epochs / 3] * seeds),
            ("at all epochs", "epochs", [float(epochs)] * seeds),
            ("at equal seconds", "seconds", fastest),
        ):
            here, plain = shares(rule, column, limits), shares("none", column, limits)
            row[name] = f"{here.mean():.3f}"
            if rule != "none":
                row[name] += f" ({_interval(here - plain)})"
        rows.append(row)
    return rows


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.1f}"


def _interval(differences: Any) -> str:
    """Mean and the half width of its 95 % interval."""
    mean, _, high = mean_with_interval(differences)
    return f"{mean:+.3f}" if np.isnan(high) else f"{mean:+.3f} ± {high - mean:.3f}"


def main() -> None:
    settings = begin(
        __doc__,
        option("--data", "digits", choices=("digits", "fashion_mnist")),
        positive("--images", 2000, "of Fashion-MNIST"),
        positive("--networks", 45, "to be replayed"),
        positive("--replays", 300, "orders of them"),
        option("--first", [], "also rules that speak later", type=at_least_one, nargs="*"),
        option("--strategies", ["guided"], nargs="*"),
        positive("--trials", 14, "whole trainings' worth"),
        positive("--epochs", 9, "of a whole training"),
        positive("--seeds", 3),
    )
    torch.set_num_threads(1)
    rules = [*RULES, *(f"{rule}:{first}" for first in settings.first for rule in RULES[1:])]
    epochs = settings.trials * settings.epochs
    whole = trained(search_config("none", "random", 0, settings), settings.networks)
    print(f"rank correlation of early with last accuracies, epoch by epoch: {agreement(whole)}")
    orders = [np.random.default_rng(n).permutation(len(whole)) for n in range(settings.replays)]
    found = {(rule, n): replay(rule, whole, order, epochs) for n, order in enumerate(orders) for rule in rules}
    show(f"random, {settings.replays} orders of {len(whole)} networks", rules, found, epochs, settings.replays)
    for strategy in settings.strategies:
        searches: dict[tuple[str, int], Search] = {}
        for seed in range(settings.seeds):
            for rule in rules:
                searches[rule, seed] = one = run(search_config(rule, strategy, seed, settings), epochs)
                print(f"  {strategy} {rule} seed {seed}: {len(one.macs)} trials, {one.seconds[-1]:.0f} s", flush=True)
        show(f"{strategy}, {settings.seeds} seeds", rules, searches, epochs, settings.seeds)


def show(title: str, rules: list[str], searches: dict[tuple[str, int], Search], epochs: int, seeds: int) -> None:
    """Print the table of one strategy."""
    print(f"\n{title}, {epochs} epochs each")
    rows = rows_of(rules, searches, epochs, seeds)
    table(rows)
    for row in rows[1:]:
        figure = f"hypervolume with {row['rule']} at equal epochs, {title}"
        summary(figure, row["at all epochs"], "no less than without a rule")
    print()


if __name__ == "__main__":
    main()
