from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from helpers.cost_graphs import model, small_net, value
from latency_models.counters import footprint as module
from latency_models.counters.footprint import Footprint, footprint_of, smallest_model
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import Device

MEGABYTE = 10**6


def weighing(n_bytes: int) -> bytes:
    """A product with a matrix of that size."""
    columns = n_bytes // (4 * 1000)
    stored = numpy_helper.from_array(np.ones((1000, columns), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [value("x", ["N", 1000])], [value("y", ["N", columns])], [stored]).SerializeToString()


def found(content: bytes | Path, device: Device | None = None) -> Footprint:
    answer = footprint_of(content, device or Device())
    assert isinstance(answer, Footprint)
    return answer


def test_a_process_takes_more_than_the_model_does() -> None:
    small = found(small_net().SerializeToString())
    assert small.bytes > 20 * MEGABYTE
    assert small.model_bytes < 10 * MEGABYTE


def test_a_heavy_model_weighs_what_it_holds() -> None:
    """40 MB of weights are held at least once, and read from a file and unpacked on the way."""
    heavy = found(weighing(40 * MEGABYTE))
    assert 40 * MEGABYTE < heavy.model_bytes < 250 * MEGABYTE
    assert heavy.bytes > heavy.model_bytes + 20 * MEGABYTE


def test_the_batch_is_the_devices() -> None:
    net = model([helper.make_node("Exp", ["x"], ["y"])], [value("x", ["N", 10**6])], [value("y", ["N", 10**6])])
    content = net.SerializeToString()
    assert found(content, Device(batch_size=8)).bytes > found(content).bytes + 40 * MEGABYTE


def test_a_file_and_its_weights_beside(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "net.onnx"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert found(path).bytes > 20 * MEGABYTE


def test_the_smallest_model_adds_next_to_nothing() -> None:
    assert found(smallest_model()).model_bytes < 2 * MEGABYTE


@pytest.mark.parametrize(
    ("device", "named"),
    [
        (Device("board", host="pi@board"), "another host"),
        (Device("cuda", runtime="torch", provider=""), "torch"),
        (Device("odd", provider="NoSuchExecutionProvider"), "failed on model"),
    ],
)
def test_devices_without_one(device: Device, named: str) -> None:
    answer = footprint_of(smallest_model(), device)
    assert isinstance(answer, Unavailable)
    assert named in answer.reason


def test_a_model_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    answer = footprint_of(path, Device())
    assert isinstance(answer, Unavailable)
    assert str(path) in answer.reason
    assert "\n" not in answer.reason


def test_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "STATUS_FILE", tmp_path / "status")
    answer = footprint_of(smallest_model(), Device())
    assert isinstance(answer, Unavailable)
    assert "/proc" in answer.reason


def test_a_process_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    monkeypatch.setattr(module, "SCRIPT", "import time; time.sleep(60)")
    answer = footprint_of(small_net().SerializeToString(), Device())
    assert isinstance(answer, Unavailable)
    assert "within" in answer.reason


def test_no_process_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "no python"))
    answer = footprint_of(small_net().SerializeToString(), Device())
    assert isinstance(answer, Unavailable)
    assert "no fresh process" in answer.reason
