import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.quantization.quantize import quantize_like
from helpers.cost_graphs import model, small_net, value, weight
from helpers.fake_nvml import StandInNvml
from latency_models.comparison import compare
from latency_models.counted_costs import StaticCosts, static_costs
from latency_models.counters.energy import EnergyCounter, energy_per_run_mj
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import Device
from latency_models.errors import CostError, InvalidModelError
from latency_models.graph.element_types import precision_of
from latency_models.graph.model_file import parse
from latency_models.graph.model_inputs import GivenInputs
from latency_models.model_profile import energy_of, gpu_memory_of, profile
from latency_models.runners.runner import OnnxRuntimeRunner
from latency_models.timing.meter import LatencyMeter

FLOAT16 = TensorProto.FLOAT16
NET = small_net().SerializeToString()
CONTRACT = {
    "latency_ms", "latency_low_ms", "latency_high_ms", "latency_p50_ms", "latency_p99_ms", "peak_memory_bytes",
    "size_bytes", "macs", "params", "energy_mj", "warnings", "environment",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a machine whose CPU counts its energy."""
    monkeypatch.setattr("latency_models.model_profile.energy_counter", lambda device: Unavailable("none here"))


def test_static_costs_by_hand() -> None:
    assert static_costs(NET, Device(batch_size=2)) == StaticCosts(
        macs=2 * (64 * 4 * 27 + 4 * 5),
        params=4 * 27 + 4 + 5 * 4 + 5,
        size_bytes=len(NET),
        peak_memory_bytes=2 * (16 + 4) * 64 * 4,
    )


def test_the_record_has_the_contracts_fields(meter: LatencyMeter) -> None:
    row = profile(NET, Device(), budget_s=0.02, meter=meter).as_dict()
    assert set(row) >= CONTRACT
    assert json.loads(json.dumps(row)) == row
    assert (row["energy_mj"], row["energy_mj_unavailable"]) == (None, "none here")
    assert "no NVIDIA GPU" in str(row["gpu_memory_bytes_unavailable"])
    assert row["macs"] == static_costs(NET, Device()).macs
    nulls = {name for name, entry in row.items() if entry is None}
    assert nulls == {"energy_mj", "gpu_memory_bytes"}
    assert "footprint_bytes" not in row


def test_the_footprint_is_there_where_it_is_asked_for(meter: LatencyMeter) -> None:
    row = profile(NET, Device(), budget_s=0.02, meter=meter, footprint=True).as_dict()
    assert cast("int", row["footprint_bytes"]) > cast("int", row["footprint_model_bytes"]) >= 0
    missing = replace(profile(NET, Device(), budget_s=0.02, meter=meter), footprint=Unavailable("no /proc")).as_dict()
    for name in ("footprint_bytes", "footprint_model_bytes"):
        assert (missing[name], missing[f"{name}_unavailable"]) == (None, "no /proc")


def test_energy_is_what_the_runs_spend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that goes up with the thread's time at work: 1 W then, nothing when idle."""
    spent = EnergyCounter("stand-in", lambda: (time.thread_time_ns() // 1000,))
    monkeypatch.setattr("latency_models.model_profile.energy_counter", lambda device: spent)
    short = partial(energy_per_run_mj, seconds=0.05, idle_seconds=0.05)
    monkeypatch.setattr("latency_models.model_profile.energy_per_run_mj", short)
    found = energy_of(NET, Device())
    assert isinstance(found, float)
    assert 0 < found < 50


def test_gpu_memory_is_what_the_model_adds_to_a_runtime_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = StandInNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    loaded: list[int] = []

    class Holding(OnnxRuntimeRunner):
        def __init__(self, content: bytes, device: Device, inputs: object = None) -> None:
            super().__init__(content, Device())
            loaded.append(len(content))
            nvml.hold(len(content))

    monkeypatch.setattr("latency_models.model_profile.runner_for", Holding)
    assert gpu_memory_of(NET, Device("cuda", provider="CUDAExecutionProvider")) == len(NET)
    assert len(loaded) == 2
    nvml.failing = {"nvmlInit": 9}
    answer = gpu_memory_of(NET, Device("cuda", provider="CUDAExecutionProvider"))
    assert isinstance(answer, Unavailable)
    assert "driver is not loaded" in answer.reason


def unshaped() -> bytes:
    """A graph that runs, with a result whose length depends on values."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "f"], ["g"]),
        helper.make_node("ReduceSum", ["g"], ["y"], keepdims=0),
    ]
    return model(nodes, [value("x", [1, 8])], [value("y", [])]).SerializeToString()


def test_sizes_that_depend_on_values_are_those_of_the_run(meter: LatencyMeter) -> None:
    done = profile(unshaped(), Device(), budget_s=0.02, meter=meter)
    assert done.macs == 0
    assert isinstance(done.peak_memory_bytes, int)
    assert static_costs(unshaped(), Device()).peak_memory_bytes == done.peak_memory_bytes


def test_what_nobody_can_count_is_null_with_a_reason_and_the_rest_is_there(meter: LatencyMeter) -> None:
    nodes = [helper.make_node("DFT", ["x"], ["y"], axis=1)]
    net = model(nodes, [value("x", [1, 8, 1])], [value("y", None)]).SerializeToString()
    done = profile(net, Device(), budget_s=0.02, meter=meter)
    row = done.as_dict()
    assert (row["macs"], row["macs_unavailable"]) == (None, "the multiply-accumulates of DFT can't be counted")
    assert done.latency.latency_ms > 0
    assert row["params"] == 0
    assert static_costs(net, Device()).macs == done.macs


def test_an_if_takes_the_branch_that_the_values_choose(meter: LatencyMeter) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", f"{name}w"], [f"{name}y"])],
            name,
            [],
            [value(f"{name}y", [1, width])],
            [weight(f"{name}w", 4, width)],
        )
        for name, width in (("then", 3), ("else", 50))
    }
    node = helper.make_node("If", ["flag"], ["y"], **branches)
    net = model([node], [value("x", [1, 4]), value("flag", [], TensorProto.BOOL)], [value("y", None)])
    for flag, width in ((True, 3), (False, 50)):
        given = GivenInputs(values={"flag": np.asarray(flag)})
        done = profile(net.SerializeToString(), Device(), given=given, budget_s=0.02, meter=meter)
        assert done.macs == 4 * width
        assert done.params == 4 * 53


def test_the_precision_is_the_files() -> None:
    half = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [1], FLOAT16)], [value("y", [1], FLOAT16)])
    assert precision_of(half) == "fp16"
    assert precision_of(small_net()) == "fp32"
    assert precision_of(onnx.load_model_from_string(quantize_like(NET))) == "int8"


def test_size_takes_the_files_beside(tmp_path: Path, meter: LatencyMeter) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    done = profile(path, Device(), budget_s=0.02, meter=meter)
    assert done.size_bytes == path.stat().st_size + 4 * (4 * 27 + 4 + 5 * 4 + 5)
    assert done.model == str(path)


@pytest.mark.parametrize(
    ("kept", "said"), [(None, "which is missing"), (100, "which is truncated: 100 bytes of at least")], ids=str
)
def test_weights_that_arent_there_are_named(tmp_path: Path, kept: int | None, said: str) -> None:
    path, weights = tmp_path / "net.onnx", tmp_path / "weights.bin"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    content = weights.read_bytes()
    weights.unlink()
    if kept is not None:
        weights.write_bytes(content[:kept])
    for look in (profile, lambda model, device: compare([model, NET], device)):
        with pytest.raises(InvalidModelError, match=rf"its weights are in another file, .*weights\.bin, {said}"):
            look(path, Device())


def test_a_model_that_the_runtime_has_no_kernel_for_is_one_all_the_same(tmp_path: Path) -> None:
    """Other inputs wouldn't help, and none are named."""
    path = tmp_path / "net.onnx"
    own = model([helper.make_node("Own", ["x"], ["y"], domain="nowhere")], [value("x", [1])], [value("y", [1])])
    path.write_bytes(own.SerializeToString())
    with pytest.raises(InvalidModelError, match=r"net\.onnx: ONNX Runtime can't load it: .*nowhere:Own") as caught:
        profile(path, Device())
    assert "--shape" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", NET[:200], b"\x00\x01\x02", b"text, no model"])
def test_bad_files_are_named_by_every_entry(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=r"bad\.onnx: not a loadable ONNX model") as caught:
        profile(path, Device())
    assert isinstance(caught.value, CostError)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidModelError):
        static_costs(content, Device())
    with pytest.raises(InvalidModelError, match=r"no\.onnx: can't be read"):
        parse(tmp_path / "no.onnx")


def test_an_open_dimension_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    net = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", None])], [value("y", ["N", None])])
    path.write_bytes(net.SerializeToString())
    with pytest.raises(InvalidModelError, match=r"open\.onnx: it has open sizes, .*axis 1 of input 'x' \(--shape x="):
        profile(path, Device())


@pytest.mark.parametrize(
    "name", ["mnist_cntk", "mlperf_tiny_dscnn_kws", "mlperf_tiny_resnet8_cifar10", "ultraface_rfb_320"]
)
def test_real_models(onnx_models: Path, name: str, meter: LatencyMeter) -> None:
    path = onnx_models / f"{name}.onnx"
    row = profile(path, Device(), budget_s=0.05, meter=meter).as_dict()
    assert {key for key, entry in row.items() if entry is None} == {"energy_mj", "gpu_memory_bytes"}
    assert row["size_bytes"] == path.stat().st_size


def test_a_batch_is_measured_against_references_of_one_image(store: Path) -> None:
    with LatencyMeter(Device(batch_size=4), store=store) as meter:
        whole = profile(NET, Device(batch_size=4), budget_s=0.2, meter=meter)
    assert whole.latency.latency_ms > 0
    assert whole.macs == 4 * (64 * 4 * 27 + 4 * 5)
