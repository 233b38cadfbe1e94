"""The report of a long search: many points are one picture, the table has a part, and names have any letters."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.file import parse_config
from pipeline.report.page import write_report
from pipeline.report.plots import front_plot, progress_plot
from pipeline.report.reference_section import Finished
from pipeline.spaces.base import architecture_id
from pipeline.trials.journal import TrialRecord


def trial(number: int) -> TrialRecord:
    architecture = {"depth": number}
    accuracy = 0.5 + 0.4 * (number * 37 % 1001) / 1001
    objectives = {"accuracy": accuracy, "latency_ms": 1.0 + number * 13 % 97}
    identity = architecture_id(architecture)
    return TrialRecord(number, identity, architecture, "ok", accuracy, objectives, "", 1.0, 1.0)


@pytest.mark.parametrize(("count", "pictures"), [(60, 0), (2500, 1)])
def test_many_points_are_one_picture(count: int, pictures: int) -> None:
    records = [trial(number) for number in range(count)]
    for drawing in (front_plot(records, records[:2], "latency_ms", None, None, joined=True), progress_plot(records)):
        assert drawing.count("<image") == pictures
        assert len(drawing) < 400_000


def test_the_best_so_far_rises_where_a_better_one_came() -> None:
    drawing = progress_plot([trial(number) for number in range(40)])
    accuracies = [trial(number).objectives["accuracy"] for number in range(40)]
    rises = sum(value > max(accuracies[:at]) for at, value in enumerate(accuracies) if at)
    steps = max(
        (line.count("L ") for line in re.findall(r'<path d="(M [^"]*)"', drawing.replace("\n", " "))), default=0
    )
    assert steps >= 2 * rises


def test_a_name_with_dollars_is_no_formula() -> None:
    records = [trial(number) for number in range(5)]
    point = Finished("net$_{x}$ \\frac", 0.8, {"latency_ms": 30.0})
    drawing = front_plot(records, records[:1], "latency_ms", None, None, joined=True, finished=[point])
    assert "<!-- net$_{x}$ \\frac -->" in drawing


def page_of(tmp_path: Path, count: int) -> tuple[str, list[TrialRecord]]:
    config = parse_config(
        {"data": {"name": "digits"}, "space": {"name": "convnet"}, "budget": {"trials": count}}, "the test's config"
    )
    records = [trial(number) for number in range(count)]
    place: Any = SimpleNamespace(
        channel_blocks=tmp_path / "channel_blocks.json",
        cost_model=tmp_path / "cost_model.json",
        path=tmp_path,
        config=config,
        bundle=tmp_path / "bundle",
        report=tmp_path / "report.html",
        digest=lambda: "",
    )
    write_report(place, records)
    return (tmp_path / "report.html").read_text(encoding="utf-8"), records


def test_a_long_table_shows_the_best_and_says_where_the_rest_is(tmp_path: Path) -> None:
    page, records = page_of(tmp_path, 1300)
    table = page[page.index("<h2>Trials</h2>") :]
    shown = re.findall(r"<td><code>(\w+)</code></td><td>ok", table)
    assert len(shown) == 1000
    assert "Of 1,300 trials the 1,000 on the front or with the best scores" in table
    assert f"hwnas trials {tmp_path}" in table
    best = max(records, key=lambda record: record.score)
    assert best.id in shown
    order = {record.id: record.number for record in records}
    assert [order[each] for each in shown] == sorted(order[each] for each in shown)
    assert set(re.findall(r'class="ok front"><td><code>(\w+)', table)) <= set(shown)


def test_a_short_table_has_all(tmp_path: Path) -> None:
    page, records = page_of(tmp_path, 30)
    assert all(record.id in page[page.index("<h2>Trials</h2>") :] for record in records)
    assert "best scores" not in page
