"""`hwnas optimize`: what it writes, and when it leaves a file as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.exporter.graph_builder import plain_graph
from export.lowering.form_choice import alternatives
from helpers.cli import command
from latency_models.devices.resolve import resolve_device
from latency_models.timing.statistics import Ratio
from pipeline.optimize import optimize as optimizing

if TYPE_CHECKING:
    from collections.abc import Sequence


class Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **others: None


class Meter:
    """A stand-in for `LatencyMeter` that gives every comparison the same ratio."""

    ratio = Ratio(0.5, 0.45, 0.55)
    variants: tuple[float, ...] = ()

    def __init__(self, device: object = None) -> None:
        """Any device will do."""

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def compare(self, a: bytes, b: bytes, *, budget_s: float, inputs: object) -> Ratio:
        return self.ratio

    def measure_together(self, models: Sequence[bytes], *, budget_s: float, inputs: object) -> SimpleNamespace:
        ratios = [1.0, *self.variants, *(1.5,) * len(models)][: len(models)]
        return SimpleNamespace(ratios=[Ratio(each, each, each) for each in ratios])


def saved(path: Path, activation: nn.Module) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    onnx.save(plain_graph(network.eval(), (3, 8, 8)), path)
    return path


@pytest.fixture
def mish(tmp_path: Path) -> Path:
    return saved(tmp_path / "mish.onnx", nn.Mish())


def optimized(model: Path, monkeypatch: pytest.MonkeyPatch, **meter: Any) -> dict[str, Any]:
    monkeypatch.setattr(optimizing, "LatencyMeter", type("Stand-in", (Meter,), meter))
    output = model.with_name("out.onnx")
    device = resolve_device("cpu", None, None, "fp32")
    return optimizing.optimize(model, output, device, seconds=1.0, reporter=Silent())  # type: ignore[arg-type]


def run(model: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


class TestFromTheCommandLine:
    def test_the_file_computes_the_same(self, mish):
        output = mish.with_name("out.onnx")
        result = command("optimize", str(mish), "--output", str(output), "--seconds", "0.5", "--json")
        assert result.code == 0, result.stderr
        document = result.document()
        assert [(row["activation"], row["sites"]) for row in document["activations"]] == [("mish", 1)]
        assert document["largest_difference"] <= 1e-5
        if document["changed"]:
            assert document["ratio_high"] < 1.0
            assert "Mish" not in {node.op_type for node in onnx.load(output).graph.node}
        x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
        expected = run(mish, x)
        assert np.abs(run(output, x) - expected).max() <= 1e-5 * np.abs(expected).max()

    def test_people_read_what_was_done(self, mish):
        result = command("optimize", str(mish), "--output", str(mish.with_name("out.onnx")), "--seconds", "0.5")
        assert result.code == 0
        assert "mish" in result.stdout
        assert "times faster" in result.stdout or "written as it was" in result.stdout

    @pytest.mark.parametrize(
        ("model", "output", "said"),
        [
            ("mish.onnx", "mish.onnx", "is the model itself"),
            ("mish.onnx", ".", "is a directory"),
            ("mish.onnx", "no/such/out.onnx", "there is no directory"),
            ("none.onnx", "out.onnx", "none.onnx"),
        ],
    )
    def test_a_mistake_is_told(self, mish, model, output, said):
        folder = mish.parent
        result = command("optimize", str(folder / model), "--output", str(folder / output))
        assert result.code == 2
        assert said in result.stderr
        assert not (folder / "out.onnx").exists()


class TestTheVerdict:
    def test_a_faster_file_is_kept(self, mish, monkeypatch):
        result = optimized(mish, monkeypatch)
        assert result["changed"]
        assert result["ratio"] == 0.5
        assert "Mish" not in {node.op_type for node in onnx.load(result["output"]).graph.node}

    @pytest.mark.parametrize("ratio", [Ratio(1.2, 1.1, 1.3), Ratio(0.95, 0.85, 1.05)])
    def test_one_that_may_be_slower_is_not(self, mish, monkeypatch, ratio):
        result = optimized(mish, monkeypatch, ratio=ratio)
        assert not result["changed"]
        assert "wouldn't be faster" in result["reason"]
        assert onnx.load(result["output"]) == onnx.load(mish)

    def test_one_that_differs_is_not(self, mish, monkeypatch):
        real = optimizing.lower_with_report

        def wrong(model: onnx.ModelProto, forms: object = None) -> Any:
            told = real(model, None)
            bias = next(tensor for tensor in told.model.graph.initializer if tensor.name.endswith("4.bias"))
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1e-3, bias.name))
            return told

        monkeypatch.setattr(optimizing, "lower_with_report", wrong)
        result = optimized(mish, monkeypatch)
        assert not result["changed"]
        assert "would differ" in result["reason"]
        assert onnx.load(result["output"]) == onnx.load(mish)

    def test_where_there_is_nothing_to_do_nothing_is_timed(self, tmp_path, monkeypatch):
        model = saved(tmp_path / "relu.onnx", nn.ReLU())
        result = optimized(model, monkeypatch, ratio=None)
        assert not result["changed"]
        assert result["ratio"] is None
        assert result["reason"] == "nothing in it has a cheaper form"
        assert onnx.load(result["output"]) == onnx.load(model)

    def test_the_form_that_is_faster_here_is_written(self, mish, monkeypatch):
        result = optimized(mish, monkeypatch, variants=(0.8, 0.9))
        second = alternatives(onnx.load(mish))["mish"][1]
        assert [row["form"] for row in result["activations"]] == [second]

    def test_weights_in_other_files_come_into_the_new_one(self, mish, monkeypatch):
        outside = mish.with_name("outside.onnx")
        onnx.save(onnx.load(mish), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
        result = optimized(outside, monkeypatch)
        (mish.parent / "weights.bin").unlink()
        x = np.ones((1, 3, 8, 8), np.float32)
        assert np.allclose(run(Path(result["output"]), x), run(mish, x), rtol=1e-5, atol=1e-6)
