"""Sessions of a search that can be killed: forks of an interpreter that has imported everything already.

Importing takes seconds, a search on a table a fraction of one. So a few fresh interpreters, each with a seed of its own
for Python's hashes, import everything once and start every session as a fork of themselves.
"""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import BENCHMARKS
from networks import convnet, nasbench201
from searches import TABLE_SECTIONS, Listening, ListeningEngine, config_of, direct_engine, strategy_on, table_lookup

from pipeline.engines.auto import AutoEngine
from pipeline.engines.inline import InlineEngine
from pipeline.engines.parent_death import die_with
from pipeline.engines.processes import ProcessesEngine
from pipeline.trials.budget import Budget
from pipeline.trials.journal import Journal, TrialRecord
from pipeline.trials.reporter import Reporter

_LIMIT_S = 600.0
_NETWORKS: dict[str, Any] = {"width": 8, "width_multipliers": [1, 2], "depths": [1, 2]}


@dataclass(frozen=True)
class Search:
    """A search that sessions go on with.

    Attributes:
        strategy: its name.
        trials: the budget when it began.
        seed: of the run.
        folder: where the journal lies.
        limit: of milliseconds on a table, of multiply-adds of networks.
        engine: `table` for NAS-Bench-201's; else there are networks, which this engine's worker processes build.
        sleep_s: how long a trial in a worker process pretends to train, on average.
        longer: trials that were added to the budget since.
    """

    strategy: str
    trials: int
    seed: int
    folder: Path
    limit: float
    engine: str = "table"
    sleep_s: float = 0.0
    longer: int = 0

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / "journal.sqlite"

    @property
    def asked(self) -> Path:
        """What the strategy asked for, repeats and all: the list of ids that a session leaves at its end."""
        return self.folder / "asked.json"


@dataclass(frozen=True)
class Ended:
    """The end of a session: its exit code, minus the signal's number where it was killed, and its seconds."""

    code: int
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether the kill came before the end."""
        return self.code == -signal.SIGKILL


class Interpreter:
    """A fresh interpreter that starts sessions, one after the other."""

    def __init__(self, hash_seed: int) -> None:
        os.environ["PYTHONHASHSEED"] = str(hash_seed)  # of the next interpreter, not of this one
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()

    def run(self, search: Search, kill_after: tuple[int, float] = (0, math.inf)) -> Ended:
        """One session, to its end, or to the kill: so many seconds after so many new trials."""
        trials, pause_s = kill_after
        self._pipe.send(search)
        process: int = self._pipe.recv()
        began = time.monotonic()
        due = began + pause_s if trials == 0 else math.inf
        while True:
            if time.monotonic() >= due:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process, signal.SIGKILL)
                due = math.inf
            if not self._pipe.poll(min(max(0.0, due - time.monotonic()), _LIMIT_S)):
                assert due < math.inf, f"a session says nothing for {_LIMIT_S:g} s"
                continue
            code: int | None = self._pipe.recv()
            if code is not None:
                return Ended(code, time.monotonic() - began)
            trials -= 1
            if trials == 0:
                due = time.monotonic() + pause_s

    def close(self) -> None:
        """End the interpreter."""
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection) -> None:
    """Start sessions as forks of this process until there are no more.

    For each the pipe tells the process's id, then None for every new trial, then the exit code.
    """
    die_with(os.getppid())
    os.chdir(BENCHMARKS)  # the stub evaluator lies here
    while (search := pipe.recv()) is not None:
        if search.engine == "table":
            _lookup(search.limit)  # read before the fork
        process = os.fork()
        if process == 0:
            _session(search, pipe)
        _, status = os.waitpid(process, 0)
        pipe.send(os.waitstatus_to_exitcode(status))


def _session(search: Search, pipe: Connection) -> None:
    code = 1
    try:
        die_with(os.getppid())
        pipe.send(os.getpid())
        asked = _search(search, _Telling(pipe))
        search.asked.write_text(json.dumps(asked))
        code = 0
    except BaseException:  # whatever it is, it must not return into the interpreter that was forked
        traceback.print_exc()
    finally:
        os._exit(code)


class _Telling(Reporter):
    """Tells of each new trial when it is in the journal, and before the strategy hears of it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def trial_ended(self, record: TrialRecord) -> None:
        self._pipe.send(None)


def _search(search: Search, reporter: Reporter) -> list[str]:
    """Begin or go on with a search; what its strategy asked for."""
    journal = Journal.open(search.journal) if search.journal.exists() else Journal.create(search.journal, {})
    sections = _of_table(search) if search.engine == "table" else _of_networks(search)
    budget = {"trials": search.trials + search.longer}
    config = config_of(search.trials, seed=search.seed, strategy={"name": search.strategy}, budget=budget, **sections)
    if search.engine == "table":
        lookup = _lookup(search.limit)
        space, known = nasbench201(), lookup.known
        engine: Any = direct_engine(config, space, journal, lookup.run, reporter=reporter, kind=ListeningEngine)
    else:
        space, known = convnet((1, 8, 8), **_NETWORKS), None
        parts: Any = (config, space, journal, Budget(config.budget, journal.trials()), reporter)
        engine = _KINDS[search.engine](*parts, search.folder / "search.log")
    run = strategy_on(config, space, known)
    try:
        run(engine)
        engine.finish()
    finally:
        engine.shutdown()
        journal.close()
    return list(engine.asked)


class _ListeningProcesses(Listening, ProcessesEngine):
    pass


class _ListeningAuto(Listening, AutoEngine):
    pass


class _ListeningInline(Listening, InlineEngine):
    pass


_KINDS: dict[str, Any] = {"processes": _ListeningProcesses, "auto": _ListeningAuto, "inline": _ListeningInline}


def _of_networks(search: Search) -> dict[str, Any]:
    return {
        "space": {"name": "convnet", **_NETWORKS},
        "evaluator": {"name": "stub_evaluator:HashEvaluator", "sleep_s": search.sleep_s, "uneven": True},
        "engine": {"name": search.engine, **({"workers": 2} if search.engine == "processes" else {})},
        "objectives": ["accuracy", "macs"],
        "constraints": {"macs": search.limit},
    }


def _of_table(search: Search) -> dict[str, Any]:
    return {**TABLE_SECTIONS, "constraints": {"latency_ms": search.limit}}


@cache
def _lookup(limit: float) -> Any:
    return table_lookup({"latency_ms": limit})
