"""A process that runs trials one by one and answers in JSON lines.

It is forked from `pipeline.engines.fork_server`. A candidate that raises is a failed trial; the engine notices one that
kills this process.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import torch

from latency_models.errors import CostError
from pipeline.engines.cost_check import CostCheck
from pipeline.engines.pilot import steps_per_second
from pipeline.engines.trial import TrialRunner
from pipeline.errors import HwnasError
from pipeline.storage import refusal

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.engines.quiet import Quiet


def work(requests: TextIO, answers: TextIO, config: RunConfig, data: DataSet | None, quiet: Quiet) -> None:
    """Answer requests until the engine closes its end.

    Args:
        requests: first the setup (`threads`, `memory_bytes`, `counts`), then a line for each request.
        answers: gets a line for each.
        config: of the run.
        data: the data set, where it was loaded already.
        quiet: the room shared with the other workers.
    """
    runner = _begin(json.loads(requests.readline()), answers, config, data, quiet)
    if runner is None:
        return
    for line in requests:
        request = json.loads(line)
        if request.get("threads") is not None:
            torch.set_num_threads(request["threads"])
        if isinstance(runner, CostCheck):
            _answer(answers, _count(runner, request))
            continue
        serve = _pilot if "pilot_s" in request else _serve
        _answer(answers, serve(runner, request, answers))


def told(error: Exception) -> dict[str, Any]:
    """An error that ends all work, as the engine raises it again."""
    if isinstance(error, (HwnasError, CostError)):
        return {"fatal": str(error), "exit_code": error.exit_code}
    traceback.print_exception(error)  # whatever it is: the engine tells its first line
    return {"fatal": f"{type(error).__name__}: {error}", "exit_code": 1}


def _begin(
    setup: dict[str, Any], answers: TextIO, config: RunConfig, data: DataSet | None, quiet: Quiet
) -> TrialRunner | CostCheck | None:
    runner: TrialRunner | CostCheck
    try:
        if setup["threads"] is not None:
            torch.set_num_threads(setup["threads"])
        runner = CostCheck(config, data, quiet) if setup["counts"] else TrialRunner(config, data=data, quiet=quiet)
    except Exception as error:
        _answer(answers, told(error))
        return None
    _limit_memory(setup["memory_bytes"])
    _answer(answers, {"ready": True})
    return runner


def _limit_memory(limit_bytes: int) -> None:
    """Make huge allocations fail, before the machine runs out of memory; CUDA reserves more than it uses."""
    if not torch.cuda.is_available():
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _count(check: CostCheck, request: dict[str, Any]) -> dict[str, Any]:
    try:
        result = check.run(request["architecture"])
    except Exception:  # the trial of this candidate will tell
        with suppress(OSError):
            traceback.print_exc()
        return {}
    if result is None:
        return {}
    return {"status": result.status, "objectives": result.objectives, "details": result.details}


def _pilot(runner: TrialRunner, request: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    try:
        return {"steps_per_s": steps_per_second(runner, request["architecture"], request["pilot_s"])}
    except Exception:  # the trial of this candidate will tell
        with suppress(OSError):
            traceback.print_exc()
        return {"steps_per_s": None}


def _serve(runner: TrialRunner, request: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    def progress(epoch: int, epochs: int, accuracy: float) -> None:
        _answer(answers, {"progress": {"epoch": epoch, "epochs": epochs, "accuracy": accuracy}})

    try:
        runner.add_peers(request["peers"])
        runner.learn(request["history"])
        result = runner.run(request["architecture"], progress)
    except Exception as error:  # a candidate may raise anything; that is its result
        with suppress(OSError):
            traceback.print_exc()
        if words := refusal(error):
            return {"refused": words, "error": f"{type(error).__name__}: {_first_line(error)}"}
        out_of_memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
        reason = f"{'out of memory: ' if out_of_memory else ''}{type(error).__name__}: {_first_line(error)}"
        return {
            "status": "failed",
            "objectives": {},
            "details": {},
            "error": reason,
            "replace": out_of_memory,
        }
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a log that has no room loses lines, and no trial
                stream.flush()
    return {
        "status": result.status,
        "objectives": result.objectives,
        "details": result.details,
        "error": result.error,
    }


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
