import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.cli import Finished, Outcome, in_process, search_once
from helpers.places import REPOSITORY, shared_data

SLOW = (
    *("pipeline/engines", "system/test_resume", "system/test_robust", "system/test_commands", "pipeline/references"),
    *("pipeline/spaces", "pipeline/winner", "pipeline/evaluators/zero_cost", "pipeline/strategies/test_base"),
    *("system/library", "system/test_working", "system/test_damage", "pipeline/evaluators/test_stopped_trials"),
    *("pipeline/costs", "pipeline/test_tables", "pipeline/bench", "pipeline/cli", "pipeline/optimize"),
    *("system/test_mistakes", "export/activations", "export/exporter", "export/quantization", "export/bundle"),
    *("pipeline/strategies/test_guided", "pipeline/strategies/test_wide", "pipeline/test_shims", "pipeline/data"),
    *("system/test_newcomer", "system/test_tampering", "benchmarks", "latency_models/test_file_predictor"),
    *(
        "pipeline/report",
        "system/test_given",
        "system/test_machine",
        "system/test_supernet",
        "pipeline/evaluators/supernet",
    ),
)
"""Tests that train, export through torch or start processes, by the beginnings of their paths, longest first."""


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Calibrations of this session go to a folder of their own, for its child processes too."""
    home = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        patch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "stubs"))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # two threads that wait for each other are slow on a busy machine
        yield home


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small search through the real command; the tests that change it take a copy."""
    strategy = {"name": "evolution", "population": 4, "sample": 2}
    return search_once(tmp_path_factory, "finished", strategy=strategy, export={"quantize": "auto"})


@pytest.fixture
def run_copy(finished: Finished, tmp_path: Path) -> Path:
    """The finished run, free to be damaged."""
    return Path(shutil.copytree(finished.run, tmp_path / "copy"))


@pytest.fixture
def hwnas(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Call the command line within this process: `hwnas("search", …)` gives code, stdout and stderr."""

    def call(*arguments: object) -> Outcome:
        return in_process(capfd, monkeypatch, *arguments)

    return call


@pytest.fixture(scope="session")
def shared_fashion_mnist() -> Path:
    """The folder of the packed Fashion-MNIST files, where the checkout has one beside it."""
    return shared_data("FashionMNIST/raw")


@pytest.fixture(scope="session")
def fashion_mnist_root(shared_fashion_mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of Fashion-MNIST's own files that may be unpacked into."""
    root = tmp_path_factory.mktemp("fashion")
    shutil.copytree(shared_fashion_mnist, root / "FashionMNIST" / "raw")
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and begin with them, so that no worker is left with a long file at the end."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((at for at, beginning in enumerate(SLOW) if path.startswith(beginning)), len(SLOW))

    for item in items:
        if place(item) < len(SLOW) or "finished" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=place)


def pytest_report_header() -> str:
    return f"hwnas: {Path(sys.executable).with_name('hwnas')} ({json.dumps(os.cpu_count())} cores)"
