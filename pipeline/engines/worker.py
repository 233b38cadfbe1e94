"""The child process of an engine: runs trials one by one and answers in JSON lines.

Started as `python -P -m pipeline.engines.worker REQUEST_FD ANSWER_FD PARENT_PID`. Its stdout and stderr belong to the
libraries and go to the run's log. A candidate that raises is a failed trial; the
parent notices one that kills this process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.storage import refusal
from pipeline.user_modules import NameSource, names_from

if TYPE_CHECKING:
    from pipeline.engines.trial import TrialRunner

_PR_SET_PDEATHSIG = 1


def main(request_fd: int, answer_fd: int, parent: int) -> None:
    """Answer requests until the parent closes its end."""
    die_with(parent)
    with os.fdopen(request_fd) as requests, os.fdopen(answer_fd, "w", buffering=1) as answers:
        setup = json.loads(requests.readline())
        with names_from(NameSource.from_json(setup["names"])):
            runner = _begin(setup, answers)
            if runner is None:
                return
            for line in requests:
                _answer(answers, _serve(runner, json.loads(line), answers))


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _begin(setup: dict[str, Any], answers: TextIO) -> TrialRunner | None:
    from latency_models.errors import CostError
    from pipeline.config.file import parse_config
    from pipeline.errors import HwnasError

    try:
        if setup["threads"] is not None:
            import torch

            torch.set_num_threads(setup["threads"])
        from pipeline.engines.trial import TrialRunner

        runner = TrialRunner(parse_config(setup["setup"], "the run's config"), setup["history"])
    except (HwnasError, CostError) as error:
        _answer(answers, {"fatal": str(error), "exit_code": error.exit_code})
        return None
    except Exception as error:  # the parent reports it, whatever it is
        traceback.print_exc()
        _answer(answers, {"fatal": f"{type(error).__name__}: {error}", "exit_code": 1})
        return None
    _limit_memory(setup["memory_bytes"])
    gc.freeze()  # spare trials the collection of the libraries' half a million objects
    _answer(answers, {"ready": True})
    return runner


def _limit_memory(limit_bytes: int) -> None:
    """Make huge allocations fail, before the machine runs out of memory; CUDA reserves more than it uses."""
    import torch

    if not torch.cuda.is_available():
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _serve(runner: TrialRunner, request: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    def progress(epoch: int, epochs: int, accuracy: float) -> None:
        _answer(answers, {"progress": {"epoch": epoch, "epochs": epochs, "accuracy": accuracy}})

    try:
        runner.add_peers(request.get("peers", ()))
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


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
