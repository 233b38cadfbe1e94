"""Where `hwnas optimize` reads weights and writes its file, and what it says it didn't look at."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import pipeline.optimize.optimize as optimizing
from helpers.cli import check_message


def model_of(kind: int = TensorProto.FLOAT, op_type: str = "Mish") -> onnx.ModelProto:
    """Gemm, then an activation."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"]), helper.make_node(op_type, ["y"], ["z"], "act")],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("z", kind, ["n", 8])],
        [numpy_helper.from_array(np.linspace(-1, 1, 32).astype(dtype).reshape(4, 8), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


@pytest.fixture
def mish(tmp_path: Path) -> Path:
    onnx.save(model_of(), tmp_path / "mish.onnx")
    return tmp_path / "mish.onnx"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A model with its weights in weights.bin."""
    path = tmp_path / "outside.onnx"
    onnx.save(model_of(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def asked(hwnas: Any, model: Path, output: Path | None = None, *more: object) -> Any:
    return hwnas("optimize", model, "--output", output or model.with_name("out.onnx"), "--seconds", "0.5", *more)


class TestThePlace:
    @pytest.fixture(autouse=True)
    def _no_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def untimely(*_: object) -> None:
            raise AssertionError("the place has to be checked first")

        monkeypatch.setattr(optimizing, "LatencyMeter", untimely)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mish.onnx", "is the model itself"),
            ("link.onnx", "is the model itself"),
            ("hard.onnx", "is the model itself"),
            (".", "is a directory"),
            ("no/such/out.onnx", "there is no directory"),
            ("mish.onnx/out.onnx", "there is no directory"),
            ("queue", "is no regular file"),
            ("x" * 300, "File name too long"),
        ],
    )
    def test_it_is_checked_before_the_work(self, hwnas, mish, name, said):
        mish.with_name("link.onnx").symlink_to(mish)
        mish.with_name("hard.onnx").hardlink_to(mish)
        os.mkfifo(mish.with_name("queue"))
        before = sorted(mish.parent.iterdir())
        check_message(asked(hwnas, mish, mish.parent / name), 2, said)
        assert sorted(mish.parent.iterdir()) == before

    def test_a_folder_that_cannot_be_written_to(self, hwnas, mish, monkeypatch):
        def refused(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "touch", refused)
        check_message(asked(hwnas, mish), 2, f"{mish.with_name('out.onnx')} can't be written: Permission denied")

    def test_weights_are_not_written_over(self, hwnas, outside):
        result = asked(hwnas, outside, outside.with_name("weights.bin"))
        check_message(result, 2, "weights.bin has the model's weights in it")


class TestWhatIsWritten:
    def test_an_earlier_file_is_replaced_also_behind_a_link(self, hwnas, mish):
        target, link = mish.with_name("target.onnx"), mish.with_name("link.onnx")
        target.write_bytes(b"earlier")
        link.symlink_to(target)
        result = asked(hwnas, mish, link)
        assert result.code == 0, result.stderr
        assert link.is_symlink()
        assert onnx.load(target).graph.output[0].name == "z"

    def test_the_longest_name(self, hwnas, mish):
        result = asked(hwnas, mish, mish.with_name("x" * 255))
        assert result.code == 0, result.stderr


class TestWeightsInOtherFiles:
    def test_a_missing_one(self, hwnas, outside):
        weights = outside.with_name("weights.bin")
        weights.unlink()
        result = asked(hwnas, outside)
        check_message(result, 2)
        said = f"hwnas: {outside}: its weights are in another file, {weights}, which is missing\n"
        assert result.stderr == said

    def test_a_truncated_one(self, hwnas, outside):
        weights = outside.with_name("weights.bin")
        weights.write_bytes(weights.read_bytes()[:100])
        check_message(asked(hwnas, outside), 2, f"{weights}, which is truncated: 100 bytes of at least 128")

    @pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin", "C:\\weights.bin", ""])
    def test_one_outside_of_the_models_folder(self, hwnas, outside, location):
        model = onnx.load(outside, load_external_data=False)
        next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
        outside.write_bytes(model.SerializeToString())
        check_message(asked(hwnas, outside), 2, f"{outside}: its weights are said to be in {location!r}")

    def test_a_link_where_a_file_should_be(self, hwnas, outside):
        weights = outside.with_name("weights.bin")
        weights.rename(weights.with_name("elsewhere.bin"))
        weights.symlink_to(weights.with_name("elsewhere.bin"))
        check_message(asked(hwnas, outside), 2, f"{weights}, which is a symbolic link; put the file itself there")

    def test_the_2_gb_that_a_file_can_be(self, hwnas, outside):
        """As the tensor's size on paper: a file with a hole takes no room."""
        model = onnx.load(outside, load_external_data=False)
        entry = next(entry for entry in model.graph.initializer[0].external_data if entry.key == "length")
        entry.value = str(2**31)
        outside.write_bytes(model.SerializeToString())
        with outside.with_name("weights.bin").open("r+b") as file:
            file.truncate(2**31)
        check_message(asked(hwnas, outside), 2, f"{outside}: with its weights it is larger than the 2 GB")


class TestWhatIsNotLookedAt:
    def test_it_is_told(self, hwnas, tmp_path):
        onnx.save(model_of(TensorProto.DOUBLE, "Tanh"), tmp_path / "net.onnx")
        result = asked(hwnas, tmp_path / "net.onnx")
        assert result.code == 0, result.stderr
        assert "written as it was: nothing that was looked at has a cheaper form" in result.stdout
        assert "not looked at: 1 Tanh: in float64; only float32 is looked at (the first: act)" in result.stdout
        document = asked(hwnas, tmp_path / "net.onnx", None, "--json").document()
        assert document["not_looked_at"] == [
            {"reason": "in float64; only float32 is looked at", "operators": {"Tanh": 1}, "first": "act"}
        ]

    def test_nothing_is_said_where_all_was(self, hwnas, tmp_path):
        onnx.save(model_of(op_type="Relu"), tmp_path / "net.onnx")
        result = asked(hwnas, tmp_path / "net.onnx")
        assert "written as it was: nothing in it has a cheaper form" in result.stdout
        assert "not looked at" not in result.stdout
