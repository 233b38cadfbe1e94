"""The step of a space's widths that follows the device: timed where a search or a calibration begins, then a number."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cli import check_message, small_config
from latency_models.channel_blocks import DENSE, DEPTHWISE, WIDTHS, Block, ChannelBlocks
from latency_models.timing.statistics import Ratio
from pipeline.commands import runs
from pipeline.config.file import dump_config, load_config, parse_config
from pipeline.config.space import ConvNetOptions
from pipeline.costs import width_step
from pipeline.costs.width_step import BlocksRecord, asks_device, read_blocks, words
from pipeline.errors import RunDirectoryError
from pipeline.report.page import write_report
from pipeline.run import RunDirectory
from pipeline.spaces.base import ArchitectureError
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.trials.reporter import Reporter
from pipeline.winner.bundle_builder import BundleBuilder

SPACE = {
    "name": "convnet",
    "width": 16,
    "width_multipliers": [0.5, 1.0, 1.5, 2.0],
    "depths": [1],
    "activations": ["relu"],
    "activation_scope": "network",
}
SEARCHED: dict[str, Any] = {
    "space": {**SPACE, "width_step": "device"},
    "evaluator": {"name": "stub_evaluators:Hash"},
    "objectives": ["accuracy", "macs"],
    "constraints": {},
    "budget": {"trials": 3, "minutes": 5},
}
STEP_8 = [[8, 16, 24, 32], [16, 32, 48, 64], [32, 64, 96, 128]]
STEP_16 = [[16, 32], [16, 32, 48, 64], [32, 64, 96, 128]]


def blocks_of(dense: int | None, depthwise: int | None = 8) -> ChannelBlocks:
    times = {width: Ratio(width / 32, 0.99 * width / 32, 1.01 * width / 32) for width in WIDTHS}
    return ChannelBlocks(
        *(
            Block(channels, "" if channels else f"the times of {kind.name} convolutions are too noisy to tell", times)
            for channels, kind in ((dense, DENSE), (depthwise, DEPTHWISE))
        )
    )


class Found:
    """Answers in place of the clock, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks, self.asked = blocks_of(16), 0
        monkeypatch.setattr(width_step, "find_channel_blocks", self.answer)

    def answer(self, *_: object, **__: object) -> ChannelBlocks:
        self.asked += 1
        return self.blocks


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    return Found(monkeypatch)


@pytest.fixture(autouse=True)
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends with its report; bundles are tested elsewhere."""
    manifest = {"architecture_id": "none", **{key: {} for key in ("won", "limits", "metrics", "int8")}}
    monkeypatch.setattr(BundleBuilder, "finish", lambda *_: manifest)


def config_file(folder: Path, **changes: Any) -> Path:
    return small_config(folder / "config.yaml", **{**SEARCHED, **changes})


def stages_of(step: int, **options: Any) -> list[list[int]]:
    section = ConvNetOptions.model_validate({**SPACE, **options, "width_step": step})
    return [list(stage.widths) for stage in ConvNetSpace(section, (1, 8, 8), 10).plan.stages]


class TestTheWidths:
    def test_are_multiples_of_the_step_and_differ(self) -> None:
        assert stages_of(8) == STEP_8
        assert stages_of(16) == STEP_16

    def test_are_one_block_at_least(self) -> None:
        assert stages_of(32, width=8) == [[32], [32], [32, 64]]
        assert stages_of(256)[0] == [256]

    def test_may_be_any_number(self) -> None:
        assert stages_of(1, width=10)[0] == [5, 10, 15, 20]

    def test_a_space_with_a_single_width_works(self) -> None:
        section = ConvNetOptions.model_validate({**SPACE, "width": 8, "width_step": 128})
        space = ConvNetSpace(section, (1, 8, 8), 10)
        assert space.widths == (128,)
        space.build(space.at(space.size() - 1))

    def test_have_no_step_before_it_is_timed(self, tmp_path: Path) -> None:
        config = load_config(config_file(tmp_path))
        assert asks_device(config)
        with pytest.raises(ArchitectureError, match=r"width_step 'device' is timed where `hwnas search`.*a number"):
            ConvNetSpace(config.space, (1, 8, 8), 10)


class TestTheConfig:
    def test_is_written_as_before_for_eights(self) -> None:
        assert "width_step" not in ConvNetOptions.model_validate({**SPACE}).model_dump_json()
        assert "width_step" not in ConvNetOptions.model_validate({**SPACE, "width_step": 8}).model_dump_json()
        assert '"width_step":16' in ConvNetOptions.model_validate({**SPACE, "width_step": 16}).model_dump_json()

    @pytest.mark.parametrize("value", ["0", "true", "257", "8.0", "devise"])
    def test_mistakes(self, hwnas: Any, tmp_path: Path, value: str) -> None:
        result = hwnas("search", config_file(tmp_path), "--set", f"space.width_step={value}")
        check_message(result, 2, "space.width_step", "a number of channels from 1 to 256, or 'device'")


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def searched(folder: Path, **changes: Any) -> str:
    """Search from the small config; returns the notes, one a line."""
    told = Told()
    runs.search(config_file(folder, **changes), run_dir=folder / "run", reporter=told)
    return "\n".join(told.notes)


def step_of(run: Path) -> object:
    return RunDirectory.open(run).config.space.model_dump().get("width_step", 8)


class TestASearch:
    def test_writes_the_number_into_its_config(self, found: Found, tmp_path: Path) -> None:
        told = searched(tmp_path)
        assert found.asked == 1
        assert "space.width_step: 16. Dense 3×3 convolutions cost by blocks of 16" in told
        assert "24 channels take 0.75 of what 32 do" in told
        assert step_of(tmp_path / "run") == 16
        run = runs.load_run(tmp_path / "run")
        assert {trial.architecture["stage0_width"] for trial in run.trials} <= {16, 32}
        assert "by blocks of 16 channels" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        found.blocks = blocks_of(64)  # a resumed run times nothing again
        config = tmp_path / "run" / "config.yaml"
        config.write_text(config.read_text().replace("trials: 3", "trials: 5"))
        runs.resume(tmp_path / "run")
        assert found.asked == 1
        assert step_of(tmp_path / "run") == 16
        assert len(runs.load_run(tmp_path / "run").trials) == 5

    def test_without_a_clear_block_takes_eights_and_says_why(self, found: Found, tmp_path: Path) -> None:
        found.blocks = blocks_of(None)
        told = searched(tmp_path)
        assert "space.width_step: 8." in told
        assert "dense convolutions are too noisy to tell" in told
        assert "width_step" not in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")

    def test_says_where_a_single_width_is_left(self, found: Found, tmp_path: Path) -> None:
        found.blocks = blocks_of(32)
        assert "a single width is left for stage0 (32)" in searched(tmp_path)

    def test_a_number_is_never_timed(self, found: Found, tmp_path: Path) -> None:
        searched(tmp_path, space=SPACE)
        assert found.asked == 0
        assert not (tmp_path / "run" / "channel_blocks.json").exists()

    def test_a_taken_folder_is_found_before_the_clock_starts(self, found: Found, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").touch()
        with pytest.raises(RunDirectoryError, match="exists and isn't empty; go on with it: hwnas resume"):
            searched(tmp_path)
        assert found.asked == 0


class TestACalibration:
    def calibrate(self, hwnas: Any, config: Path, *arguments: object) -> Any:
        result = hwnas("calibrate", config, "--seconds", "1", "--nets", "0", *arguments)
        assert result.code == 0, result.stderr
        return result

    def test_tells_the_blocks_and_the_widths_beside_them(self, hwnas: Any, found: Found, tmp_path: Path) -> None:
        config = config_file(tmp_path, space=SPACE)
        document = self.calibrate(hwnas, config, "--json", "--output", tmp_path / "m.json").document()
        blocks = document["channel_blocks"]
        assert (blocks["dense"], blocks["depthwise"]) == (16, 8)
        assert blocks["space_widths"] == [8, 16, 24, 32, 48, 64, 96, 128]
        assert blocks["off_block_widths"] == [8, 24]
        assert [row["channels"] for row in blocks["evidence"]["dense"]] == list(WIDTHS)
        assert "2 of the space's 8 widths are no multiples of 16 (8, 24)" in blocks["text"]
        told = " ".join(self.calibrate(hwnas, config, "--output", tmp_path / "n.json").stdout.split())
        assert "blocks of 16 channels" in told

    def test_nothing_clear_is_null_with_a_reason(self, hwnas: Any, found: Found, tmp_path: Path) -> None:
        found.blocks = blocks_of(None, None)
        config = config_file(tmp_path, space=SPACE)
        blocks = self.calibrate(hwnas, config, "--json", "--output", tmp_path / "m.json").document()["channel_blocks"]
        assert blocks["dense"] is blocks["depthwise"] is None
        assert "too noisy" in blocks["dense_unavailable"]
        assert blocks["off_block_widths"] == []

    def test_its_file_has_the_step_that_a_search_takes(self, hwnas: Any, found: Found, tmp_path: Path) -> None:
        model = tmp_path / "m.json"
        config = config_file(tmp_path)
        self.calibrate(hwnas, config, "--output", model)
        assert found.asked == 1
        assert json.loads(model.read_text())["identity"]["space"]["width_step"] == 16
        found.blocks = blocks_of(8)
        told = searched(tmp_path, cost_model=str(model))
        assert found.asked == 1
        assert "space.width_step: 16, as in the cost model" in told
        assert step_of(tmp_path / "run") == 16
        report = tmp_path / "run" / "report.html"
        assert "by blocks of 16 channels" in report.read_text(encoding="utf-8")  # the file's own evidence

    @pytest.mark.parametrize("step", [0, -3, True, "device", 10**9, None])
    def test_a_file_with_an_impossible_step_is_refused(
        self, hwnas: Any, found: Found, tmp_path: Path, step: object
    ) -> None:
        model = tmp_path / "m.json"
        config = config_file(tmp_path)
        self.calibrate(hwnas, config, "--output", model)
        document = json.loads(model.read_text())
        document["identity"]["space"]["width_step"] = step
        model.write_text(json.dumps(document))
        result = hwnas("search", config, "--run-dir", tmp_path / "run", "--set", f"cost_model={model}")
        check_message(result, 2, "cost_model", "another space")


class TestTheReport:
    def run_with(self, folder: Path, content: bytes) -> RunDirectory:
        config = load_config(config_file(folder, space=SPACE))
        return RunDirectory.create(folder / "run", config, content)

    def test_has_nothing_where_nothing_was_timed(self, tmp_path: Path) -> None:
        run = RunDirectory.create(tmp_path / "run", load_config(config_file(tmp_path, space=SPACE)))
        write_report(run, [])
        assert "Channels" not in run.report.read_text(encoding="utf-8")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "dense": "x"}'])
    def test_does_without_a_damaged_file(self, tmp_path: Path, content: bytes) -> None:
        run = self.run_with(tmp_path, content)
        assert read_blocks(run.channel_blocks) is None
        write_report(run, [])

    def test_escapes_what_a_file_says(self, tmp_path: Path) -> None:
        said = {"format": 1, "dense": None, "depthwise": None, "dense_unavailable": "<script>x</script>"}
        run = self.run_with(tmp_path, json.dumps(said).encode())
        write_report(run, [])
        assert "<script>x" not in run.report.read_text(encoding="utf-8")


def test_words_without_a_dense_block() -> None:
    blocks = BlocksRecord.model_validate(blocks_of(None, 8).as_dict())
    config = load_config_of({**SEARCHED, "space": SPACE, "data": {"name": "digits"}})
    assert words(blocks, config).startswith("Depthwise convolutions cost by blocks of 8 channels; dense ones by no")


def load_config_of(values: dict[str, Any]) -> Any:
    return parse_config(values, "here")


def test_a_dumped_config_is_read_as_it_was(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path, space={**SPACE, "width_step": 24}))
    assert yaml.safe_load(dump_config(config))["space"]["width_step"] == 24
