"""The child process of an engine: what it imports of a user's own, and what it knows of other trials."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import SMALL
from helpers.places import REPOSITORY
from pipeline.config.file import parse_config
from pipeline.engines.fork_client import ForkServer
from pipeline.engines.worker_client import WorkerClient
from pipeline.errors import HwnasError
from pipeline.spaces.base import architecture_id
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.user_modules import NameSource, names_from

OWN = """
with open({mark!r}, "a") as file:
    file.write({name!r})

from pipeline.evaluators.base import CandidateEvaluator

class Half(CandidateEvaluator):
    def evaluate(self, model, progress=None):
        return 0.5
"""

OTHER = {"space": {"name": "convnet", "width": 8, "depths": [1, 2, 3]}, "constraints": {"macs": 5_000_000}}
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


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WorkerClient]]:
    """Two workers of one search, whose evaluator is a stub."""
    config = parse_config({**SMALL, **OTHER, "evaluator": {"name": "stub_evaluators:Hash"}}, "small.yaml")
    with names_from(NameSource(REPOSITORY / "tests" / "stubs")):
        server = ForkServer(json.loads(config.model_dump_json()), tmp_path / "log")
        clients = [WorkerClient(server, limit_s=120, memory_bytes=8 * 10**9, threads=1) for _ in range(2)]
    yield clients
    for each in clients:
        each.stop()
    server.stop()


def test_workers_know_what_was_told_and_nothing_else(workers: list[WorkerClient]) -> None:
    """Whichever worker is free, in whichever pieces it heard of the trials, the latency is the same."""
    one, two = workers
    space = ConvNetSpace(parse_config({**SMALL, **OTHER}, "small.yaml").space, (1, 8, 8), 10)
    *tried, last = distinct(space, 18)
    history: list[dict[str, Any]] = []
    sources = []
    for number, architecture in enumerate(tried):  # the first is told after each trial, and runs but half of them
        result = (two if number == 9 else one).judge(architecture, print, (), history)
        trial = {"architecture": architecture, "status": result.status, "objectives": result.objectives}
        history.append({**trial, "details": {"latency": result.details.get("latency", {})}})
        sources.append(result.details.get("latency", {}).get("source"))
    assert "measured" in sources
    assert "predicted" in sources
    told = [client.judge(last, print, (), history).details["latency"] for client in workers]
    two.stop()  # a replaced one hears of all of them at once
    told.append(two.judge(last, print, (), history).details["latency"])
    assert told[0]["source"] == "predicted"
    assert told[0]["predicted"] == told[1]["predicted"] == told[2]["predicted"]


def test_a_worker_that_counts_knows_who_breaks_a_limit(workers: list[WorkerClient]) -> None:
    counter, runner = workers
    space = ConvNetSpace(parse_config({**SMALL, **OTHER}, "small.yaml").space, (1, 8, 8), 10)
    found = set()
    for architecture in distinct(space, 8):
        counted, ran = counter.count(architecture), runner.judge(architecture, print)
        assert counted == (ran if ran.status == "infeasible" else None)
        found.add(ran.status)
    assert found == {"ok", "infeasible"}
    assert counter.count({}) is None  # what is wrong with it, its trial tells


def distinct(space: ConvNetSpace, count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        architecture = dict(space.at(rng.randrange(space.size())))
        found[architecture_id(architecture)] = architecture
    return list(found.values())
