"""`hwnas calibrate` and the searches that use what it made, within this process."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.exporter.graph_builder import quick_graph
from helpers.cli import Outcome, check_message, records, small_config
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter
from pipeline.config.data import DigitsOptions
from pipeline.config.file import load_config
from pipeline.config.space import ConvNetOptions
from pipeline.costs import calibration
from pipeline.costs.latency_predictor import BlockwisePredictor, FeaturePredictor
from pipeline.data import load_data
from pipeline.engines.trial import TrialRunner
from pipeline.report import page
from pipeline.run import RunDirectory
from pipeline.spaces.base import SearchSpace
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.make import make_space
from pipeline.trials.reporter import Reporter
from pipeline.winner.bundle_builder import BundleBuilder

FIELDS = {
    "file",
    "model",
    "held_out_median_error",
    "held_out_p90_error",
    "nets",
    "channel_blocks",
    "probe_seconds",
    "net_seconds",
}
# Not the space of any search in other tests, whose cost model would be found there.
SPACE = {"activations": ["relu", "hardswish"], "width": 16}
SEARCHED = {
    "space": SPACE,
    "evaluator": {"name": "stub_evaluators:Hash"},
    "objectives": ["accuracy", "latency_ms"],
    "constraints": {"macs": 30_000_000},
    "budget": {"trials": 14, "minutes": 5},
    "final": {"epochs": 1},
}


class WholeSpace(ConvNetSpace):
    """The same networks, whose blocks nobody tells."""

    def blocks(self, architecture: Any) -> None:  # type: ignore[override]
        return None


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)


def config_file(folder: Path, **changes: Any) -> Path:
    return small_config(folder / "config.yaml", **{**SEARCHED, **changes})


def latencies(run: Path) -> list[dict[str, Any]]:
    return [record.details["latency"] for record in records(run)]


class Calibrated:
    """One calibration through the command line, at the place where searches find it."""

    def __init__(self, config: Path, result: Outcome) -> None:
        self.config, self.result = config, result
        assert result.code == 0, result.stderr
        self.document: dict[str, Any] = result.document()
        self.path = Path(self.document["file"])


@pytest.fixture(scope="module", autouse=True)
def references_timed(data_home: Path) -> None:
    """The first measurements in an environment take seconds, of the few that calibrations get here."""
    data = load_data(DigitsOptions(name="digits"))
    space = ConvNetSpace(ConvNetOptions(name="convnet"), data.input_shape, len(data.classes))
    graph, _ = quick_graph(space.build(space.at(0)), data.input_shape)
    with LatencyMeter(Device()) as meter:
        meter.measure(graph.SerializeToString(), budget_s=0.02)


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends with its report; bundles are tested elsewhere."""
    manifest = {"architecture_id": "none", **{key: {} for key in ("won", "limits", "metrics", "int8")}}
    monkeypatch.setattr(BundleBuilder, "finish", lambda *_: manifest)


@pytest.fixture(scope="module")
def cache() -> dict[str, Calibrated]:
    return {}


@pytest.fixture
def calibrated(hwnas: Any, cache: dict[str, Calibrated], tmp_path: Path) -> Calibrated:
    """Made once for the module: by the first test that asks."""
    if not cache:
        config = config_file(tmp_path)
        cache["one"] = Calibrated(config, hwnas("calibrate", config, "--seconds", "2", "--nets", "2", "--json"))
    return cache["one"]


class TestTheCommand:
    def test_tells_what_came_of_it(self, calibrated: Calibrated) -> None:
        document = calibrated.document
        assert document.keys() >= FIELDS
        probes, nets = map(int, re.findall(r"\d+", document["model"]))
        assert probes > 5
        assert nets == len(document["nets"]) == 2
        assert all(row["latency_ms"] > 0 and row["predicted_ms"] > 0 for row in document["nets"])
        if probes + nets < 12:  # two seconds are few on a busy machine: too few to hold some out
            assert document["held_out_median_error"] is document["held_out_p90_error"] is None
        else:
            assert 0 < document["held_out_median_error"] <= document["held_out_p90_error"]
        assert document["probe_seconds"] >= 2
        assert document["net_seconds"] > 0

    def test_the_file_says_what_it_is_of(self, calibrated: Calibrated) -> None:
        document = json.loads(calibrated.path.read_text(encoding="utf-8"))
        assert document["identity"]["space"]["activations"] == ["relu", "hardswish"]
        assert document["identity"]["input_shape"] == [1, 8, 8]
        assert document["device"]["name"] == "cpu"
        rows = document["model"]["observations"]
        assert [row["whole"] for row in rows].count(True) == 2

    def test_progress_is_told_apart_from_the_result(self, calibrated: Calibrated) -> None:
        assert "cost model" in calibrated.result.stderr
        assert "Traceback" not in calibrated.result.stderr

    def test_for_people_and_to_a_place_of_choice(self, hwnas: Any, tmp_path: Path) -> None:
        output = tmp_path / "new folder" / "mine.json"
        # The file that a config names may be the one that is to be made.
        config = config_file(tmp_path, cost_model=str(output))
        result = hwnas("calibrate", config, "--seconds", "1", "--nets", "0", "--output", output)
        assert result.code == 0, result.stderr
        assert output.is_file()
        assert "0 whole networks" in result.stdout
        assert "error on held-out blocks" in result.stdout
        assert str(output.parent.parent) in result.stdout.replace("\n", "")
        read = TrialRunner(load_config(config))
        architecture = read.space.at(3)
        _, _, details = read.cost(architecture, read.space.build(architecture))
        assert details["latency"]["source"] == "predicted"

    def test_settings_can_be_changed(self, hwnas: Any, tmp_path: Path) -> None:
        config = config_file(tmp_path)
        assert hwnas("calibrate", config, "--seconds", "0").code == 2
        result = hwnas("calibrate", config, "--seconds", "1", "--device", "cpux")
        check_message(result, 2, "device", "'cpux'", "did you mean 'cpu'?")
        result = hwnas("calibrate", config, "--seconds", "1", "--set", "space.widht=12")
        check_message(result, 2, "space.widht", "'width'")


class TestOfOtherDevicesAndSpaces:
    @pytest.fixture(autouse=True)
    def in_a_hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calibration, "NET_SECONDS", 0.1)

    def calibrate(self, tmp_path: Path, space_class: type[ConvNetSpace] | None = None, **changes: Any) -> Any:
        config = load_config(config_file(tmp_path, **changes))
        data = load_data(config.data)
        space: SearchSpace = make_space(config, data)
        if space_class is not None:
            space = space_class(config.space, data.input_shape, len(data.classes))
        made = calibration.Calibrator(config, data, space, Reporter())
        return made.run(seconds=1.0, nets=2 if space_class is None else 12, output=tmp_path / "found.json")

    def test_int8_blocks_and_networks_are_quantised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnx

        from export.quantization.quantize import is_quantized

        seen = []
        measure = calibration.LatencyMeter.measure

        def spy(meter: Any, content: bytes, **options: Any) -> Any:
            seen.append(is_quantized(onnx.load_model_from_string(content)))
            return measure(meter, content, **options)

        observed = []
        observe = BlockwisePredictor.observe

        def spied(model: Any, architecture: Any, counted: Any, *more: float) -> None:
            observed.append((architecture, counted))
            observe(model, architecture, counted, *more)

        monkeypatch.setattr(calibration.LatencyMeter, "measure", spy)
        monkeypatch.setattr(BlockwisePredictor, "observe", spied)
        result = self.calibrate(tmp_path, device={"precision": "int8"})
        assert len(seen) >= 4
        assert all(seen)
        assert json.loads(result.path.read_text(encoding="utf-8"))["device"]["precision"] == "int8"
        # What it counts is what a search counts of the same network.
        runner = TrialRunner(load_config(tmp_path / "config.yaml"))
        architecture, counted = observed[0]
        assert runner.cost(architecture, runner.space.build(architecture))[1].items() >= counted.items()

    def test_a_space_without_blocks_is_learnt_from_whole_networks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = []
        build = WholeSpace.build

        def spied(space: WholeSpace, architecture: Any) -> Any:
            built.append(architecture)
            return build(space, architecture)

        monkeypatch.setattr(WholeSpace, "build", spied)
        result = self.calibrate(tmp_path, WholeSpace)
        assert len(built) == 12  # only what is timed
        assert result.description == "features: 12 whole networks"
        assert result.held_out is None
        assert result.probe_seconds == 0.0
        assert ["predicted_ms" in row for row in result.nets] == [False] * 10 + [True] * 2
        assert json.loads(result.path.read_text(encoding="utf-8"))["kind"] == FeaturePredictor.kind


class TestASearch:
    def test_finds_the_model_in_its_place_and_reports_on_it(
        self, hwnas: Any, no_end: None, calibrated: Calibrated, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        result = hwnas("search", config_file(tmp_path), "--run-dir", run, "--json")
        assert result.code == 0, result.stderr
        told = latencies(run)
        assert len(told) == 14
        assert all("predicted" in latency for latency in told)
        assert all(latency["low_ms"] < latency["high_ms"] for latency in told)
        measured = sum(latency["source"] == "measured" for latency in told)
        front = [row for row in hwnas("trials", run, "--json").document() if row["on_front"]]
        assert 0 < len(front) <= measured
        assert all(row["details"]["latency"]["source"] == "measured" for row in front)
        shown = (run / "report.html").read_text(encoding="utf-8")
        assert "Predicted and measured latencies" in shown
        assert f"Of 14 latencies {measured} were measured and {14 - measured} only predicted" in shown
        assert f"{measured} were predicted first and then measured" in shown
        assert shown.count("<svg") == 4  # front, progress, predictions, activations
        config = RunDirectory.open(run).config
        page.write_report(RunDirectory(run, config.model_copy(update={"cost_model": "measure"})), records(run))
        assert "Predicted and measured latencies" not in (run / "report.html").read_text(encoding="utf-8")

    def test_predict_makes_the_model_first_and_only_once(
        self, hwnas: Any, no_end: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibration, "BLOCK_SECONDS", {"fp32": 1.0})
        monkeypatch.setattr(calibration, "NETS", {"operators": 2, "features": 12})
        space = {**SPACE, "activations": ["relu", "hardsigmoid"]}
        path = config_file(tmp_path, space=space, cost_model="predict", budget={"trials": 2, "minutes": 5})
        result = hwnas("search", path, "--run-dir", tmp_path / "run", "--json")
        assert result.code == 0, result.stderr
        assert "Building a cost model" in result.stderr
        assert all("predicted" in latency for latency in latencies(tmp_path / "run"))
        told = Told()
        config = load_config(path)
        data = load_data(config.data)
        calibration.ensure_cost_model(config, data, make_space(config, data), told)
        assert told.stages == []

    def test_uses_the_file_that_it_is_told(self, calibrated: Calibrated, tmp_path: Path) -> None:
        named = tmp_path / "named.json"
        named.write_bytes(calibrated.path.read_bytes())
        runner = TrialRunner(load_config(config_file(tmp_path, cost_model=str(named))))
        architecture = runner.space.at(5)
        _, objectives, details = runner.cost(architecture, runner.space.build(architecture))
        assert details["latency"]["source"] == "predicted"
        assert objectives["latency_ms"] == details["latency"]["predicted"]["latency_ms"]

    def test_a_run_keeps_the_file_that_it_was_told_wherever_it_goes(
        self, hwnas: Any, no_end: None, calibrated: Calibrated, tmp_path: Path
    ) -> None:
        named = tmp_path / "named.json"
        named.write_bytes(calibrated.path.read_bytes())
        config = config_file(tmp_path, cost_model=str(named), budget={"trials": 2, "minutes": 5})
        result = hwnas("search", config, "--run-dir", tmp_path / "run", "--json")
        assert result.code == 0, result.stderr
        kept = tmp_path / "run" / "cost_model.json"
        written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
        assert written["cost_model"] == str(kept)
        assert kept.read_bytes() == named.read_bytes()

        named.unlink()
        moved = (tmp_path / "run").rename(tmp_path / "moved")
        written["budget"]["trials"] = 4
        (moved / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
        result = hwnas("resume", moved, "--json")
        assert result.code == 0, result.stderr
        assert len(latencies(moved)) == 4
        assert all("predicted" in latency for latency in latencies(moved))

    def test_a_relative_file_is_found_from_anywhere_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = config_file(tmp_path, cost_model="mine.json")
        assert load_config(config).cost_model == str(tmp_path / "mine.json")

    @pytest.mark.parametrize(
        ("case", "words"),
        [
            ("missing", ("there is no cost model", "hwnas calibrate")),
            ("damaged", ("damaged",)),
            ("of another space", ("another space or input", "width 16 there, 24 here")),
            ("of another device", ("another device", "threads 1 there, 2 here")),
            ("of another environment", ("another environment",)),
        ],
    )
    def test_a_file_that_cant_be_used_is_told_before_anything_is_made(
        self, hwnas: Any, calibrated: Calibrated, tmp_path: Path, case: str, words: tuple[str, ...]
    ) -> None:
        named = tmp_path / "named.json"
        content = calibrated.path.read_text(encoding="utf-8")
        changes: dict[str, Any] = {}
        if case == "damaged":
            content = content[:-9]
        elif case == "of another space":
            changes["space"] = {**SPACE, "width": 24}
        elif case == "of another device":
            changes["device"] = {"threads": 2}
        elif case == "of another environment":
            document = json.loads(content)
            document["environment"] = {**document["environment"], "cpu_model": "an abacus", "fingerprint": "0" * 16}
            content = json.dumps(document)
        if case != "missing":
            named.write_text(content, encoding="utf-8")
        config = config_file(tmp_path, cost_model=str(named), **changes)
        result = hwnas("search", config, "--run-dir", tmp_path / "run")
        check_message(result, 3 if case == "damaged" else 2, str(named), *words)
        assert not (tmp_path / "run").exists()

    def test_what_is_neither_a_way_nor_a_file_is_told(self, hwnas: Any, tmp_path: Path) -> None:
        for wrong, words in {"predictt": ("did you mean 'predict'?", ".json"), "model.yaml": (".json",)}.items():
            result = hwnas("search", config_file(tmp_path, cost_model=wrong), "--run-dir", tmp_path / "run")
            check_message(result, 2, "cost_model", repr(wrong), *words)
        assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["cost_model"] == "model.yaml"
        assert not (tmp_path / "run").exists()
