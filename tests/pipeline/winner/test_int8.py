"""A device of precision int8: candidates are judged as what will be deployed, and that is what a bundle vouches for."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.bundle.manifest import read_manifest
from export.bundle.verify import verify_bundle
from export.bundle.write import write_bundle
from export.checks import accuracy
from export.exporter.graph_builder import quick_graph
from export.quantization.quantize import is_quantized, quantize_int8, quantize_like
from export.quantization.ranges import METHODS
from helpers.cli import Finished, check_message, command, records, search_once, small_config
from latency_models.counted_costs import static_costs
from latency_models.devices.device import Device
from pipeline.config.file import parse_config
from pipeline.costs.precision import calibration_images, quantizer_for
from pipeline.data import load_data
from pipeline.engines.trial import TrialRunner
from pipeline.evaluators.base import CandidateEvaluator
from pipeline.run import RunDirectory

INT8 = {"device": {"precision": "int8"}}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small search for an INT8 device, through the real command."""
    limits = {"macs": 3_000_000, "params": 100_000, "size_mb": 0.2, "latency_ms": 50}
    return search_once(
        tmp_path_factory,
        "int8",
        **INT8,
        export={"quantize": "auto"},
        constraints=limits,
        budget={"trials": 3, "minutes": 5},
    )


@pytest.fixture
def bundle(searched: Finished, tmp_path: Path) -> Path:
    """The search's bundle, free to be damaged."""
    return Path(shutil.copytree(searched.run / "bundle", tmp_path / "bundle"))


def trial_runner(**changes: Any) -> TrialRunner:
    config = {
        "data": {"name": "digits"},
        "space": {"name": "convnet", "width": 8, "depths": [1]},
        "evaluator": {"name": "train", "epochs": 1},
        "objectives": ["accuracy", "size_mb"],
        **changes,
    }
    return TrialRunner(parse_config(config, "the test's config"))


def first_architecture(runner: TrialRunner) -> dict[str, Any]:
    return dict(runner.space.canonical({choice.label: choice.values[0] for choice in runner.space.choices}))


class Untouched(CandidateEvaluator):
    """Leaves the network as it was built, and keeps it for the test to look at."""

    def evaluate(self, model: Any, progress: Any = None) -> float:
        self.model = model
        return 0.25


class Oracle(Untouched):
    """Knows accuracies without training."""

    trains = False


class TestATrial:
    def test_costs_are_the_quantised_graphs(self) -> None:
        runner = trial_runner(**INT8)
        architecture = first_architecture(runner)
        network = runner.space.build(architecture)
        source = quick_graph(network, runner.data.input_shape)[0].SerializeToString()
        plain, quantized = static_costs(source, Device()), static_costs(quantize_like(source), Device())
        _, objectives, _ = runner.cost(architecture, network)
        assert objectives["size_mb"] == quantized.size_bytes / 1e6 < plain.size_bytes / 1e6
        assert objectives["peak_memory_mb"] == quantized.peak_memory_bytes / 1e6
        assert (objectives["macs"], objectives["params"]) == (plain.macs, plain.params)

    def test_what_is_timed_is_quantised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[bytes] = []
        for precision in ("int8", "fp32"):
            runner = trial_runner(device={"precision": precision})
            measure = runner.target.meter.measure

            def spy(content: bytes, measure: Any = measure, **options: Any) -> Any:
                seen.append(content)
                return measure(content, **options)

            monkeypatch.setattr(runner.target.meter, "measure", spy)
            architecture = first_architecture(runner)
            runner.cost(architecture, runner.space.build(architecture))
        assert [is_quantized(onnx.load_model_from_string(content)) for content in seen] == [True, False]

    def test_the_accuracy_is_the_quantised_networks(self) -> None:
        runner = trial_runner(**INT8)
        evaluator = Untouched(runner.config.evaluator, runner.data, runner.config.train)
        runner.evaluator = evaluator
        result = runner.run(first_architecture(runner))
        graph, _ = quick_graph(evaluator.model, runner.data.input_shape)
        model = quantize_int8(graph, calibration_images(runner.data)).SerializeToString()
        validation = runner.data.validation
        wanted = accuracy(model, runner.data.preprocessing.apply(validation.images), validation.labels)
        assert result.objectives["accuracy"] == wanted
        assert result.details["accuracy_fp32"] == 0.25 != wanted

    def test_at_fp32_the_evaluators_word_stands(self) -> None:
        runner = trial_runner()
        runner.evaluator = Untouched(runner.config.evaluator, runner.data, runner.config.train)
        result = runner.run(first_architecture(runner))
        assert result.objectives["accuracy"] == 0.25
        assert "accuracy_fp32" not in result.details

    def test_a_network_that_cant_be_quantised_is_a_failed_trial(self, tmp_path: Path) -> None:
        (tmp_path / "wild.py").write_text(
            "import torch\n"
            "from pipeline.evaluators.base import CandidateEvaluator\n"
            "class Wild(CandidateEvaluator):\n"
            "    def evaluate(self, model, progress=None):\n"
            "        next(model.parameters()).data.fill_(float('nan'))\n"
            "        return 0.5\n",
            encoding="utf-8",
        )
        config = small_config(
            tmp_path / "wild.yaml", **INT8, evaluator={"name": "wild:Wild"}, budget={"trials": 1, "minutes": 5}
        )
        result = command("search", str(config), "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
        assert result.code == 3
        (record,) = records(tmp_path / "run")
        assert record.status == "failed"
        assert "can't be quantised" in record.error
        assert "nan" in record.error


class TestCalibration:
    def test_images_come_from_the_whole_training_split(self) -> None:
        data = load_data(parse_config({"data": {"name": "digits"}, "space": {"name": "convnet"}}, "a test").data)
        images = calibration_images(data)
        assert images.shape == (256, 1, 8, 8)
        assert images.dtype == np.float32
        train = data.preprocessing.apply(data.train.images)
        assert np.array_equal(images[0], train[0])
        assert np.array_equal(images[-1], train[-1])
        assert len({image.tobytes() for image in images}) > 250

    def test_an_fp32_device_runs_what_it_is_given(self) -> None:
        assert quantizer_for("fp32")(b"model") == b"model"
        assert quantizer_for("int8") is quantize_like


class TestTheBundle:
    def test_what_is_deployed_is_quantised(self, searched: Finished) -> None:
        manifest = read_manifest(searched.run / "bundle")
        assert manifest["deployed"] == "model.int8.onnx"
        assert manifest["int8"]["kept"] is True
        assert is_quantized(onnx.load(searched.run / "bundle" / "model.int8.onnx"))
        assert not is_quantized(onnx.load(searched.run / "bundle" / "model.onnx"))
        assert 'InferenceSession("model.int8.onnx"' in (searched.run / "bundle" / "README.md").read_text("utf-8")

    def test_what_it_won_is_the_quantised_files(self, searched: Finished) -> None:
        manifest, metrics = read_manifest(searched.run / "bundle"), searched.result.document()["metrics"]
        data = load_data(RunDirectory.open(searched.run).config.data)
        files = {name: searched.run / "bundle" / name for name in ("model.onnx", "model.int8.onnx")}
        splits = {"validation": data.validation, "test": data.load_test()}
        found = {
            (name, split): accuracy(path, data.preprocessing.apply(images.images), images.labels)
            for name, path in files.items()
            for split, images in splits.items()
        }
        assert manifest["won"]["accuracy"] == metrics["accuracy_validation"] == found["model.int8.onnx", "validation"]
        assert metrics["accuracy_test"] == found["model.int8.onnx", "test"]
        assert metrics["accuracy_test_fp32"] == pytest.approx(found["model.onnx", "test"], abs=0.003)
        assert metrics["size_bytes"] == files["model.int8.onnx"].stat().st_size
        assert metrics["params"] == static_costs(files["model.onnx"].read_bytes(), Device()).params

    def test_what_was_tried_is_told(self, searched: Finished) -> None:
        int8 = read_manifest(searched.run / "bundle")["int8"]
        assert {attempt["method"] for attempt in int8["tried"]} == {None, *METHODS}
        assert int8["method"] in METHODS
        page = (searched.run / "report.html").read_text("utf-8")
        assert f"what was tried ({len(int8['tried'])} attempts)" in page
        assert all(attempt["plan"] in page for attempt in int8["tried"])

    def test_it_verifies(self, searched: Finished, hwnas: Any) -> None:
        result = hwnas("verify", searched.run / "bundle", "--json")
        checks = {check["name"]: check for check in result.document()["checks"]}
        assert result.code == 0, result.stdout
        for name in ("accuracy", "int8 accuracy", "parity", "limit size_mb", "limit params", "limit latency_ms"):
            assert checks[name]["ok"] is True, checks[name]
        size = (searched.run / "bundle" / "model.int8.onnx").stat().st_size
        assert checks["limit size_mb"]["detail"].startswith(f"{size / 1e6:.6g},")

    def test_without_the_quantised_file_it_doesnt(self, bundle: Path) -> None:
        (bundle / "model.int8.onnx").unlink()
        bad = {check.name: check.detail for check in verify_bundle(bundle) if check.ok is False}
        assert "model.int8.onnx is missing" in bad["files"]

    @pytest.mark.parametrize(
        ("deployed", "words"),
        [("model.int8.onnx", "missing or can't be loaded"), ("../other.onnx", "valid: model.onnx, model.int8.onnx")],
    )
    def test_a_manifest_cant_name_a_file_that_isnt_there(self, bundle: Path, deployed: str, words: str) -> None:
        samples = np.load(bundle / "samples.npz")
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8")) | {"deployed": deployed}
        plain = (bundle / "model.onnx").read_bytes()
        arrays = {"inputs": samples["inputs"], "outputs": samples["outputs"], "raw_inputs": samples["images"]}
        write_bundle(bundle, model=plain, manifest=manifest, **arrays)
        measured: list[Path] = []
        checks = verify_bundle(bundle, measure=lambda path, _: measured.append(path) or {})  # type: ignore[func-returns-value]
        assert [check.detail for check in checks if check.name == "deployed" and words in check.detail]
        assert measured == []


class TestMistakes:
    def test_never_quantising_contradicts_the_device(self, hwnas: Any, tmp_path: Path) -> None:
        config = small_config(tmp_path / "never.yaml", **INT8, export={"quantize": "never"})
        check_message(hwnas("search", config), 2, "never.yaml", "export.quantize", "device.precision", "auto")

    def test_an_evaluator_that_doesnt_train(self, hwnas: Any, tmp_path: Path) -> None:
        config = small_config(tmp_path / "oracle.yaml", **INT8, evaluator={"name": f"{__name__}:Oracle"})
        check_message(hwnas("search", config), 2, "oracle.yaml", "evaluator", "without training", "fp32")


class TestProfile:
    def test_a_float_file_is_quantised_and_the_reader_told(self, searched: Finished, hwnas: Any) -> None:
        path = searched.run / "bundle" / "model.onnx"
        result = hwnas("profile", path, "--precision", "int8", "--seconds", "0.2", "--json")
        assert result.code == 0, result.stderr
        document = result.document()
        assert document["model"] == str(path)
        assert document["size_bytes"] == len(quantize_like(path.read_bytes())) < path.stat().st_size
        assert "made-up ranges" in document["warnings"][0]

    def test_a_quantised_file_is_taken_as_it_is(self, searched: Finished, hwnas: Any) -> None:
        path = searched.run / "bundle" / "model.int8.onnx"
        result = hwnas("profile", path, "--precision", "int8", "--seconds", "0.2", "--json")
        assert result.document()["size_bytes"] == path.stat().st_size
        assert not [text for text in result.document()["warnings"] if "made-up" in text]

    def test_weights_beside_the_file(self, searched: Finished, hwnas: Any, tmp_path: Path) -> None:
        model = onnx.load(searched.run / "bundle" / "model.onnx")
        onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        result = hwnas("profile", tmp_path / "apart.onnx", "--precision", "int8", "--seconds", "0.2", "--json")
        assert result.code == 0, result.stderr

    def test_what_cant_be_quantised(self, hwnas: Any, tmp_path: Path) -> None:
        value = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
        opsets = [onnx.helper.make_opsetid("", 20)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "relu.onnx")
        result = hwnas("profile", tmp_path / "relu.onnx", "--precision", "int8")
        check_message(result, 2, "relu.onnx", "no convolution", "--precision fp32")

    def test_what_is_no_model(self, hwnas: Any, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("no model")
        check_message(hwnas("profile", tmp_path / "text.onnx", "--precision", "int8"), 2, "text.onnx")
