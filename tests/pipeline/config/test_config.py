import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cli import SMALL, merged, small_config
from helpers.places import REPOSITORY
from pipeline.bench.config import load_bench
from pipeline.config.base import ThirdParty
from pipeline.config.file import dump_config, load_config, parse_config, parse_section, read_values
from pipeline.config.run import RunConfig
from pipeline.errors import ConfigError

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
LEAST = {"data": {"name": "digits"}, "space": {"name": "convnet"}}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    is_benchmark = "strategies" in read_values(path, [])
    found = load_bench(path, []) if is_benchmark else load_config(path)
    assert found.name == path.stem


def test_only_data_and_space_are_needed() -> None:
    config = parse_config(dict(LEAST), "here")
    assert config.objectives == ["accuracy", "latency_ms"]
    assert config.device.model_dump() == {"name": "cpu", "threads": 1, "batch_size": 1, "precision": "fp32"}
    assert config.strategy.name == "guided"
    assert config.evaluator.name == "train"
    assert config.engine.name == "auto"
    assert config.final.pick == "knee"
    assert config.export.opset == 20
    assert config.constraints == {}
    assert config.metrics() == ("accuracy", "latency_ms")


def test_what_is_dumped_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(small_config(tmp_path / "c.yaml"))
    text = dump_config(config)
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    again = load_config(tmp_path / "again.yaml")
    assert again == config
    assert dump_config(again) == text


def test_a_third_partys_options_survive_the_dump(tmp_path: Path) -> None:
    values = merged(SMALL, {"evaluator": {"name": "mine:Evaluate", "steps": [1, 2], "deep": {"er": True}}})
    config = parse_config(values, "here")
    assert isinstance(config.evaluator, ThirdParty)
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
    assert yaml.safe_load(dump_config(load_config(tmp_path / "again.yaml")))["evaluator"] == values["evaluator"]


def test_is_frozen() -> None:
    config = parse_config(dict(LEAST), "here")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=7", ["seed"], 7),
        ("budget.minutes=0.5", ["budget", "minutes"], 0.5),
        ("space.depths=[1, 2]", ["space", "depths"], [1, 2]),
        ("constraints.size_mb=1.5", ["constraints", "size_mb"], 1.5),
        ("constraints={latency_ms: 2}", ["constraints"], {"latency_ms": 2.0}),
        ("strategy={name: grid, shuffle: false}", ["strategy"], {"name": "grid", "shuffle": False}),
        ("name=a=b", ["name"], None),
        ("device.threads=2", ["device", "threads"], 2),
    ],
)
def test_overrides(tmp_path: Path, text: str, path: list[str], value: Any) -> None:
    file = small_config(tmp_path / "c.yaml")
    if value is None:
        with pytest.raises(ConfigError, match="'a=b'"):
            load_config(file, [text])
        return
    found = json.loads(load_config(file, [text]).model_dump_json())
    for key in path:
        found = found[key]
    assert found == value


def test_the_last_override_wins(tmp_path: Path) -> None:
    file = small_config(tmp_path / "c.yaml")
    assert load_config(file, ["seed=1", "seed=2"]).seed == 2


def test_an_error_carries_its_source_and_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**LEAST, "seed": -1, "budget": {"trial": 3}}, "my.yaml")
    assert caught.value.source == "my.yaml"
    assert len(caught.value.problems) == 2
    assert caught.value.exit_code == 2


def test_a_key_that_is_given_twice_is_told(tmp_path: Path) -> None:
    """YAML forbids it; the first value would be lost in silence."""
    (tmp_path / "c.yaml").write_text(
        "data: {name: digits}\nspace: {name: convnet}\nseed: 1\nseed: 2\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="seed"):
        load_config(tmp_path / "c.yaml")


def test_a_section_on_its_own() -> None:
    assert parse_section("data", {"name": "digits"}, "manifest.json").name == "digits"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"manifest\.json: data\.name: unknown data 'digit'; did you mean 'digits'"):
        parse_section("data", {"name": "digit"}, "manifest.json")


def test_every_default_passes_its_own_check() -> None:
    config = parse_config(dict(LEAST), "here")
    values = json.loads(config.model_dump_json())
    assert parse_config(values, "again") == config
    assert RunConfig.model_fields.keys() == values.keys()


@pytest.mark.parametrize("key", ["train.weight_decay", "reward.exponent", "train.learning_rate", "budget.minutes"])
@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_no_number_that_json_doesnt_know_gets_in(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(small_config(tmp_path / "c.yaml"), [f"{key}={value}"])
