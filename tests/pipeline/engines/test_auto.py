"""The engine that decides how many trainings run at a time."""

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import records, small_config
from latency_models.timer import usable_cores
from pipeline.engines.auto import Parallelism, choose_parallelism


class Client:
    """A worker whose training steps at a known rate by its number of threads."""

    def __init__(self, rates: dict[int, float | None]) -> None:
        self.rates, self.begun = rates, False

    def start(self) -> None:
        self.begun = True

    def steps_per_second(self, architecture: object, seconds: float, threads: int) -> float | None:
        assert self.begun
        return self.rates[threads]


@pytest.mark.parametrize(
    ("rates", "parallelism", "gain"),
    [
        ({1: 10.0, 2: 12.5}, Parallelism(2, 1), 1.6),
        ({1: 5.0, 2: 12.5}, Parallelism(1, 2), 0.8),
        ({1: None, 2: 12.5}, Parallelism(1, 2), None),
        ({1: 10.0, 2: None}, Parallelism(1, 2), None),
    ],
)
def test_side_by_side_where_that_trains_more(
    rates: dict[int, float | None], parallelism: Parallelism, gain: float | None
) -> None:
    clients: Any = [Client(rates), Client(rates)]
    assert choose_parallelism(clients, {}) == (parallelism, gain)


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_resumed_run_goes_on_as_it_began(tmp_path: Path, hwnas: Any) -> None:
    config = small_config(
        tmp_path / "c.yaml", budget={"trials": 2, "minutes": 5}, engine={"name": "auto"}, final={"epochs": 1}
    )
    run = tmp_path / "run"
    begun = hwnas("search", config, "--run-dir", run)
    assert begun.code == 0
    (said,) = re.findall(r"(.*): side by side trains \d", begun.stderr)
    told = {(each["workers"], each["threads"]) for each in submissions(run)}
    assert len(told) == 1
    assert said.strip() == str(Parallelism(*told.pop()))
    text = (run / "config.yaml").read_text(encoding="utf-8").replace("trials: 2", "trials: 3")
    (run / "config.yaml").write_text(text, encoding="utf-8")
    resumed = hwnas("resume", run)
    assert resumed.code == 0
    assert "side by side trains" not in resumed.stderr
    assert len({(each["workers"], each["threads"]) for each in submissions(run)}) == 1
    assert len([record for record in records(run) if record.status == "ok"]) == 3


def submissions(run: Path) -> list[dict[str, int]]:
    return [record.details["submission"] for record in records(run) if "workers" in record.details["submission"]]
