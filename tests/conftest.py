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
    *("system/test_resume", "system/test_commands", "system/test_damage", "system/test_mistakes", "system/test_robust"),
    *("system/library", "system/test_newcomer", "system/test_tampering", "system/test_working", "benchmarks"),
    *(
        "pipeline/engines",
        "pipeline/references",
        "pipeline/winner",
        "pipeline/optimize",
        "pipeline/cli",
        "pipeline/bench",
    ),
    *("pipeline/costs", "pipeline/data", "pipeline/evaluators/test_stopped", "pipeline/evaluators/zero_cost"),
    *("pipeline/spaces", "pipeline/strategies/test_base", "pipeline/strategies/test_guided", "pipeline/test_shims"),
    *("pipeline/strategies/test_wide", "pipeline/test_tables", "export/activations", "export/exporter"),
    *("export/quantization", "export/bundle", "latency_models/test_file_predictor"),
)
"""Tests that train, export through torch or start processes, by the beginnings of their paths."""


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
    return search_once(tmp_path_factory, "finished", strategy={"name": "evolution", "population": 4, "sample": 2})


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
    for item in items:
        path = item.path.relative_to(REPOSITORY / "tests").as_posix()
        if path.startswith(SLOW) or "finished" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_report_header() -> str:
    return f"hwnas: {Path(sys.executable).with_name('hwnas')} ({json.dumps(os.cpu_count())} cores)"
