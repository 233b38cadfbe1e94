import subprocess
import sys

import pytest

import latency_models


def test_every_name_is_there() -> None:
    assert set(latency_models.__all__) <= set(dir(latency_models))
    for name in latency_models.__all__:
        assert getattr(latency_models, name).__name__ == name
    with pytest.raises(AttributeError, match="'latency_models' has no attribute 'cost'"):
        latency_models.cost  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, latency_models; print({'onnx', 'onnxruntime', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
