"""The search of the NAS-Bench-201 paper, against its published figures: are ours the real algorithms?

A finished study, not maintained. Found: random 93.775 ± .027 and evolution 94.090 ± .024 (500 seeds), controller
94.089 ± .124 (20 seeds): the real algorithms. See docs/bench.md.

    python benchmarks/studies/published_search.py --keep FOLDER [--seeds 500] [--strategies random …] [--trials 1000]

A strategy sees the validation accuracy after 12 epochs, and nothing of costs. Every architecture takes the seconds that
its 12 epochs took; when 12,000 s are spent, the one with the best accuracy seen is scored by its test accuracy after
200 epochs. With `--trials` searches go on until then, and are scored there, too. Finished searches are kept in FOLDER.

Dong & Yang (NAS-Bench-201, ICLR 2020) report, as means and standard deviations of 500 runs, 93.70 ± 0.36 for random
search, 93.92 ± 0.30 for regularized evolution and 93.85 ± 0.37 for REINFORCE. There a known architecture that is asked
for again is paid for again; here it is answered from the journal and costs nothing, as in any search of hwnas. NNI's
`random` and `evolution` ask for none again. `controller` is paid from memory for those that it samples again.

Differences are against the first strategy with the same seed, with 95 % intervals of Student's t.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

from common import SHARED, at_least_one, heading, summary, table

from pipeline.bench.results import code_digest
from pipeline.bench.summary import mean_with_interval
from pipeline.config.file import parse_config
from pipeline.config.space import NasBench201Options
from pipeline.engines.direct import DirectEngine
from pipeline.evaluators.lookup import read_table
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.strategies.make import strategy_of
from pipeline.strategies.problem import Problem
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.spaces.base import Value

_TABLE = SHARED / "data" / "nasbench201.csv.gz"
_SEEN, _FINAL, _SECONDS = "cifar10_valid_12", "cifar10_test_200", "train_s_12"
_BUDGET_S = 12_000.0
_RANDOM, _WITHIN = 93.73, 0.06
_EXPECTED_TRIALS = 100
"""So many fit into the budget, about; what `evolution` makes its population from."""


@dataclass
class Search:
    """A search that is going on.

    Attributes:
        spent_s: seconds of training so far.
        best: row of the table with the best accuracy seen, -1 before the first.
        trials: how many.
        scores: number of trials, or `time` → final score there, in per cent.
    """

    spent_s: float = 0.0
    best: int = -1
    trials: int = 0
    scores: dict[str, float] = field(default_factory=dict)


class Published:
    """The table, and searches in it."""

    def __init__(self, path: Path) -> None:
        columns = {_SEEN: "accuracy", _FINAL: "accuracy", _SECONDS: "costs"}
        read = read_table(path, "arch_str", columns)
        self._rows, self._columns = read.rows, {name: values.tolist() for name, values in read.columns.items()}
        self._space = NasBench201Space(NasBench201Options(name="nasbench201"), (3, 32, 32), 10)

    @cached_property
    def _model_space(self) -> Any:
        return SimplifiedModelSpace.from_model(self._space.model_space())

    def search(self, section: dict[str, Any], seed: int, trials: int | None) -> Search:
        """Until the time is spent, and so many trials are done; scored at both."""
        config = parse_config(
            {
                "data": {"name": "digits"},
                "space": {"name": "nasbench201"},
                "strategy": section,
                "seed": seed,
                "budget": {"trials": 10**6, "minutes": 1e6},
            },
            "the benchmark's config",
        ).model_copy(update={"objectives": ["accuracy"]})
        state = Search()
        journal = Journal.in_memory(config.objectives)

        class Engine(DirectEngine):
            def budget_available(self) -> bool:
                more = state.spent_s < _BUDGET_S or (trials is not None and state.trials < trials)
                return more and super().budget_available()

        def judge(architecture: Mapping[str, Value]) -> TrialResult:
            return self._judge(state, architecture, trials)

        options = config.strategy.resolved(trials=_EXPECTED_TRIALS, pick="most-accurate")
        problem = Problem(self._space, seed, ("accuracy",))
        strategy = strategy_of(options, problem)
        strategy(self._model_space, Engine(config, self._space, journal, Budget(config.budget, []), Reporter(), judge))
        journal.close()
        return state

    def _judge(self, state: Search, architecture: Mapping[str, Value], trials: int | None) -> TrialResult:
        row = self._rows[self._space.key(architecture)]
        seen = self._columns[_SEEN]
        before = state.spent_s
        state.spent_s += self._columns[_SECONDS][row]
        state.trials += 1
        if state.best < 0 or seen[row] > seen[state.best]:
            state.best = row
        if before < _BUDGET_S <= state.spent_s:
            state.scores["time"] = self._columns[_FINAL][state.best]
            state.scores["trials at that time"] = state.trials
        if state.trials == trials:
            state.scores[str(trials)] = self._columns[_FINAL][state.best]
        return TrialResult("ok", {"accuracy": seen[row] / 100})


def main() -> None:
    """Run what is missing, print the figures."""
    arguments = _arguments()
    heading(__doc__)
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    kept = arguments.keep / "searches.jsonl"
    known = _known(kept)
    published = Published(arguments.table)
    sections = [
        each if isinstance(each, dict) else {"name": each} for each in map(yaml.safe_load, arguments.strategies)
    ]
    found: dict[str, dict[int, dict[str, float]]] = {_label(section): {} for section in sections}
    for seed in range(arguments.seeds):
        for section in sections:
            key = _key(section, seed, arguments.trials, arguments.table)
            if key not in known:
                known[key] = published.search(section, seed, arguments.trials).scores
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "seed": seed, "section": section, **known[key]}) + "\n")
            found[_label(section)][seed] = known[key]
    _print(found, "time", f"after {_BUDGET_S:g} s of training")
    if arguments.trials:
        _print(found, str(arguments.trials), f"after {arguments.trials} trials")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder of the results; not in the project")
    parser.add_argument("--table", type=Path, default=_TABLE, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=at_least_one, default=500)
    parser.add_argument("--trials", type=at_least_one, help="go on until so many are done")
    default = ["random", "evolution", "controller"]
    parser.add_argument("--strategies", nargs="+", default=default, help="names, or YAML mappings with options")
    return parser.parse_args()


def _known(path: Path) -> dict[str, dict[str, float]]:
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            known[values.pop("key")] = {k: v for k, v in values.items() if k not in ("seed", "section")}
        except (ValueError, KeyError):  # the last line of a run that was killed
            continue
    return known


def _key(section: Mapping[str, Any], seed: int, trials: int | None, table: Path) -> str:
    deciding = [section, seed, trials, code_digest(), _digest(table)]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _digest(table: Path) -> str:
    return hashlib.sha256(table.read_bytes()).hexdigest()


def _label(section: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in section.items() if key != "name")
    return f"{section['name']} ({options})" if options else str(section["name"])


def _print(found: Mapping[str, Mapping[int, Mapping[str, float]]], at: str, title: str) -> None:
    """A row for each strategy, and a line for each figure that there is a goal for."""
    first, *others = found
    scores = {label: {seed: s[at] for seed, s in runs.items() if at in s} for label, runs in found.items()}
    print(f"\n{title}:")
    rows, differences = [], {}
    for label, of_seed in scores.items():
        values = np.array(list(of_seed.values()))
        mean, low, _ = mean_with_interval(values)
        used = [runs["trials at that time"] for runs in found[label].values() if "trials at that time" in runs]
        pairs = np.array([of_seed[seed] - scores[first][seed] for seed in of_seed if seed in scores[first]])
        differences[label] = mean_with_interval(pairs)
        more, least, most = differences[label]
        rows.append(
            {
                "strategy": label,
                "seeds": str(len(values)),
                "mean": f"{mean:.3f} ± {mean - low:.3f}",
                "standard deviation": f"{values.std(ddof=1):.3f}" if len(values) > 1 else "",
                f"more than {first}": "" if label == first else f"{more:+.3f} ({least:+.3f} to {most:+.3f})",
                "trials": f"{np.mean(used):.0f}" if at == "time" else at,
            }
        )
    table(rows)
    if first == "random" and at == "time":
        mean = np.mean(list(scores[first].values()))
        summary("random", f"{mean:.3f}", f"{_RANDOM} ± {_WITHIN}")
    for label in others:
        more, least, most = differences[label]
        summary(f"{label} more than {first} {title}", f"{more:+.3f} ({least:+.3f} to {most:+.3f})", "interval above 0")


if __name__ == "__main__":
    main()
