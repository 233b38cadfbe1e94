"""Whether every strategy, killed again and again, asks for the same architectures as one that never was.

`table`: NAS-Bench-201 under a latency limit, a journal in a file, one trial at a time. One search goes through
undisturbed; another one of the same seed is killed with kill -9 at random moments, spread over its trials and what is
between them (starting, replaying, proposing, writing), and resumed each time by another process. After each kill the
file is compared with the undisturbed run's, trial by trial; at last a search goes on to its end, and the whole file is
compared, and the whole sequence that the strategy asked for, repeats and all.

`processes`, `auto`, `inline`: real networks in worker processes, accuracies by a stub whose trials take 0 to twice
`--sleep` seconds by chance, so that they end in another order each time (with `processes`, two at a time; `auto` finds
no pilot in a stub). What was in the journal at a kill must stay there to the last digit, and be what an undisturbed
search of the same seed has; every resumed search must be able to follow (the engine ends with an error otherwise), and
at last a longer one replays all of it.

The processes are forks of three interpreters with different seeds of Python's hashes (`replay_sessions.py`).
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from common import summary, table
from journal_files import Row, changed, counted, differing, in_order, journal_rows, lasting
from options import SEED, Options, amount, begin, positive, some_of
from replay_sessions import Interpreter, Search

from pipeline.tables import STRATEGIES

_LIMIT_MS, _LIMIT_MACS = 10.5, 3_000_000.0
_INTERPRETERS = 3
_START_S = {"table": 0.05, "processes": 8.0, "auto": 8.0, "inline": 8.0}
"""How late a kill may fall that is to hit the start, the worker processes' one included."""
_LONGER, _BEYOND, _ENDLESS = 2, 20, 1_000_000


@dataclass
class Findings:
    """Faults that were found, and the moments of the kills."""

    kills: int = 0
    before_a_trial: int = 0
    sizes: list[int] = field(default_factory=list)
    mismatches: int = 0
    lost: int = 0
    errors: int = 0
    trials: int = 0
    asked: int = 0
    seconds: float = 0.0


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--kills", 20, "of each strategy"),
        some_of("--strategies", STRATEGIES),
        some_of("--engines", _START_S, ["table", "processes"]),
        positive("--trials", 100, "on the table"),
        positive("--networks", 40, "with worker processes"),
        amount("--sleep", 0.1, "seconds of a stub trial"),
        SEED,
    )
    with ExitStack() as stack:
        started = [Interpreter(hash_seed) for hash_seed in range(1, _INTERPRETERS + 1)]
        interpreters = [stack.enter_context(closing(each)) for each in started]
        for engine in arguments.engines:
            rows = []
            for name in arguments.strategies:
                found = _one(engine, name, interpreters, arguments)
                rows.append(_row(name, found))
                faults = found.mismatches + found.lost + found.errors
                summary(f"{engine}, {name}: faults after {found.kills} kills", str(faults), "0")
            print()
            table(rows)
            print()


def _one(engine: str, name: str, interpreters: list[Interpreter], arguments: Options) -> Findings:
    """A strategy with an engine."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        for each in (whole, broken):
            each.mkdir()
        if engine != "table":
            limits = {"limit": _LIMIT_MACS, "sleep_s": arguments.sleep}
            search = Search(name, arguments.networks, arguments.seed, whole, engine=engine, **limits)
            found = _processes(search, broken, interpreters, arguments)
        else:
            search = Search(name, arguments.trials, arguments.seed, whole, _LIMIT_MS)
            found = _table(search, broken, interpreters, arguments)
    found.seconds = time.monotonic() - began
    return found


def _table(whole: Search, folder: Path, interpreters: list[Interpreter], arguments: Options) -> Findings:
    ended = interpreters[0].run(whole)
    wanted = journal_rows(whole.journal)
    found, broken = Findings(errors=ended.code != 0), replace(whole, folder=folder)
    pace_s = ended.seconds / max(1, len(wanted))
    for seen in _killed(broken, len(wanted), pace_s, interpreters, found, arguments):
        found.mismatches += differing(seen, wanted)
    found.errors += interpreters[0].run(_to_end(broken)).code != 0
    seen = journal_rows(broken.journal)
    found.mismatches += differing(seen, wanted) + max(0, len(wanted) - len(seen))
    asked, asked_again = (json.loads(each.asked.read_text()) for each in (whole, broken))
    found.mismatches += asked_again[: len(asked)] != asked
    found.trials, found.asked = len(seen), len(asked_again)
    return found


def _processes(whole: Search, folder: Path, interpreters: list[Interpreter], arguments: Options) -> Findings:
    found, search, seen = Findings(), replace(whole, folder=folder), list[Row]()
    undisturbed = replace(whole, longer=_BEYOND)  # further than the killed one comes, so that its end decides nothing
    found.errors += interpreters[0].run(undisturbed).code != 0
    wanted = {row["number"]: lasting(row, "latency_ms") for row in in_order(journal_rows(whole.journal))}
    for seen in _killed(search, search.trials, search.sleep_s, interpreters, found, arguments):
        numbered = {row["number"]: lasting(row, "latency_ms") for row in in_order(seen)}
        found.mismatches += sum(numbered[number] != wanted[number] for number in numbered.keys() & wanted.keys())
    for _ in range(2):
        last = _to_end(search)
        found.errors += interpreters[0].run(last).code != 0
        now = journal_rows(search.journal)
        found.lost += len(changed(seen, now))
        found.mismatches += abs(counted(now) - last.trials - last.longer)
        seen = now
    found.trials, found.asked = len(seen), len(json.loads(search.asked.read_text()))
    return found


def _to_end(search: Search) -> Search:
    """With a budget that is a little longer than what it was for, and than what was tried so far."""
    done = counted(journal_rows(search.journal))
    return replace(search, longer=max(0, done - search.trials) + _LONGER)


def _killed(
    search: Search,
    trials: int,
    pace_s: float,
    interpreters: list[Interpreter],
    found: Findings,
    arguments: Options,
) -> Iterator[list[Row]]:
    """Kill a search as often as wanted; the journal after each kill."""
    rng = random.Random(f"{arguments.seed} {search.strategy}")
    seen: list[Row] = []
    endless = replace(search, longer=_ENDLESS)  # it must not end before it is killed
    start_s = _START_S[search.engine]
    for number, place in enumerate(sorted(rng.randrange(trials) for _ in range(arguments.kills)), 1):
        new = max(0, place - len(seen))
        pause_s = rng.uniform(0, 2 * pace_s if new else start_s + pace_s * len(seen) * (search.engine == "table"))
        ended = interpreters[number % len(interpreters)].run(endless, (new, pause_s))
        now = journal_rows(search.journal)
        found.kills += ended.killed
        found.errors += not ended.killed
        found.before_a_trial += len(now) == len(seen)
        found.lost += len(changed(seen, now))
        found.sizes.append(len(now))
        seen = now
        yield seen


def _row(name: str, found: Findings) -> dict[str, str]:
    return {
        "strategy": name,
        "kills": str(found.kills),
        "without a new trial": str(found.before_a_trial),
        "trials, asked for": f"{found.trials}, {found.asked}",
        "mismatches": str(found.mismatches),
        "lost or changed": str(found.lost),
        "errors": str(found.errors),
        "s": f"{found.seconds:.0f}",
        "trials after each kill": " ".join(map(str, found.sizes)),
    }


if __name__ == "__main__":
    main()
