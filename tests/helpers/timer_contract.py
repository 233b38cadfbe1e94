"""What every timer does, wherever its models run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from helpers.cost_graphs import small_net
from latency_models.errors import InvalidModelError

if TYPE_CHECKING:
    from pathlib import Path

    from latency_models.timing.timers import Timer


def check_contract(timer: Timer, folder: Path) -> None:
    net = small_net().SerializeToString()
    with timer:
        facts = timer.facts()
        assert facts["cores"] >= 1
        assert "CPUExecutionProvider" in facts["providers"]
        first, second = timer.load(net, 1), timer.load(net, 7)
        assert first != second
        _check_samples(timer, [first, second], [3, 1])
        _check_samples(timer, [second], [4])
        timer.unload(first)
        _check_samples(timer, [second], [1])
        _check_models(timer, folder)
        fed = timer.load(net, 1, {"x": np.ones((2, 3, 8, 8), np.float32)})
        _check_samples(timer, [fed, second], [2, 2])


def _check_samples(timer: Timer, handles: list[int], runs: list[int]) -> None:
    done = timer.alternate(handles, runs, 5)
    assert [times.shape for times in done.times_ns] == [(5, 2, count) for count in runs]
    for times in done.times_ns:
        assert times.dtype == np.int64
        assert (times > 0).all()
        assert (times[:, 1] <= times[:, 0]).all()
    assert done.cpu_share > 0.0


def _check_models(timer: Timer, folder: Path) -> None:
    """Files are found, weights beside them too; what can't be run is told with the same words by every timer."""
    file = folder / "net.onnx"
    onnx.save_model(small_net(), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    _check_samples(timer, [timer.load(file, 1)], [1])
    file.write_bytes(b"this is no model")
    (folder / "empty.onnx").touch()
    bad: list[tuple[bytes | Path, str]] = [
        (b"", "model: not a loadable ONNX model: it is empty"),
        (b"this is no model", r"model: not a loadable ONNX model: .*INVALID_PROTOBUF"),
        (file, r"net\.onnx: not a loadable ONNX model: .*INVALID_PROTOBUF"),
        (folder / "empty.onnx", r"empty\.onnx: not a loadable ONNX model: the file is empty"),
        (folder / "nowhere.onnx", r"nowhere\.onnx: can't be read: No such file"),
    ]
    for model, said in bad:
        with pytest.raises(InvalidModelError, match=said):
            timer.load(model, 1)
    with pytest.raises(InvalidModelError, match="batch is fixed at 2"):
        timer.load(small_net(batch=2).SerializeToString(), 6)
    with pytest.raises(InvalidModelError, match=r"the model can't be run: .*invalid dimensions"):
        timer.load(small_net().SerializeToString(), 1, {"x": np.ones((1, 3, 8, 9), np.float32)})
