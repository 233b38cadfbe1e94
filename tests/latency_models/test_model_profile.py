import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import onnx
import pytest
from onnx import TensorProto, helper

from helpers.cost_graphs import model, small_net, value
from helpers.fake_nvml import StandInNvml
from latency_models.counters.energy import EnergyCounter, energy_per_run_mj
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import Device
from latency_models.errors import CostError, InvalidModelError, UnknownShapeError
from latency_models.graph.model_file import parse
from latency_models.graph.static_costs import StaticCosts, static_costs
from latency_models.model_profile import energy_of, gpu_memory_of, profile
from latency_models.runners.runner import OnnxRuntimeRunner
from latency_models.timing.meter import LatencyMeter

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
        def __init__(self, content: bytes, device: Device) -> None:
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


def test_what_cannot_be_inferred_is_null_with_a_reason_and_the_rest_is_there(meter: LatencyMeter) -> None:
    done = profile(unshaped(), Device(), budget_s=0.02, meter=meter)
    assert isinstance(done.peak_memory_bytes, Unavailable)
    row = done.as_dict()
    assert row["peak_memory_bytes"] is None
    assert "'n'" in str(row["peak_memory_bytes_unavailable"])
    assert done.latency.latency_ms > 0
    assert row["macs"] == 0
    with pytest.raises(UnknownShapeError):
        static_costs(unshaped(), Device())


def test_control_flow_leaves_the_latency(meter: LatencyMeter) -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "b", [], [value("z", [4])])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    net = model([node], [value("x", [4]), value("flag", [], TensorProto.BOOL)], [value("y", [4])])
    row = profile(net.SerializeToString(), Device(), budget_s=0.02, meter=meter).as_dict()
    for name in ("peak_memory_bytes", "macs", "params"):
        assert row[name] is None
        assert "control flow" in str(row[f"{name}_unavailable"])


def test_size_takes_the_files_beside(tmp_path: Path, meter: LatencyMeter) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    done = profile(path, Device(), budget_s=0.02, meter=meter)
    assert done.size_bytes == path.stat().st_size + 4 * (4 * 27 + 4 + 5 * 4 + 5)
    assert done.model == str(path)


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
    with pytest.raises(InvalidModelError, match=r"open\.onnx: dimension 'at axis 1' of input 'x'"):
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
