"""Finished searches of a benchmark, one a line of a file, so that a stopped benchmark can go on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency_models.files import read_file
from pipeline.bench.run import Result, Task
from pipeline.errors import RunDirectoryError
from pipeline.files import check_own, open_to_append

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.bench.config import BenchConfig

RESULTS = "results.jsonl"
_MOST_BYTES = 10**9
PAGE = "bench.html"


class KeptResults:
    """A directory of results, each under a digest of all that decides it: config, table and code.

    So finished searches are used again with more strategies, seeds or devices, and with other `report_at` as long as
    the budget stays, which is the last of these unless `budget.trials` is given.

    Raises:
        RunDirectoryError: the directory can't be made, or holds something else.
    """

    def __init__(self, path: Path, config: BenchConfig) -> None:
        self.path, self._config = path, config
        self._file = path / RESULTS
        if path.exists() and (not path.is_dir() or (not self._file.exists() and any(path.iterdir()))):
            raise RunDirectoryError(f"{path} exists and holds no results of a benchmark")
        try:
            path.mkdir(parents=True, exist_ok=True)
            open_to_append(self._file).close()
        except OSError as error:
            raise RunDirectoryError(f"{path} can't be made: {error}") from error
        self._deciding = _deciding(config)
        self._proxies = _proxies(config)

    def read(self, tasks: Sequence[Task]) -> dict[Task, Result]:
        """Results of those searches that are finished; a line that a kill cut off is ignored."""
        found: dict[str, Result] = {}
        for line in read_file(self._file, _MOST_BYTES).decode("utf-8", errors="replace").splitlines():
            try:
                values = json.loads(line)
                found[values["digest"]] = _result(values)
            except (ValueError, KeyError, TypeError):
                continue
        digests = {task: self._digest(task) for task in tasks}
        return {task: found[digest] for task, digest in digests.items() if digest in found}

    def add(self, task: Task, result: Result) -> None:
        """Append a result; it is on disk when this returns."""
        task_fields = {"strategy": self._config.labels()[task.strategy], "device": task.device, "seed": task.seed}
        line = json.dumps({"digest": self._digest(task), **task_fields, **asdict(result)})
        check_own(self._file)
        with self._file.open("r+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill cut the last line off
                    file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _digest(self, task: Task) -> str:
        strategy = json.loads(self._config.strategy_of(task.strategy).model_dump_json())
        deciding = {**self._deciding, "strategy": strategy, "device": task.device, "seed": task.seed}
        if strategy.get("proxies"):
            deciding["proxies"] = self._proxies
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _deciding(config: BenchConfig) -> dict[str, Any]:
    """The part of the digest that all searches of a benchmark share."""
    keys = {"space", "evaluator", "objectives", "constraints", "limit_percentiles", "reward", "budget"}
    values: dict[str, Any] = json.loads(config.model_dump_json(include=keys))
    values["evaluator"]["costs"].pop(config.cost, None)  # the device's
    values["evaluator"].pop("proxies", None)  # those strategies' that ask for some
    values["evaluator"]["path"] = _content(config.table.path)
    return {**values, "code": code_digest()}


@cache
def code_digest(root: Path = Path(__file__).parents[2]) -> str:
    """Hash of the code that decides what a search on a table comes to, NNI's version included.

    Of all code of this project: what doesn't decide anything costs a search that is run again, a file that was
    forgotten would pass an old result off as that of the new code.
    """
    found = hashlib.sha256(version("nni").encode())
    for file in deciding_files(root):
        found.update(str(file.relative_to(root)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def deciding_files(root: Path) -> list[Path]:
    """The Python files of the project's packages in a folder."""
    return sorted(
        file for package in ("pipeline", "export", "latency_models") for file in (root / package).rglob("*.py")
    )


def _proxies(config: BenchConfig) -> dict[str, Any]:
    """Settings of the published zero-cost scores, with the content of their file."""
    proxies = config.table.proxies
    if proxies is None:
        return {}
    return {**proxies.model_dump(), "path": _content(proxies.path or config.table.path)}


def _content(path: str) -> str:
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()


def _result(values: dict[str, Any]) -> Result:
    shares, regrets = ([(int(n), float(v)) for n, v in values[key]] for key in ("hypervolume", "regret"))
    proxy_seconds = values.get("proxy_seconds")
    return Result(int(values["trials"]), float(values["seconds_per_trial"]), shares, regrets, proxy_seconds)
