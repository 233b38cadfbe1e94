"""Several searches at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import traceback
from contextlib import contextmanager
from multiprocessing import connection, get_context
from typing import TYPE_CHECKING, Any

from pipeline.bench.run import Result, Task, Workbench
from pipeline.engines.parent_death import die_with
from pipeline.errors import EXIT_OWN_FAULT, HwnasError
from pipeline.user_modules import NameSource, current_source, names_from

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.connection import Connection

    from pipeline.bench.config import BenchConfig

_END_S = 10.0
_SAFE_PATH = "PYTHONSAFEPATH"


class SearchError(HwnasError):
    """A search raised, or its process died.

    Args:
        message: which search, and its error.
        exit_code: 2 where it is the user's mistake.
    """

    def __init__(self, message: str, exit_code: int = EXIT_OWN_FAULT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_all(bench: Workbench, source: str, tasks: Sequence[Task], jobs: int) -> Generator[tuple[Task, Result]]:
    """Run searches, and yield each result as it comes; a single job runs in this process.

    Running searches are ended when the caller stops, too.

    Raises:
        SearchError: a strategy raised, or a process died.
    """
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, _run(bench, task)
    else:
        yield from _in_processes(bench.config, source, tasks, min(jobs, len(tasks)))


def _run(bench: Workbench, task: Task) -> Result:
    try:
        return bench.run(task)
    except HwnasError as error:
        raise SearchError(_message(bench.config, task, str(error)), error.exit_code) from error
    except Exception as error:  # a strategy may be anybody's
        traceback.print_exc()
        raise SearchError(_message(bench.config, task, f"{type(error).__name__}: {error}")) from error


def _message(config: BenchConfig, task: Task, message: str) -> str:
    return f"{config.labels()[task.strategy]} on {task.device} with seed {task.seed}: {message}"


def _in_processes(config: BenchConfig, source: str, tasks: Sequence[Task], jobs: int) -> Generator[tuple[Task, Result]]:
    # Forked from a server that has imported everything once and has no threads that a fork could break.
    context = get_context("forkserver")
    context.set_forkserver_preload([Workbench.__module__])
    waiting = list(reversed(tasks))
    running: dict[Connection, Task] = {}
    workers: list[Any] = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(theirs, config, source, current_source()), daemon=True)
            with _nothing_from_the_working_folder():
                worker.start()
            theirs.close()
            workers.append(worker)
            running[ours] = waiting.pop()
            ours.send(running[ours])
        while running:
            for ready in connection.wait(list(running)):
                assert isinstance(ready, connection.Connection)
                task = running.pop(ready)
                result = _received(ready, config, task)
                if waiting:
                    running[ready] = waiting.pop()
                    ready.send(running[ready])
                yield task, result
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(_END_S)


def _received(ready: Connection, config: BenchConfig, task: Task) -> Result:
    try:
        answer = ready.recv()
    except (EOFError, ConnectionResetError):
        raise SearchError(_message(config, task, "its process died; was it out of memory?")) from None
    if isinstance(answer, Result):
        return answer
    raise SearchError(*answer)


@contextmanager
def _nothing_from_the_working_folder() -> Iterator[None]:
    """Have Python begin without the working folder on its path.

    multiprocessing begins its server and its tracker as `python -c`, which imports the standard library's modules from
    the working folder first, if there are any of these names.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _serve(requests: Connection, config: BenchConfig, source: str, names: NameSource) -> None:
    """The main function of a worker process: run the searches that are requested, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with(os.getppid())
    try:
        with names_from(names):
            bench = Workbench(config, source)
            while True:
                try:
                    requests.send(_run(bench, requests.recv()))
                except SearchError as error:
                    requests.send((str(error), error.exit_code))
    except (EOFError, BrokenPipeError):
        return
    except HwnasError as error:
        requests.send((str(error), error.exit_code))
