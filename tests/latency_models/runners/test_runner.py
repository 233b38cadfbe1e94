from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from helpers.cost_graphs import model, small_net, value
from latency_models.devices.device import Device
from latency_models.errors import DeviceError, InvalidModelError
from latency_models.runners.runner import OnnxRuntimeRunner


def test_weights_beside_the_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with OnnxRuntimeRunner(path, Device()) as runner:
        runner.run()
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModelError, match=r"weights\.bin"):
        OnnxRuntimeRunner(path, Device())


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"z": np.ones((1, 3, 8, 8), np.float32)}, "x"),
        ({"x": np.ones((1, 3, 8, 9), np.float32)}, "invalid dimensions"),
        ({"x": np.ones((1, 3, 8, 8), np.int64)}, "Unexpected input data type"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(InvalidModelError, match=said):
        OnnxRuntimeRunner(small_net().SerializeToString(), Device(), inputs)


def unknown_op() -> bytes:
    nodes = [helper.make_node("Mystery", ["x"], ["y"], domain="nowhere")]
    return model(nodes, [value("x", [1])], [value("y", [1])]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"this is no model", "not a loadable ONNX model"),
        (small_net().SerializeToString()[:300], "not a loadable ONNX model"),
        (unknown_op(), "Mystery"),
    ],
    ids=["empty", "text", "truncated", "unknown op"],
)
def test_bad_files_are_named_with_the_reason_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=said) as caught:
        OnnxRuntimeRunner(path, Device())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidModelError, match=said):
        OnnxRuntimeRunner(content, Device())


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"nowhere\.onnx: can't be read: No such file"):
        OnnxRuntimeRunner(tmp_path / "nowhere.onnx", Device())
    with pytest.raises(InvalidModelError, match="no regular file"):
        OnnxRuntimeRunner(tmp_path, Device())


def test_the_batch_reaches_the_session() -> None:
    OnnxRuntimeRunner(small_net(batch=2).SerializeToString(), Device(batch_size=2)).close()
    with pytest.raises(InvalidModelError, match="fixed at 2"):
        OnnxRuntimeRunner(small_net(batch=2).SerializeToString(), Device(batch_size=6))


def test_a_provider_that_is_not_installed() -> None:
    with pytest.raises(DeviceError, match="NoSuchExecutionProvider"):
        OnnxRuntimeRunner(small_net().SerializeToString(), Device(provider="NoSuchExecutionProvider"))
