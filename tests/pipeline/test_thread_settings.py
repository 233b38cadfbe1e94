"""The settings of threads reach worker processes and library calls, and leave somebody else's process as it was."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.thread_settings import SETTINGS, calm_threads, child_environment, set_for_process

# What OpenMP and OpenBLAS really use is seen from inside a process that began without the settings.
PROGRAM = """
import json, os, sys
from threadpoolctl import threadpool_info
from pipeline.thread_settings import calm_threads
blas = lambda: [each["num_threads"] for each in threadpool_info() if each["internal_api"] == "openblas"]
import numpy
before = blas()
with calm_threads():
    within = blas()
    environment = sorted(set(os.environ) & {"GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS"})
print(json.dumps({"torch": "torch" in sys.modules, "before": before, "within": within, "after": blas(),
                  "environment": environment}))
"""


def seen(**more: str) -> dict[str, object]:
    clean = {name: value for name, value in os.environ.items() if name not in {*SETTINGS, "OMP_NUM_THREADS"}}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**clean, **more}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_the_command_line_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    set_for_process()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_workers_get_them_with_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    environment = child_environment()
    assert environment["GOMP_SPINCOUNT"] == SETTINGS["GOMP_SPINCOUNT"]
    assert environment["OPENBLAS_NUM_THREADS"] == "3"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_library_call_has_them_for_its_time_and_leaves_the_environment() -> None:
    found = seen()
    assert found["torch"] is True
    assert found["within"] == [1] * len(found["before"])  # type: ignore[arg-type]
    assert found["after"] == found["before"]
    assert found["environment"] == []


def test_what_the_user_has_set_stays_in_a_library_call() -> None:
    found = seen(GOMP_SPINCOUNT="7", OPENBLAS_NUM_THREADS="2")
    assert found["torch"] is False
    assert found["within"] == found["before"]


def test_torch_is_loaded_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("importlib.import_module", lambda name: told.append((name, os.environ.get("GOMP_SPINCOUNT"))))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    with calm_threads():
        assert "GOMP_SPINCOUNT" not in os.environ
    assert told == [("torch", "20000")]
