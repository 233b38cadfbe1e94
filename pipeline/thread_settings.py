"""How the threads of OpenMP and OpenBLAS wait, for the command line, for its worker processes and for the library.

OpenMP threads that wait by spinning take the cores that others need: on a busy machine training a small net was seen 10
times slower. Spinning briefly before they sleep costs nothing on an idle one (benchmarks/studies/busy_training.py).
NumPy's linear algebra does the same; its matrices here are too small for several threads to gain anything, and fitting
a cost model was seen 60 times slower on a busy machine.

Both libraries read their settings when they are loaded. So the command line sets them first of all and workers get them
with their environment; a library call loads torch with them, where nobody has loaded it yet, and limits the threads of
a loaded OpenBLAS as long as the call lasts. Whatever the user has set stays.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    P = ParamSpec("P")
    Result = TypeVar("Result")

_SPINNING, _BLAS = "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS"
SETTINGS = {_SPINNING: "20000", _BLAS: "1"}


def set_for_process() -> None:
    """Set them for this process, which has loaded none of the libraries yet, and for its children."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def child_environment() -> dict[str, str]:
    """Environment of a child process that computes: this process's, with the settings that it lacks."""
    return {**SETTINGS, **os.environ}


@contextmanager
def calm_threads() -> Iterator[None]:
    """Compute with these settings, as far as somebody else's process allows; its environment stays as it is."""
    with ExitStack() as stack:
        if _SPINNING not in os.environ and "torch" not in sys.modules:
            _import_torch()
        if _BLAS not in os.environ:
            from threadpoolctl import threadpool_limits

            importlib.import_module("numpy")  # a library that isn't loaded can't be limited
            stack.enter_context(threadpool_limits(1, user_api="blas"))
        yield


def with_calm_threads(function: Callable[P, Result]) -> Callable[P, Result]:
    """A function that computes with `calm_threads`."""

    @functools.wraps(function)
    def calm(*args: P.args, **kwargs: P.kwargs) -> Result:
        with calm_threads():
            return function(*args, **kwargs)

    return calm


def _import_torch() -> None:
    os.environ[_SPINNING] = SETTINGS[_SPINNING]
    try:
        importlib.import_module("torch")  # its OpenMP reads the setting now
    finally:
        del os.environ[_SPINNING]
