"""How many trials should be submitted ahead, where results are given in the order of submission.

Searches on NAS-Bench-201's table with the engine that runs several trials at a time, on a made-up clock: a training
takes a time drawn from a lognormal distribution (seeded by the architecture), a candidate over the limit some
milliseconds. More trials without a given result keep workers busy while the oldest one takes its time; the strategy
proposes with fewer results. Printed by their number, for each worker:

    busy      trials an hour, over those of workers that never wait (as where results are given as trials end)
    volume    share of the table's hypervolume after `--trials` trials

once with candidates over the limit as trials among others, once with their results given at once.
"""

import hashlib
import heapq
import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
from common import summary, table
from networks import nasbench201
from options import Options, amount, begin, positive, some_of
from searches import TABLE_SECTIONS, config_of, strategy_on, table_lookup

from pipeline.bench.curves import Truth, value_at
from pipeline.engines.parallel import EndedTrial, ParallelEngine, open_trials
from pipeline.spaces.base import Architecture, architecture_id
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal
from pipeline.trials.reporter import Reporter
from pipeline.trials.result import TrialResult

_OVER_LIMIT_S = 0.005
_GOAL = 0.95


class MadeUpClock(ParallelEngine):
    """Workers whose trials take made-up times.

    Args:
        lookup: answers the trials.
        most: trials without a given result; None where results are given as trials end.
        spread: σ of the trainings' lognormal durations, whose median is a second.
        at_once: candidates over the limit have their result at once.
    """

    def __init__(self, *parts: Any, lookup: Any, most: int, spread: float, at_once: bool) -> None:
        super().__init__(*parts)
        self._lookup, self._most, self._spread, self._at_once_too = lookup, most, spread, at_once
        self._running: list[tuple[float, int, Architecture]] = []
        self._free_s = [0.0] * self._workers
        self._begun = 0
        self.now_s = 0.0
        self.durations_s: list[float] = []

    def _open_trials(self) -> int:
        return self._most

    def _start(self, architecture: Architecture) -> None:
        result = self._lookup.run(architecture)
        generator = random.Random(hashlib.sha256(architecture_id(architecture).encode()).digest())
        trained = result.status != "infeasible"
        seconds = generator.lognormvariate(0.0, self._spread) if trained else _OVER_LIMIT_S
        self.durations_s.append(seconds)
        end_s = max(self.now_s, heapq.heappop(self._free_s)) + seconds
        heapq.heappush(self._free_s, end_s)
        heapq.heappush(self._running, (end_s, self._begun, architecture))
        self._begun += 1

    def _at_once(self, architecture: Architecture) -> EndedTrial | None:
        result = self._lookup.run(architecture)
        return self._ended(architecture, result) if self._at_once_too and result.status == "infeasible" else None

    def _wait(self) -> EndedTrial:
        end_s, _, architecture = heapq.heappop(self._running)
        self.now_s = max(self.now_s, end_s)
        return self._ended(architecture, self._lookup.run(architecture))

    def _ended(self, architecture: Architecture, result: TrialResult) -> EndedTrial:
        return EndedTrial(architecture, result, datetime.now(UTC), 0.0)


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--trials", 30, "of each search"),
        positive("--seeds", 10),
        positive("--workers", 2),
        some_of("--strategies", ["guided", "evolution", "random"], ["guided", "evolution"]),
        some_of("--each", [1.0, 1.5, 2.0, 3.0, 4.0], text="trials without a given result, for each worker"),
        amount("--spread", 0.6, "sigma of the durations' logarithms"),
        amount("--limit", 10.5, "ms; about half of the table's networks are slower"),
    )
    lookup = table_lookup({"latency_ms": arguments.limit})
    truth = Truth.of(lookup, ["accuracy", "latency_ms"], {"latency_ms": arguments.limit})
    for name in arguments.strategies:
        rows = []
        for at_once in (False, True):
            for each in arguments.each:
                most = round(each * arguments.workers)
                found = [_one(name, seed, most, at_once, lookup, truth, arguments) for seed in range(arguments.seeds)]
                busy, volume, over = np.mean(found, axis=0)
                error = np.std([volume for _, volume, _ in found]) / len(found) ** 0.5
                rows.append(
                    {
                        "strategy": name,
                        "over the limit": "at once" if at_once else "as trials",
                        "for each worker": f"{each:g}",
                        "busy": f"{busy:.3f}",
                        "volume": f"{volume:.4f} ± {error:.4f}",
                        "share over the limit": f"{over:.2f}",
                    }
                )
                if at_once and most == open_trials(arguments.workers):
                    summary(f"{name}: trials an hour of workers that never wait", f"{busy:.3f}", f">= {_GOAL}")
        table(rows)
        print()


def _one(
    name: str, seed: int, most: int, at_once: bool, lookup: Any, truth: Truth, arguments: Options
) -> tuple[float, float, float]:
    """Trials an hour over those without waiting, and the shares of the hypervolume and of candidates over the limit."""
    limits = {"latency_ms": arguments.limit}
    config = config_of(arguments.trials, seed=seed, strategy={"name": name}, constraints=limits, **TABLE_SECTIONS)
    space, journal = nasbench201(), Journal.in_memory()
    parts = (config, space, journal, Budget(config.budget, []), Reporter(), arguments.workers)
    engine = MadeUpClock(*parts, lookup=lookup, most=most, spread=arguments.spread, at_once=at_once)
    strategy_on(config, space)(engine)
    engine.finish()
    records = sorted(journal.trials(), key=lambda record: record.submitted)
    shares, _ = truth.curves(records)
    over = sum(record.status == "infeasible" for record in records) / len(records)
    return _without_waiting_s(engine.durations_s, arguments.workers) / engine.now_s, value_at(shares, 10**9), over


def _without_waiting_s(durations_s: list[float], workers: int) -> float:
    free_s = [0.0] * workers
    for seconds in durations_s:
        heapq.heapreplace(free_s, free_s[0] + seconds)
    return max(free_s)


if __name__ == "__main__":
    main()
