"""A search on shared weights: trained once, kept, checked against networks trained alone, given to another search."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cli import check_message, records, search_once, small_config

EPOCHS = 2
EVALUATOR = {"name": "supernet", "epochs": EPOCHS, "networks": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search on weights that it trained itself."""
    finished = search_once(tmp_path_factory, "supernet", evaluator=EVALUATOR, final={"epochs": 1})
    return finished.run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_search_trains_the_weights_and_ranks_by_them(run: Path) -> None:
    assert (run / "supernet.safetensors").is_file()
    assert not (run / "checkpoints" / "supernet.safetensors").exists()
    trials = [each for each in records(run) if each.status == "ok"]
    assert len(trials) == 6
    assert all(each.details["weights"] == "inherited" for each in trials)
    assert (run / "bundle" / "model.onnx").is_file()


def test_the_check_compares_with_networks_trained_alone(hwnas: Any, copied: Path) -> None:
    outcome = hwnas("supernet-check", copied, "--networks", 6, "--epochs", 1, "--json")
    assert outcome.code == 0, outcome.stderr
    found = outcome.document()
    assert found["ok"] is True
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        assert 0 <= row["inherited"] <= 1
        assert 0 <= row["trained"] <= 1
        assert row["macs"] > 0
    spearman = found["all"]["inherited"]["spearman"]
    assert -1 <= spearman["low"] <= spearman["value"] <= spearman["high"] <= 1
    assert found["best"]["networks"] == 1
    assert found["best"]["inherited"] is None, "too few for a rank"
    kept = (copied / "supernet_check.jsonl").read_bytes()
    assert kept.count(b"\n") == 6
    again = hwnas("supernet-check", copied, "--networks", 6, "--epochs", 1)
    assert again.code == 0, again.stderr
    assert "Spearman" in again.stdout
    assert (copied / "supernet_check.jsonl").read_bytes() == kept, "nothing is trained twice"


def test_another_search_takes_given_weights(hwnas: Any, run: Path, tmp_path: Path) -> None:
    given = {"name": "supernet", "weights": str(run / "supernet.safetensors")}
    path = small_config(tmp_path / "c.yaml", evaluator=given, budget={"trials": 2}, final={"epochs": 1}, seed=5)
    outcome = hwnas("search", path, "--run-dir", tmp_path / "other")
    assert outcome.code == 0, outcome.stderr
    assert "Training the weights" not in outcome.stderr
    assert (tmp_path / "other" / "supernet.safetensors").read_bytes() == (run / "supernet.safetensors").read_bytes()


def test_a_moved_run_goes_on_with_its_own_weights(hwnas: Any, copied: Path) -> None:
    config = copied / "config.yaml"
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["budget"]["trials"] = 8
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    outcome = hwnas("resume", copied)
    assert outcome.code == 0, outcome.stderr
    assert "Training the weights" not in outcome.stderr
    assert len([each for each in records(copied) if each.status == "ok"]) == 8


class TestMistakes:
    def test_a_run_without_shared_weights(self, hwnas: Any, run_copy: Path) -> None:
        check_message(hwnas("supernet-check", run_copy), 2, "its evaluator is train")

    def test_weights_that_are_not_there(self, hwnas: Any, tmp_path: Path) -> None:
        path = small_config(tmp_path / "c.yaml", evaluator={"name": "supernet", "weights": "nowhere.safetensors"})
        check_message(hwnas("search", path, "--run-dir", tmp_path / "run"), 2, "nowhere.safetensors")
        assert not (tmp_path / "run").exists()

    def test_no_epochs_and_no_weights(self, hwnas: Any, tmp_path: Path) -> None:
        path = small_config(tmp_path / "c.yaml", evaluator={"name": "supernet", "epochs": 0})
        check_message(hwnas("search", path), 2, "epochs is 0, but there are no weights")

    def test_damaged_weights(self, hwnas: Any, copied: Path) -> None:
        (copied / "supernet.safetensors").write_bytes(b"nothing")
        check_message(hwnas("supernet-check", copied), 3, "supernet.safetensors", "damaged")
