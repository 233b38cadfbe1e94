"""`hwnas predict`: any ONNX file, from its operators."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from helpers.cli import check_message, in_process
from latency_models import file_predictor
from latency_models.microbench.benchmarks import FAMILIES, observe
from latency_models.timing.reference_models import ReferenceSpec, build_reference


@pytest.fixture
def hwnas(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command, with one micro-benchmark of each family and a data folder of its own."""
    few = tuple((family, 1) for family, _ in FAMILIES)
    monkeypatch.setattr(file_predictor, "observe", lambda device, progress: observe(device, progress, families=few))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return lambda *arguments: in_process(capfd, monkeypatch, *arguments)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(build_reference(ReferenceSpec("net", 8, 8, 2, 1.0)))
    return path


def test_the_first_time_operators_are_timed_and_kept(hwnas: Any, model: Path, tmp_path: Path) -> None:
    result = hwnas("predict", model, "--json")
    assert result.code == 0, result.stderr
    document = result.document()
    assert 0 < document["latency_low_ms"] <= document["latency_ms"] <= document["latency_high_ms"]
    assert document["measurements"] == len(FAMILIES)
    assert str(len(FAMILIES)) in document["model"]
    assert "micro-benchmarks" in result.stderr
    assert len(list((tmp_path / "data" / "hwnas" / "operator_costs").iterdir())) == 1
    again = hwnas("predict", model, "--json")
    assert "Timing" not in again.stderr
    assert again.document()["latency_ms"] == pytest.approx(document["latency_ms"])
    text = hwnas("predict", model).stdout
    assert "90 %" in text
    assert f"from {len(FAMILIES)} micro-benchmarks" in text


@pytest.mark.parametrize("arguments", [(), ("--run", "somewhere"), ("--architecture", "abc")])
def test_either_a_file_or_an_architecture_of_a_run(hwnas: Any, arguments: tuple[str, ...]) -> None:
    result = hwnas("predict", *arguments)
    assert result.code == 2
    assert "--architecture" in result.stderr


def test_a_missing_file_is_told_before_anything_is_timed(hwnas: Any, tmp_path: Path) -> None:
    result = hwnas("predict", tmp_path / "none.onnx")
    check_message(result, 2, "none.onnx")
    assert "Timing" not in result.stderr


def test_a_file_with_an_operator_that_cant_be_predicted_is_named(hwnas: Any, tmp_path: Path) -> None:
    parts = onnx.helper.make_node("SplitToSequence", ["x"], ["parts"])
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 4])]
    outputs = [onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph([parts], "parts", inputs, outputs)
    path = tmp_path / "parts.onnx"
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    check_message(hwnas("predict", path), 2, "parts.onnx", "SplitToSequence can't be predicted")
