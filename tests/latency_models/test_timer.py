import ast
import gc
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from helpers.cost_graphs import model, small_net, value
from latency_models import timer
from latency_models.microbench.graphs import GraphBuilder

NET = small_net().SerializeToString()


def test_the_file_needs_an_old_python_numpy_and_onnxruntime_only() -> None:
    tree = ast.parse(Path(timer.__file__).read_text(), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"numpy", "onnxruntime"}


# ---- the clock


def test_time_without_interruptions_is_never_longer_than_by_the_wall() -> None:
    walls, alone = timer.burst(lambda: None, 50, in_thread=True)
    assert walls.shape == alone.shape == (50,)
    assert (alone <= walls).all()
    walls, alone = timer.burst(lambda: None, 50, in_thread=False)
    assert (alone == walls).all()


def test_an_interruption_is_left_out_where_the_run_stays_in_its_thread() -> None:
    walls, alone = timer.burst(lambda: time.sleep(0.01), 2, in_thread=True)
    assert (walls >= 10e6).all()
    assert (alone < 10e6).all()


def test_models_take_turns_and_no_garbage_is_collected() -> None:
    seen: list[tuple[str, bool]] = []
    calls = [lambda name=name: seen.append((name, gc.isenabled())) for name in "ab"]
    times, cpu_share = timer.alternate(calls, [2, 1], 3, in_thread=True)
    assert [name for name, _ in seen] == ["a", "a", "b"] * 3
    assert not any(enabled for _, enabled in seen)
    assert gc.isenabled()
    assert [each.shape for each in times] == [(3, 2, 2), (3, 2, 1)]
    assert cpu_share > 0.0


def test_garbage_is_collected_again_after_a_failure() -> None:
    def fail() -> None:
        raise ValueError("a run that fails")

    with pytest.raises(ValueError, match="a run that fails"):
        timer.alternate([fail], [1], 1, in_thread=True)
    assert gc.isenabled()


# ---- sessions


def session(net: bytes, **settings: object) -> timer.Session:
    given = {"provider": timer.CPU_PROVIDER, "provider_options": {}, "threads": 1, "batch_size": 1, **settings}
    return timer.Session(net, **given)  # type: ignore[arg-type]


def test_inputs_are_made_up_from_the_declaration() -> None:
    nodes = [helper.make_node("Gather", ["table", "at"], ["y"])]
    inputs = [value("table", ["N", 4]), value("at", ["N"], TensorProto.INT64)]
    net = model(nodes, inputs, [value("y", ["N", 4])]).SerializeToString()
    feed = session(net, batch_size=3).feed
    assert (feed["table"].shape, feed["table"].dtype) == ((3, 4), np.float32)
    assert 0.0 <= feed["table"].min() < feed["table"].max() < 1.0
    assert feed["at"].tolist() == [0, 0, 0]
    assert np.array_equal(session(net, batch_size=3).feed["table"], feed["table"])


@pytest.mark.parametrize("shape", [(1, 2**42), (2**20, 2**20, 2**20), (2**63 - 1,)])
@pytest.mark.parametrize("kind", ["tensor(float)", "tensor(int64)"])
def test_inputs_that_fit_in_no_memory_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(timer.RefusedError, match="doesn't fit in memory"):
        timer.made_up_input(kind, shape, np.random.default_rng(0))


def test_given_inputs_are_fed() -> None:
    image = np.ones((2, 3, 8, 8), np.float32)
    assert session(NET, feed={"x": image}).feed["x"] is image


def test_the_provider_and_its_options_reach_the_session() -> None:
    assert timer.providers("CPUExecutionProvider", {}) == ["CPUExecutionProvider"]
    with_options = timer.providers("XExecutionProvider", {"device_id": "1"})
    assert with_options == [("XExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]


def test_a_provider_that_is_left_out_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a provider's own libraries are missing, ONNX Runtime makes a session of the CPU's without a word."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **_: real(*args, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(timer.RefusedError, match="CUDAExecutionProvider can't be used: it was left out") as caught:
        session(NET, provider="CUDAExecutionProvider")
    assert caught.value.kind == "device"


def test_a_provider_that_fails_is_blamed_and_not_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no device is connected")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["NpuExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    with pytest.raises(timer.RefusedError, match="NpuExecutionProvider can't be used: no device is connected"):
        session(NET, provider="NpuExecutionProvider")


def test_with_a_provider_that_works_the_model_is_blamed() -> None:
    with pytest.raises(timer.RefusedError, match="not a loadable ONNX model") as caught:
        session(b"this is no model", provider_options={"some": "option"})
    assert caught.value.kind == "model"


# ---- the wire


def test_frames_come_out_as_they_went_in() -> None:
    stream = io.BytesIO()
    timer.write_frame(stream, {"do": "this", "é": [1, None]}, [b"", b"abc", memoryview(np.arange(3, dtype="<i8"))])
    timer.write_frame(stream, {})
    stream.seek(0)
    first = timer.read_frame(stream)
    assert first == ({"do": "this", "é": [1, None]}, [b"", b"abc", np.arange(3, dtype="<i8").tobytes()])
    assert timer.read_frame(stream) == ({}, [])
    assert timer.read_frame(stream) is None


def test_a_frame_that_is_cut_off_is_none_and_one_that_is_too_large_is_refused() -> None:
    stream = io.BytesIO()
    timer.write_frame(stream, {"a": 1}, [b"abc"])
    whole = stream.getvalue()
    assert all(timer.read_frame(io.BytesIO(whole[:size])) is None for size in range(len(whole)))
    with pytest.raises(ValueError, match="parts"):
        timer.read_frame(io.BytesIO(whole), longest_part=2)
    with pytest.raises(ValueError, match="header"):
        timer.read_frame(io.BytesIO(b"\xff" * 10))


# ---- the machine


@pytest.mark.parametrize(
    ("size", "level", "found"), [("512K", "2", 512 * 1024), ("2M", "2", 2 * 1024 * 1024), ("32K", "1", 77)]
)
def test_the_l2_cache_is_read(
    size: str, level: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("size", size), ("level", level)):
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(os, "sysconf", lambda _: 77)
    assert timer.l2_cache_bytes(str(tmp_path)) == found


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    """A runtime says what is wrong at the end, behind the signature of a function."""
    text = timer.one_line(
        ValueError(f"Reshape node. {'onnxruntime::Helper(const Shape&) ' * 20}\n shape:{{2,4}} of {{1,4}}")
    )
    assert text.startswith("Reshape node. ")
    assert text.endswith(" shape:{2,4} of {1,4}")
    assert len(text) == 300
    assert timer.one_line(ValueError("a \n b")) == "a b"


LOADED = """
import sys
from latency_models import timer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

import os
settings = {"provider": timer.CPU_PROVIDER, "provider_options": {}, "threads": 1, "batch_size": 1}
timer.Session(sys.argv[1], **settings)  # what the runtime itself takes
before = resident()
sessions = [timer.Session(sys.argv[2], **settings) for _ in range(2)]
print((resident() - before) / 2)
"""


@pytest.mark.skipif(timer.c_library() is None, reason="the C library isn't glibc")
def test_a_session_keeps_little_more_than_its_weights(tmp_path: Path) -> None:
    """Loading doubles the weights when it brings them into the layout of the kernels."""
    files = []
    for channels in (8, 512):
        g = GraphBuilder(np.random.default_rng(0))
        x = g.image(1, channels, 7, 7)
        for _ in range(3):
            x = g.activation(g.conv(x, channels, 3), "Relu")
        files.append(tmp_path / f"{channels}.onnx")
        files[-1].write_bytes(g.model(x))
    words = [sys.executable, "-c", LOADED, *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5 * files[1].stat().st_size  # 2.5 times as much with what loading leaves behind
