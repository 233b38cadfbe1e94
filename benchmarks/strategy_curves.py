"""Strategies against published tables, Optuna's beside them: fronts, one objective under a limit, other tables.

Searches run as `hwnas bench` runs them and are kept in FOLDER, so this can be stopped and goes on; `--read` tells what
is there. FOLDER/CASE.yaml is each case's config, which `hwnas bench` takes as well (from within benchmarks/, where
Optuna's strategies are). The cases:

- front: NAS-Bench-201, accuracy on CIFAR-10 against the latency of six devices in turn;
- longer: the same for Optuna's TPE alone, up to 400 trials: how many it needs for what `guided` has after 50;
- limit: the best accuracy alone, with the 30th percentile of each device's latencies as a hard limit;
- cifar100: as `front`, with CIFAR-100's column;
- macro: NAS-Bench-Macro, accuracy against operations.

Means are over seeds with 95 % intervals of Student's t; each seed's mean over the devices is one value. Differences are
paired by seed and device. Of N intervals one in twenty excludes 0 by chance; so with 40 of them two do.

All strategies have their default settings, Optuna's too, but for its NSGA-II: with Optuna's population of 50 there are
four generations in 200 trials, and it is far behind what it reaches with 20.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import summary
from curve_tables import CaseFigures, cell, needed, print_case
from networks import NASBENCH201, NASBENCH201_DEVICES
from options import Options, begin, file_path, flag, option, positive, some_of

from pipeline.bench.command import run_searches, tasks_of
from pipeline.bench.config import BenchConfig, load_bench
from pipeline.bench.results import KeptResults
from pipeline.bench.run import Result, Task, Workbench
from pipeline.bench.summary import Summary
from pipeline.cli.console import TerminalReporter
from pipeline.files import locked

OPTUNA_TPE, OPTUNA_NSGA2 = "optuna_strategies:tpe", "optuna_strategies:nsga2"
STRATEGIES: list[Any] = ["guided", OPTUNA_TPE, "local_search", "nsga2", "random"]
STRATEGIES += [{"name": OPTUNA_NSGA2, "population": 20}, "evolution", "tpe", "bayesian", "controller"]
NUMBERS = [25, 50, 100, 200]
_LONGEST, _TOLD_AT = 400, 50
_WANTED = {25: 0.92, 50: 0.965, 100: 0.98, 200: 0.99}
_FACTOR = 2.5


def main() -> None:
    about = "names, or YAML mappings with options; the first one is compared with"
    arguments = begin(
        __doc__,
        file_path("--keep", required=True, text="folder of the results; not in the project"),
        positive("--seeds", 20),
        option("--fewer", [], "for slow strategies", nargs="+", metavar="STRATEGY=SEEDS"),
        flag("--read", "run nothing, tell what is kept"),
        some_of("--cases", _cases(1, [])),
        option("--strategies", STRATEGIES, about, nargs="+", type=yaml.safe_load),
    )
    configs = _cases(arguments.seeds, arguments.strategies)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    cases = {}
    for name in arguments.cases:
        path = arguments.keep / f"{name}.yaml"
        path.write_text(yaml.safe_dump(configs[name], sort_keys=False), encoding="utf-8")
        config = load_bench(path, [])
        results = _results(config, path, arguments)
        if results:
            cases[name] = _figures_of(config, results)
            print_case(name, cases[name])
    _judge(cases)
    document = {name: each.document for name, each in cases.items()}
    (arguments.keep / "curves.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(f"\nas JSON: {arguments.keep / 'curves.json'}")


def _cases(seeds: int, strategies: list[Any]) -> dict[str, dict[str, Any]]:
    """Configs of benchmarks. All strategies have the default settings everywhere."""
    table = {"name": "table", "path": str(NASBENCH201), "key": "arch_str"}
    front = {
        "space": {"name": "nasbench201"},
        "evaluator": {**table, "accuracy": "cifar10_test_200", "scale": 0.01},
        "strategies": strategies,
        "seeds": seeds,
        "report_at": NUMBERS,
        "devices": list(NASBENCH201_DEVICES),
        "objectives": ["accuracy", "latency_ms"],
    }
    limit = {"objectives": ["accuracy"], "limit_percentiles": {"latency_ms": 30}, "final": {"pick": "most-accurate"}}
    macro = {
        "space": {"name": "table", "choices": 8, "alternatives": [0, 1, 2]},
        "evaluator": {**table, "path": str(NASBENCH201.with_name("nasbench_macro.csv.gz")), "key": "arch"},
        "objectives": ["accuracy", "macs"],
        "devices": ["flops"],
    }
    macro["evaluator"] |= {"accuracy": "mean_acc", "scale": 0.01}
    return {
        "front": front,
        "longer": {**front, "strategies": [OPTUNA_TPE], "report_at": [*NUMBERS, _LONGEST]},
        "limit": {**front, **limit},
        "cifar100": {**front, "evaluator": {**front["evaluator"], "accuracy": "cifar100_test_200"}},
        "macro": {**front, **macro},
    }


def _results(config: BenchConfig, path: Path, arguments: Options) -> dict[Task, Result]:
    """All that is kept or can be had; a stop leaves strategies that are equally far."""
    fewer = {name: int(seeds) for name, _, seeds in (each.partition("=") for each in arguments.fewer)}
    labels, kept = config.labels(), KeptResults(path.with_suffix(""), config)
    tasks = [task for task in tasks_of(config) if task.seed < fewer.get(labels[task.strategy], config.seeds)]
    with locked(kept.path), closing(TerminalReporter()) as reporter:
        if arguments.read:
            return kept.read(tasks_of(config))
        return run_searches(Workbench(config, str(path)), str(path), tasks, kept, 1, reporter)


def _figures_of(config: BenchConfig, results: dict[Task, Result]) -> CaseFigures:
    """The figures of those seeds that have all devices, and of strategies with any of these."""
    whole = {
        (number, seed)
        for number, seed in {(task.strategy, task.seed) for task in results}
        if all(Task(number, device, seed) in results for device in config.columns())
    }
    there = [number for number in range(len(config.strategies)) if any(n == number for n, _ in whole)]
    chosen = config.model_copy(update={"strategies": [config.strategies[number] for number in there]})
    moved = {
        Task(there.index(task.strategy), task.device, task.seed): result
        for task, result in results.items()
        if (task.strategy, task.seed) in whole
    }
    seeds = [sum(n == number for n, _ in whole) for number in there]
    return CaseFigures(chosen, Summary(chosen, moved), dict(zip(chosen.labels(), seeds, strict=True)))


def _judge(cases: dict[str, CaseFigures]) -> None:
    """One line for each figure that there is a goal for; the first strategy is `guided` unless it was left out."""
    print()
    if "front" in cases:
        row = cases["front"].row("guided")
        for n, wanted in _WANTED.items():
            if row:
                found = row["hypervolume"][str(n)]
                summary(f"front: guided after {n} trials", cell(found, "hypervolume", digits=4), f">= {wanted:g}")
    if "front" in cases and "longer" in cases and cases["front"].row("guided"):
        at = needed(cases["front"], "guided", cases["longer"], OPTUNA_TPE, _TOLD_AT, _LONGEST)
        summary("front: trials of Optuna's TPE for what guided has after 50, over 50", at, f">= {_FACTOR:g}")
    if "limit" in cases:
        _better(cases["limit"], "limit", "regret", NUMBERS, "none with a lower regret")
    for name in ("cifar100", "macro"):
        if name in cases:
            _better(cases[name], name, "hypervolume", [50, 100], "none with a higher mean")


def _better(figures: CaseFigures, case: str, kind: str, numbers: list[int], goal: str) -> None:
    """Print which strategies are better than the first strategy: in the mean, and beyond the paired interval."""
    sign = -1 if kind == "regret" else 1
    for n in numbers:
        rows = [(row["strategy"], row[kind][str(n)]) for row in figures.overall_comparisons()]
        better = [name for name, found in rows if sign * found["mean"] > 0]
        really = [name for name, found in rows if found["different"] and sign * found["mean"] > 0]
        text = f"in the mean {', '.join(better) or 'none'}; beyond the interval {', '.join(really) or 'none'}"
        summary(f"{case}: better than {figures.labels[0]} after {n} trials", text, goal)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
