"""The process that workers are forked from: it imports all that they need, once, and trains nothing itself.

Started as `python -P -m pipeline.engines.fork_server CONTROL_FD PARENT_PID`. A worker that is forked begins in a
fraction of a second instead of several, and shares the memory of the libraries and of the data with all others. Its
stdout and stderr belong to the libraries and go to the run's log.

Over the control socket come `{"setup": …, "names": …}` first, then `{"begin": true}` with the two descriptors of a
worker's pipes, answered by `{"pid": …}`, and `{"reap": PID}`, answered by `{"code": …}` when that worker has ended.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

import torch

from pipeline.config.file import parse_config
from pipeline.data import load_data
from pipeline.engines.control import receive, send
from pipeline.engines.parent_death import die_with
from pipeline.engines.quiet import Quiet, shared_file
from pipeline.engines.worker import told, work
from pipeline.registry import load
from pipeline.spaces.make import make_space
from pipeline.tables import DATA, EVALUATORS, SPACES
from pipeline.user_modules import NameSource, names_from

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet

_REAP_LIMIT_S = 10.0
_REAP_EVERY_S = 0.005


def main(control_fd: int, parent: int) -> None:
    """Fork workers until the parent closes its end."""
    die_with(parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP's threads don't survive a fork: none are begun here
    with socket.socket(fileno=control_fd) as control:
        setup, _ = receive(control)
        with names_from(NameSource.from_json(setup["names"])):
            try:
                config = parse_config(setup["setup"], "the run's config")
                # A user's own data may start threads or a GPU's driver, which no fork survives: workers load those.
                data = load_data(config.data) if config.data.name in DATA else None
                _import_what_trials_need(config, data)
            except Exception as error:  # the engine raises it again
                send(control, told(error))
                return
            gc.collect()
            gc.freeze()  # what is shared stays so: no collection writes to the libraries' half a million objects
            send(control, {"ready": True})
            _serve(control, config, data, threads)


def _import_what_trials_need(config: RunConfig, data: DataSet | None) -> None:
    """Have in memory, once, what each worker would import for itself in its first trial."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)  # the first optimizer imports torch's compiler
    if config.evaluator.name in EVALUATORS:
        load("evaluator", config.evaluator.name, EVALUATORS)
    if data is not None and config.space.name in SPACES:
        make_space(config, data)


def _serve(control: socket.socket, config: RunConfig, data: DataSet | None, threads: int) -> None:
    room = shared_file()
    while True:
        try:
            request, pipes = receive(control)
        except EOFError:
            return
        if "reap" in request:
            send(control, {"code": _reap(request["reap"])})
            continue
        sys.stdout.flush()
        sys.stderr.flush()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_worker(server, pipes, config, data, Quiet(room), threads)
        os.setpgid(pid, pid)  # here as well, so that it is done whoever comes first
        for each in pipes:
            os.close(each)
        send(control, {"pid": pid})


def _become_worker(
    server: int, pipes: list[int], config: RunConfig, data: DataSet | None, quiet: Quiet, threads: int
) -> None:
    code = 1
    try:
        os.setpgid(0, 0)  # a group of its own: it is ended with the processes that it began
        die_with(server)
        torch.set_num_threads(threads)
        with os.fdopen(pipes[0]) as requests, os.fdopen(pipes[1], "w", buffering=1) as answers:
            work(requests, answers, config, data, quiet)
        code = 0
    except BrokenPipeError:
        pass  # the engine is gone, or has given this worker up
    except SystemExit as error:  # a candidate's code may end its process as it likes
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # this process ends here, whatever it is
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _reap(pid: int) -> int | None:
    """A worker's exit code, negative for a signal; None if it hasn't ended within 10 s."""
    until = time.monotonic() + _REAP_LIMIT_S
    while time.monotonic() < until:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_REAP_EVERY_S)
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(int(sys.argv[1]), int(sys.argv[2]))
