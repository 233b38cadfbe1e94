"""The search of the NAS-Bench-201 paper, against its published figures: are ours the real algorithms?

A finished study, not maintained. Found: random 93.775 ± .027 and evolution 94.090 ± .024 (500 seeds), controller
94.089 ± .124 (20 seeds): the real algorithms. See docs/bench.md.

A strategy sees the validation accuracy after 12 epochs, and nothing of costs. Every architecture takes the seconds that
its 12 epochs took; when 12,000 s are spent, the one with the best accuracy seen is scored by its test accuracy after
200 epochs. With `--trials` searches go on until then, and are scored there, too. Finished searches are kept in FOLDER.

Dong & Yang (NAS-Bench-201, ICLR 2020) report, as means and standard deviations of 500 runs, 93.70 ± 0.36 for random
search, 93.92 ± 0.30 for regularized evolution and 93.85 ± 0.37 for REINFORCE. There a known architecture that is asked
for again is paid for again; here it is answered from the journal and costs nothing, as in any search of hwnas. NNI's
`random` and `evolution` ask for none again. `controller` is paid from memory for those that it samples again.

Differences are against the first strategy with the same seed, with 95 % intervals of Student's t.
"""

import hashlib
import json
import logging
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

from common import interval, summary, table
from networks import NASBENCH201, nasbench201
from options import begin, file_path, option, positive
from searches import config_of, direct_engine, strategy_on

from pipeline.bench.results import code_digest
from pipeline.bench.summary import mean_with_interval
from pipeline.engines.direct import DirectEngine
from pipeline.evaluators.lookup import read_table
from pipeline.trials.journal import Journal
from pipeline.trials.result import TrialResult

_SEEN, _FINAL, _SECONDS = "cifar10_valid_12", "cifar10_test_200", "train_s_12"
_BUDGET_S = 12_000.0
_RANDOM, _WITHIN = 93.73, 0.06
_EXPECTED_TRIALS = 100
"""So many fit into the budget, about; what `evolution` makes its population from."""


@dataclass(frozen=True)
class Search:
    """A finished search: seconds of training spent, number of trials, and the final scores in per cent.

    `scores` are those after so many trials, or at `time`, which came after `trials at that time`.
    """

    spent_s: float
    trials: int
    scores: dict[str, float]


class Published:
    """The table, and searches in it."""

    def __init__(self, path: Path) -> None:
        columns = {_SEEN: "accuracy", _FINAL: "accuracy", _SECONDS: "costs"}
        read = read_table(path, "arch_str", columns)
        self._rows, self._columns = read.rows, read.columns
        self._space = nasbench201()

    def search(self, section: dict[str, Any], seed: int, trials: int | None) -> Search:
        """Until the time is spent, and so many trials are done; scored at both."""
        config = config_of(
            _EXPECTED_TRIALS,
            space={"name": "nasbench201"},
            strategy=section,
            seed=seed,
            budget={"trials": 10**6, "minutes": 1e6},
            final={"pick": "most-accurate"},
        ).model_copy(update={"objectives": ["accuracy"]})
        spent = [0.0]

        class Engine(DirectEngine):
            def budget_available(self) -> bool:
                more = spent[-1] < _BUDGET_S or (trials is not None and len(spent) <= trials)
                return more and super().budget_available()

        def judge(architecture: dict[str, Any]) -> TrialResult:
            row = self._rows[self._space.key(architecture)]
            spent.append(spent[-1] + float(self._columns[_SECONDS][row]))
            return TrialResult("ok", {"accuracy": float(self._columns[_SEEN][row]) / 100})

        with closing(Journal.in_memory(config.objectives)) as journal:
            strategy_on(config, self._space)(direct_engine(config, self._space, journal, judge, kind=Engine))
            rows = [self._rows[self._space.key(record.architecture)] for record in journal.trials()]
        scores = {}
        if spent[-1] >= _BUDGET_S:
            enough = next(count for count, seconds in enumerate(spent) if seconds >= _BUDGET_S)
            scores = {"time": self._final(rows[:enough]), "trials at that time": enough}
        if trials is not None and len(rows) >= trials:
            scores[str(trials)] = self._final(rows[:trials])
        return Search(spent[-1], len(rows), scores)

    def _final(self, rows: list[int]) -> float:
        """Final score of the row with the best accuracy seen, the first one of equals."""
        best = rows[int(np.argmax(self._columns[_SEEN][rows]))]
        return float(self._columns[_FINAL][best])


def main() -> None:
    arguments = begin(
        __doc__,
        file_path("--keep", required=True, text="folder of the results; not in the project"),
        positive("--seeds", 500),
        positive("--trials", text="go on until so many are done"),
        option(
            "--strategies", ["random", "evolution", "controller"], "names, or YAML mappings with options", nargs="+"
        ),
    )
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    kept = arguments.keep / "searches.jsonl"
    known = _known(kept)
    published, digest = Published(NASBENCH201), hashlib.sha256(NASBENCH201.read_bytes()).hexdigest()
    sections = [
        each if isinstance(each, dict) else {"name": each} for each in map(yaml.safe_load, arguments.strategies)
    ]
    found: dict[str, dict[int, dict[str, float]]] = {_label(section): {} for section in sections}
    for seed in range(arguments.seeds):
        for section in sections:
            key = _key(section, seed, arguments.trials, digest)
            if key not in known:
                known[key] = published.search(section, seed, arguments.trials).scores
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "seed": seed, "section": section, **known[key]}) + "\n")
            found[_label(section)][seed] = known[key]
    _print(found, "time", f"after {_BUDGET_S:g} s of training")
    if arguments.trials:
        _print(found, str(arguments.trials), f"after {arguments.trials} trials")


def _known(path: Path) -> dict[str, dict[str, float]]:
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            known[values.pop("key")] = {k: v for k, v in values.items() if k not in ("seed", "section")}
        except (ValueError, KeyError):  # the last line of a run that was killed
            continue
    return known


def _key(section: dict[str, Any], seed: int, trials: int | None, table_digest: str) -> str:
    deciding = [section, seed, trials, code_digest(), table_digest]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _label(section: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in section.items() if key != "name")
    return f"{section['name']} ({options})" if options else str(section["name"])


def _print(found: dict[str, dict[int, dict[str, float]]], at: str, title: str) -> None:
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
                f"more than {first}": "" if label == first else interval(more, least, most, "+.3f"),
                "trials": f"{np.mean(used):.0f}" if at == "time" else at,
            }
        )
    table(rows)
    if first == "random" and at == "time":
        mean = np.mean(list(scores[first].values()))
        summary("random", f"{mean:.3f}", f"{_RANDOM} ± {_WITHIN}")
    for label in others:
        more, least, most = differences[label]
        summary(f"{label} more than {first} {title}", interval(more, least, most, "+.3f"), "interval above 0")


if __name__ == "__main__":
    main()
