"""The report's section on activations: on a finished run, without its file, and where there is nothing to say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.cli import Finished, journal_ids, records
from pipeline.activations import record as activation_report
from pipeline.activations.facts import (
    EVERYWHERE,
    FILE,
    ActivationCurve,
    ActivationSite,
    Costs,
    Effect,
    Effects,
    LearnedParameter,
    PlaceCost,
    read,
)
from pipeline.activations.record import record_activations
from pipeline.commands.runs import report
from pipeline.report.activation_section import activation_section, grouped
from pipeline.run import RunDirectory
from pipeline.trials.journal import TrialRecord
from pipeline.trials.reporter import Reporter

CURVE = ActivationCurve((-1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.5, 1.0))
SITE = ActivationSite(
    path="stages.0.act",
    place="stage0",
    activation="relu",
    kind="ReLU ReLU()",
    units=8,
    mean=0.1,
    std=1.0,
    percentile_1=-2.0,
    percentile_50=0.0,
    percentile_99=2.0,
    saturated=0.5,
    dead=0,
    gradient=1e-4,
    gain=0.7,
    edges=(-2.0, 0.0, 2.0),
    shares=(0.5, 0.5),
    learnt=(),
    curve=CURVE,
)


def manifest_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    return found


def page(run: Path) -> str:
    return report(run).read_text(encoding="utf-8")


class TestFinishedRun:
    def test_the_file_is_of_the_winner(self, finished: Finished) -> None:
        run = RunDirectory.open(finished.run)
        winner = manifest_of(finished.run)
        facts = read(finished.run, winner["architecture_id"], run.digest())
        assert {cost.place: cost.activation for cost in facts.costs.places} == winner["activations"]
        (cost,) = facts.costs.places
        assert (cost.cost_ms is None) == (cost.activation == "relu") == (cost.missing == "relu itself")
        assert facts.effects.trained == sum(r.status == "ok" for r in records(finished.run))
        assert facts.sites.images == 256
        assert "network" in {site.place for site in facts.sites.sites}
        assert all(site.missing == "" and site.curve is not None for site in facts.sites.sites)

    def test_the_page_shows_all_three_parts(self, finished: Finished) -> None:
        text = (finished.run / "report.html").read_text(encoding="utf-8")
        for heading in ("<h2>Activations</h2>", "place by place", "Over the whole search", "Site by site"):
            assert heading in text
        assert "<code>stem.1</code>" in text

    def test_the_page_made_again_shows_the_same(self, run_copy: Path) -> None:
        (run_copy / "report.html").unlink()
        text = page(run_copy)
        facts = json.loads((run_copy / FILE).read_text(encoding="utf-8"))
        assert all(f"<code>{site['path']}</code>" in text for site in facts["sites"]["sites"])

    def test_without_its_file_the_page_is_whole(self, run_copy: Path) -> None:
        (run_copy / FILE).unlink()
        text = page(run_copy)
        assert "there is no activations.json" in text
        assert "Over the whole search" in text
        assert "Site by site" not in text
        assert all(f"<code>{identity}</code>" in text for identity in journal_ids(run_copy))
        assert text.rstrip().endswith("</html>")

    def test_with_a_damaged_file_too(self, run_copy: Path) -> None:
        (run_copy / FILE).write_text('{"format": 1', encoding="utf-8")
        assert "activations.json is damaged" in page(run_copy)

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"mean": 1e308}, "a number that is none, or far too large"),
            ({"edges": [0.0, 1.0], "shares": [0.5, 0.5]}, "a histogram with 2 edges and 2 shares"),
            ({"edges": [0.0, 1.0, 0.5], "shares": [0.5, 0.5]}, "a histogram whose edges descend"),
            ({"edges": [0.0, 1.0], "shares": [-1.0]}, "or with a negative share"),
            ({"curve": {key: [] for key in ("x", "y", "y_low", "y_high", "slope")}}, "a curve whose lists are empty"),
        ],
    )
    def test_and_with_one_whose_numbers_cant_be(self, run_copy: Path, changes: dict[str, Any], fault: str) -> None:
        facts = json.loads((run_copy / FILE).read_text(encoding="utf-8"))
        facts["sites"]["sites"][0].update(changes)
        (run_copy / FILE).write_text(json.dumps(facts), encoding="utf-8")
        text = page(run_copy)
        assert "activations.json is damaged" in text
        assert fault.partition("'")[0] in text

    def test_without_a_bundle_the_trials_still_tell(self, run_copy: Path) -> None:
        shutil.rmtree(run_copy / "bundle")
        text = page(run_copy)
        assert "there is no bundle" in text
        assert "Over the whole search" in text


class Notes(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_fails_becomes_a_note(finished: Finished, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs can't be had, the sites can: the bundle stays, the file says why, the other parts are there."""
    from pipeline.search import load_inputs

    def lost(*_: Any) -> Costs:
        raise ConnectionError("the device is gone")

    monkeypatch.setattr(activation_report, "activation_costs", lost)
    run, notes = RunDirectory.open(run_copy), Notes()
    data, space = load_inputs(run.config, "the test")
    winner = next(r for r in records(run_copy) if r.id == manifest_of(run_copy)["architecture_id"])
    network = space.build(winner.architecture)
    target: Any = SimpleNamespace()
    record_activations(run, data, space, winner, network, records(run_copy), target, notes)
    assert notes.notes == ["activations: no costs: ConnectionError: the device is gone"]
    facts = read(run_copy, winner.id, run.digest())
    assert facts.costs.missing == "ConnectionError: the device is gone"
    assert facts.sites.sites
    assert "No costs: ConnectionError: the device is gone" in page(run_copy)


def fake_run(path: Path) -> Any:
    return SimpleNamespace(path=path, digest=lambda: "digest")


def test_a_space_without_activations_has_no_section(tmp_path: Path) -> None:
    trial = TrialRecord(0, "a", {"op": "conv"}, "ok", 0.5, {"accuracy": 0.5}, "", 1.0, 1.0)
    assert activation_section(fake_run(tmp_path), [trial], None) is None
    assert activation_section(fake_run(tmp_path), [], None) is None


def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effects: Effects, costs: Costs) -> dict[str, Any]:
    facts = SimpleNamespace(effects=effects, costs=costs, sites=SimpleNamespace(images=9, sites=(SITE,), missing=""))
    monkeypatch.setattr("pipeline.report.activation_section.read", lambda *_: facts)
    trial = TrialRecord(0, "a", {"stage0_activation": "silu"}, "ok", 0.5, {"accuracy": 0.5}, "", 1.0, 1.0)
    found = activation_section(fake_run(tmp_path), [trial], {"architecture_id": "a"})
    assert found is not None
    return found


def test_what_the_trials_can_not_tell_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy = (
        Effect("silu", EVERYWHERE, 7, 0.01, -0.01, 0.03),
        Effect("silu", "stage0", 3, 0.005, -0.01, 0.02),
        Effect("tanh", "stage1", 2, -0.02, -0.03, -0.01),
    )
    places = (
        PlaceCost("stage0", "silu", 0.9, 0.88, 0.92, 0.1, 0.08, 0.12),
        PlaceCost("stage1", "tanh", 0.99, 0.97, 1.01, 0.01, -0.01, 0.03),
        PlaceCost("stage2", "relu", missing="relu itself"),
    )
    found = shown(tmp_path, monkeypatch, Effects("relu", 20, 20, 4, accuracy, (), "", "why"), Costs(1.0, places))
    silu, tanh, relu = found["winner"]["rows"]
    assert silu["accuracy"] == "+0.50 points (-1.00 to +2.00), 3 trials: not told from none"
    assert silu["cost"] == "+0.1 ms (+0.08 to +0.12)"
    assert silu["share"] == "+10.0%"
    assert tanh["accuracy"] == "-2.00 points (-3.00 to -1.00), 2 trials"
    assert tanh["cost"].endswith("not told from none")
    assert relu["accuracy"] == relu["cost"] == "relu itself"
    assert found["effects"]["verdict"].startswith("No activation's accuracy can be told")
    assert found["effects"]["missing"] == ["Latency: why"]
    assert "4 of them predicted" in found["effects"]["lead"]
    assert [row["place"] for row in found["effects"]["places"]] == ["stage0", "stage1"]


def test_sites_of_one_fixed_function_share_a_drawing_and_learnt_ones_do_not() -> None:
    learnt = (LearnedParameter("weight", 1, 0.25, 0.4, 0.4, 0.4),)
    prelu = replace(SITE, activation="prelu", kind="PReLU PReLU(1)", learnt=learnt)
    sites = [SITE, replace(prelu, path="a"), replace(SITE, path="b"), replace(prelu, path="c")]
    assert [[site.path for site in group] for group in grouped(sites)] == [["stages.0.act", "b"], ["a"], ["c"]]


def test_learnt_values_stand_beside_where_they_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = (
        LearnedParameter("knots[0]", 1, -1.0, -0.8, -0.8, -0.8),
        LearnedParameter("knots[1]", 1, 1.0, 1.5, 1.5, 1.5),
        LearnedParameter("weight", 8, 0.25, 0.5, 0.1, 0.9),
    )
    site = replace(SITE, learnt=learnt, dead=3)
    monkeypatch.setitem(globals(), "SITE", site)
    sites = shown(tmp_path, monkeypatch, Effects("relu", 0, 0, 0, (), ()), Costs(None, (), missing="why"))["sites"]
    assert sites["learnt"][0]["learnt"] == ["knots -1, 1 → -0.8, 1.5", "weight 0.25 → 0.5 (mean of 8, 0.1 to 0.9)"]
    assert sites["lead"] == "On 9 validation images: 3 dead units at 1 of 1 sites."
