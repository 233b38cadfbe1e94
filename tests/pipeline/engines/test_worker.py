"""The child process of an engine imports a user's own modules by the rules of its parent."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.cli import SMALL
from pipeline.config.file import parse_config
from pipeline.engines.fork_client import ForkServer
from pipeline.engines.worker_client import WorkerClient
from pipeline.errors import HwnasError
from pipeline.user_modules import NameSource, names_from

OWN = """
with open({mark!r}, "a") as file:
    file.write({name!r})

from pipeline.evaluators.base import CandidateEvaluator

class Half(CandidateEvaluator):
    def evaluate(self, model, progress=None):
        return 0.5
"""

Client = Callable[[NameSource], WorkerClient]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def folder(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with namesakes of libraries, and a folder `code` below it with an evaluator."""
    (tmp_path / "code").mkdir()
    for name in ("torch", "selectors", "own_evaluator_elsewhere", "code/own_judge"):
        (tmp_path / f"{name}.py").write_text(OWN.format(mark=str(mark), name=f"{name} "), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    started: list[WorkerClient] = []
    servers: list[ForkServer] = []

    def start(source: NameSource) -> WorkerClient:
        config = parse_config({**SMALL, "evaluator": {"name": "own_judge:Half"}}, "small.yaml")
        setup = json.loads(config.model_dump_json())
        with names_from(source):
            servers.append(ForkServer(setup, folder / "log"))
            started.append(WorkerClient(servers[-1], limit_s=120, memory_bytes=8 * 10**9))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    for server in servers:
        server.stop()


def test_it_looks_in_the_folder_of_code_alone(client: Client, folder: Path, mark: Path) -> None:
    result = client(NameSource(folder / "code")).judge({}, print)
    assert (result.status, mark.read_text(encoding="utf-8")) == ("failed", "code/own_judge ")  # {} is no architecture
    assert "lacks" in str(result.error)


def test_it_imports_nothing_of_a_run(client: Client, folder: Path, mark: Path) -> None:
    for source in (NameSource(), NameSource(given=folder / "code")):
        with pytest.raises(HwnasError, match="No module named 'own_judge'"):
            client(source).judge({}, print)
    (folder / "own_judge.py").symlink_to(folder / "code" / "own_judge.py")
    with pytest.raises(HwnasError, match="nothing is imported from a run's or bundle's folder"):
        client(NameSource(given=folder / "code")).judge({}, print)
    assert not mark.exists()
