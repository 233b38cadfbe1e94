"""What a newcomer does first: short forms, other directories, other people's folders, a second resume."""

import json
import stat
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from helpers.cli import check_message, small_config
from pipeline.config.data import TorchvisionOptions
from pipeline.config.engine import AutoOptions
from pipeline.config.file import load_config, parse_config
from pipeline.config.strategy import GuidedOptions
from pipeline.data import load_data
from pipeline.errors import ConfigError, HwnasError
from pipeline.registry import make
from pipeline.run import RunDirectory

LEAST = {"data": {"name": "digits"}, "space": {"name": "convnet"}}


def test_a_section_with_a_default_needs_no_name() -> None:
    config = parse_config({**LEAST, "engine": {"memory_gb": 8}, "strategy": {"initial": 4}}, "here")
    assert config.engine == AutoOptions(name="auto", memory_gb=8.0)
    assert config.strategy == GuidedOptions(name="guided", initial=4)


def test_numbers_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {name: digits}\nspace: {name: convnet}\ntrain: {learning_rate: 1e-3, weight_decay: 5E-2}\n")
    config = load_config(path, ["constraints.macs=2e6", "budget.trials=7"])
    assert (config.train.learning_rate, config.train.weight_decay) == (0.001, 0.05)
    assert config.constraints == {"macs": 2e6}
    assert config.budget.trials == 7


@pytest.mark.parametrize("text", ["name=2020-13-45", "seed=[[", "name={a: 1, a: 2}"])
def test_a_value_that_yaml_cannot_read_is_told(tmp_path: Path, text: str) -> None:
    path = small_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="no valid YAML"):
        load_config(path, [text])


def test_a_run_remembers_where_its_data_is_and_may_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {**LEAST, "data": {"name": "fashion_mnist", "root": "here"}}
    run = RunDirectory.create(tmp_path / "run", parse_config(values, "c.yaml"))
    saved = yaml.safe_load((run.path / "config.yaml").read_text())
    assert saved["data"]["root"] == str(tmp_path / "here")
    saved["data"]["root"] = "/elsewhere"
    (run.path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert RunDirectory.open(run.path).digest() == run.digest()


def test_the_data_folder_is_left_as_it_is(fashion_mnist_root: Path) -> None:
    folder = fashion_mnist_root / "FashionMNIST" / "raw"
    before = sorted(path.name for path in folder.iterdir())
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        data = load_data(TorchvisionOptions(name="fashion_mnist", root=str(fashion_mnist_root), train_samples=54_996))
    finally:
        folder.chmod(stat.S_IRWXU)
    assert len(data.train) == 54_996
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_finished_run_is_left_as_it_is(run_copy: Path, hwnas) -> None:
    manifest = run_copy / "bundle" / "manifest.json"
    before = manifest.read_bytes()
    done = hwnas("resume", run_copy, "--json")
    assert done.code == 0, done.stderr
    assert "nothing is left to do" in done.stderr
    assert manifest.read_bytes() == before
    assert json.loads(done.stdout)["picked"] == json.loads(before)["architecture_id"]


def test_both_forms_of_the_trials_at_once_are_a_mistake(run_copy: Path, hwnas) -> None:
    done = hwnas("trials", run_copy, "--csv", "--json")
    assert done.code == 2
    assert "exclude each other" in done.stderr


def test_a_folder_that_is_no_bundle_is_a_mistake(tmp_path: Path, hwnas) -> None:
    check_message(hwnas("verify", tmp_path), 2, "is no bundle", "manifest.json")


def test_what_the_system_refuses_is_told(run_copy: Path, hwnas) -> None:
    report = run_copy / "report.html"
    report.unlink()
    report.mkdir()
    check_message(hwnas("report", run_copy), 2, "report.html")


def test_somebody_elses_failure_is_told_as_theirs() -> None:
    with pytest.raises(HwnasError, match=r"data 'json:loads' can't be made: TypeError"):
        make("data", "json:loads", {}, 3)


def test_data_of_another_kind_is_refused() -> None:
    config = parse_config({**LEAST, "data": {"name": "builtins:type"}}, "here")
    with pytest.raises(HwnasError, match=r"not a pipeline\.data\.DataSet"):
        load_data(config.data)


def test_the_version(hwnas) -> None:
    done = hwnas("--version")
    assert done.code == 0
    assert done.stdout.strip() == version("hwnas")
