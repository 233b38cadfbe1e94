"""The torch runner against ONNX Runtime, on its own operators, real models and every activation's forms."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from helpers.cost_graphs import model, small_net, value, weight
from latency_models import timer
from latency_models.devices.device import Device
from latency_models.errors import InvalidModelError
from latency_models.runners.torch_ops import OPERATORS
from latency_models.runners.torch_runner import TorchGraph, TorchRunner
from latency_models.timing.timers import InProcessTimer

ort = pytest.importorskip("onnxruntime")
CLOSE = 1e-4  # of the largest result


def fed(proto: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs from −6 to 6, whole numbers where an input asks for them."""
    rng = np.random.default_rng(seed)
    feed = {}
    stored = {tensor.name for tensor in proto.graph.initializer}
    for info in proto.graph.input:
        if info.name in stored:
            continue
        shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        values = rng.random(shape) * 12 - 6
        feed[info.name] = (np.abs(values) * 10 if dtype.kind == "u" else values).astype(dtype)
    return feed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of the two runtimes wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_same(proto: onnx.ModelProto, feed: dict[str, np.ndarray] | None = None) -> None:
    content = proto.SerializeToString()
    feed = fed(proto) if feed is None else feed
    session = ort.InferenceSession(content, timer.session_options(threads=1), providers=["CPUExecutionProvider"])
    with TorchRunner(content, Device(), feed, torch_device="cpu") as runner:
        found = runner.results
    wanted = session.run(None, feed)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert np.isfinite(theirs).all()
        largest = np.abs(theirs.astype(np.float64)).max() if theirs.size else 0.0
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max() if theirs.size else 0.0
        assert difference <= CLOSE * max(largest, 1e-6)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def one(
    op: str,
    *,
    x: tuple[int, ...] = (2, 4, 9, 7),
    more: list[onnx.TensorProto] | None = None,
    names: list[str] | None = None,
    opset: int = 20,
    kind: int = TensorProto.FLOAT,
    out: int = TensorProto.FLOAT,
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """A graph of one node: x and `more` stored inputs."""
    more = more or []
    inputs = names if names is not None else ["x", *(tensor.name for tensor in more)]
    results = [f"y{at}" for at in range(outputs)]
    node = helper.make_node(op, inputs, results, **attributes)
    given = [helper.make_tensor_value_info("x", kind, list(x))]
    return model([node], given, [helper.make_tensor_value_info(name, out, None) for name in results], more, opset)


def two(op: str, out: int = TensorProto.FLOAT, shape: tuple[int, ...] = (4, 1, 7)) -> onnx.ModelProto:
    """A graph of one node with two inputs that broadcast."""
    node = helper.make_node(op, ["x", "z"], ["y"])
    given = [value("x", [2, 4, 9, 7]), value("z", list(shape))]
    return model([node], given, [helper.make_tensor_value_info("y", out, None)], opset=20)


POINTWISE = [
    "Abs", "Ceil", "Celu", "Elu", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "LogSoftmax", "Mish", "Neg", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceSum", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softmax", "Softplus", "Softsign",
    "Tanh", "ThresholdedRelu", "Transpose",
]  # fmt: skip


@pytest.mark.parametrize("op", POINTWISE)
def test_operators_of_one_input(op: str) -> None:
    assert_same(one(op))


@pytest.mark.parametrize("op", ["Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"])
def test_operators_of_two_inputs_broadcast(op: str) -> None:
    assert_same(two(op))


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op: str) -> None:
    assert_same(two(op, TensorProto.BOOL))


def test_logic_and_choice() -> None:
    nodes = [
        helper.make_node("Greater", ["x", "z"], ["a"]),
        helper.make_node("Less", ["x", "one"], ["b"]),
        helper.make_node("And", ["a", "b"], ["c"]),
        helper.make_node("Not", ["c"], ["d"]),
        helper.make_node("Or", ["d", "a"], ["e"]),
        helper.make_node("Where", ["c", "x", "z"], ["y"]),
    ]
    given = [value("x", [2, 4, 9]), value("z", [4, 1])]
    results = [value("y", None), value("e", None, TensorProto.BOOL)]
    assert_same(model(nodes, given, results, [floats("one", 1.0)], opset=20))


def test_roots_and_logarithms_of_what_is_positive() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["r"]),
        helper.make_node("Log", ["r"], ["l"]),
        helper.make_node("Pow", ["a", "power"], ["y"]),
    ]
    assert_same(model(nodes, [value("x", [2, 9])], [value("y", None), value("l", None)], [floats("power", 1.5)]))


SHAPED = {
    "conv": one("Conv", more=[weight("w", 6, 4, 3, 3), weight("b", 6)], pads=[1, 1, 1, 1], strides=[2, 1]),
    "conv without bias": one("Conv", more=[weight("w", 6, 4, 3, 3)]),
    "depthwise conv": one("Conv", more=[weight("w", 4, 1, 3, 3)], group=4, dilations=[2, 2]),
    "conv with uneven padding": one("Conv", more=[weight("w", 6, 4, 3, 3)], pads=[0, 1, 2, 1]),
    "conv, same upper": one("Conv", more=[weight("w", 6, 4, 3, 2)], auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv, same lower": one("Conv", more=[weight("w", 6, 4, 2, 3)], auto_pad="SAME_LOWER", strides=[2, 3]),
    "conv, valid": one("Conv", more=[weight("w", 6, 4, 3, 3)], auto_pad="VALID"),
    "conv in one dimension": one("Conv", x=(2, 4, 9), more=[weight("w", 6, 4, 3), weight("b", 6)], pads=[1, 1]),
    "max pool": one("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    "max pool, ceil": one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "max pool, uneven": one("MaxPool", kernel_shape=[3, 3], pads=[0, 0, 2, 1], strides=[2, 2]),
    "max pool, same": one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
    "average pool": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    "average pool with pads": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "average pool, uneven": one("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 2, 1], strides=[2, 2]),
    "average pool, uneven with pads": one("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 2, 1], count_include_pad=1),
    "batch norm": one(
        "BatchNormalization",
        more=[weight("s", 4), weight("b", 4), weight("m", 4), floats("v", [0.5, 1, 2, 3])],
        epsilon=1e-3,
    ),
    "instance norm": one("InstanceNormalization", more=[weight("s", 4), weight("b", 4)]),
    "layer norm": one("LayerNormalization", more=[weight("s", 9, 7), weight("b", 9, 7)], axis=-2),
    "lrn": one("LRN", size=3, alpha=0.5, beta=0.6, bias=2.0),
    "flatten": one("Flatten", axis=2),
    "flatten all": one("Flatten", axis=0),
    "reshape": one("Reshape", more=[ints("s", 0, 2, -1)]),
    "transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "unsqueeze": one("Unsqueeze", more=[ints("a", 0, -1)]),
    "unsqueeze of old": one("Unsqueeze", opset=11, axes=[1, 5]),
    "squeeze": one("Squeeze", x=(2, 1, 3, 1), more=[ints("a", -1)]),
    "squeeze all": one("Squeeze", x=(2, 1, 3, 1)),
    "squeeze of old": one("Squeeze", x=(2, 1, 3, 1), opset=11, axes=[1]),
    "concat": one("Concat", more=[weight("w", 2, 3, 9, 7)], axis=1),
    "split": one("Split", more=[ints("s", 1, 3)], axis=1, outputs=2),
    "split evenly": one("Split", axis=2, outputs=2, num_outputs=2),
    "slice": one("Slice", more=[ints("s", 1, -4), ints("e", 100, -1), ints("a", 1, -2), ints("t", 1, 2)]),
    "slice backwards": one("Slice", more=[ints("s", -1), ints("e", -100), ints("a", 2), ints("t", -2)]),
    "gather": one("Gather", more=[ints("i", 2, -1)], axis=1),
    "gather one": one("Gather", more=[numpy_helper.from_array(np.array(1, np.int64), "i")], axis=2),
    "expand": one("Expand", x=(2, 1, 7), more=[ints("s", 3, 1, 4, 1)]),
    "pad": one("Pad", more=[ints("p", 0, 0, 1, 2, 0, 0, 3, 0), floats("v", 1.5)]),
    "pad two axes": one("Pad", more=[ints("p", 1, 2, 3, 4), floats("v", 0.0), ints("a", 2, -1)]),
    "pad, reflect": one("Pad", more=[ints("p", 0, 0, 1, 2, 0, 0, 3, 1)], mode="reflect"),
    "pad, edge": one("Pad", more=[ints("p", 0, 0, 1, 2, 0, 0, 3, 1)], mode="edge"),
    "pad of old": one("Pad", opset=10, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5),
    "mean over axes": one("ReduceMean", more=[ints("a", 2, 3)], keepdims=0),
    "mean over axes of old": one("ReduceMean", opset=13, axes=[-1]),
    "sum over nothing": one("ReduceSum", noop_with_empty_axes=1),
    "gemm": one("Gemm", x=(2, 5), more=[weight("w", 3, 5), weight("b", 3)], transB=1),
    "gemm with factors": one(
        "Gemm", x=(5, 2), more=[weight("w", 5, 3), weight("b", 2, 3)], transA=1, alpha=0.5, beta=2.0
    ),
    "gemm without bias": one("Gemm", x=(2, 5), more=[weight("w", 5, 3)], alpha=0.5),
    "matmul": one("MatMul", x=(2, 4, 9, 7), more=[weight("w", 7, 3)]),
    "softmax over channels": one("Softmax", axis=1),
    "softmax of old": one("Softmax", opset=11),
    "log-softmax of old": one("LogSoftmax", opset=11, axis=2),
    "clip": one("Clip", more=[floats("l", -1.0), floats("h", 2.0)]),
    "clip above": one("Clip", more=[floats("h", 2.0)], names=["x", "", "h"]),
    "clip of nothing": one("Clip"),
    "clip of old": one("Clip", opset=6, min=-1.0, max=2.0),
    "prelu, one slope": one("PRelu", more=[floats("s", [0.3])]),
    "prelu, a channel": one("PRelu", more=[weight("s", 4, 1, 1)]),
    "prelu, a column": one("PRelu", more=[weight("s", 7)]),
    "prelu of a row": one("PRelu", x=(6,), more=[weight("s", 6)]),
    "gelu, tanh": one("Gelu", approximate="tanh"),
    "hard sigmoid of hardswish": one("HardSigmoid", alpha=float(np.float32(1 / 6)), beta=0.5),
    "elu with alpha": one("Elu", alpha=0.3),
    "selu with constants": one("Selu", alpha=1.2, gamma=0.8),
    "leaky relu": one("LeakyRelu", alpha=0.2),
    "dropout": one("Dropout"),
    "cast": one("Cast", to=TensorProto.INT32, out=TensorProto.INT32),
    "whole division": one("Div", kind=TensorProto.INT32, more=[numpy_helper.from_array(np.array(2, np.int32), "d")],
                          out=TensorProto.INT32),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPED)
def test_forms_of_operators(name: str) -> None:
    assert_same(SHAPED[name])


def test_swish_of_opset_24() -> None:
    """ONNX Runtime may not run it yet: x σ(αx), by hand."""
    proto = one("Swish", opset=24, alpha=0.5)
    proto.ir_version = 10
    feed = fed(proto)
    with TorchRunner(proto.SerializeToString(), Device(), feed, torch_device="cpu") as runner:
        x = feed["x"].astype(np.float64)
        np.testing.assert_allclose(runner.results[0], x / (1 + np.exp(-x / 2)), rtol=1e-5, atol=1e-6)


def test_an_even_window_of_lrn() -> None:
    """ONNX Runtime refuses it: one channel before and two after, as the standard's formula has it."""
    proto = one("LRN", size=4, alpha=0.5, beta=0.5, bias=2.0)
    feed = fed(proto)
    with TorchRunner(proto.SerializeToString(), Device(), feed, torch_device="cpu") as runner:
        x = feed["x"]
        for channel in range(4):
            total = (x[:, max(0, channel - 1) : channel + 3] ** 2).sum(1)
            wanted = x[:, channel] / np.sqrt(2.0 + 0.5 / 4 * total)
            np.testing.assert_allclose(runner.results[0][:, channel], wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantising_and_back(kind: int, per_channel: bool) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    scale = np.array([0.05, 0.1, 0.02, 0.5], np.float32) if per_channel else np.array(0.05, np.float32)
    zero = np.array([3, 0, 5, 1], dtype) if per_channel else np.array(7, dtype)
    axis = {"axis": 1} if per_channel else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **axis),
    ]
    stored = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")]
    assert_same(model(nodes, [value("x", [2, 4, 5])], [value("y", None), value("q", None, kind)], stored, opset=20))


def test_weights_that_are_stored_quantised() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=0),
        helper.make_node("Conv", ["x", "f"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(np.arange(-54, 54).reshape(4, 3, 3, 3).astype(np.int8), "w"),
        floats("s", [0.1, 0.2, 0.3, 0.4]),
        numpy_helper.from_array(np.zeros(4, np.int8), "z"),
    ]
    assert_same(model(nodes, [value("x", [1, 3, 5, 5])], [value("y", None)], stored, opset=20))


def test_shapes_that_are_computed_on_the_way() -> None:
    """x (2, 4, 3) → (2, 12), the sizes taken from the shape, and a constant of that size added."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        helper.make_node("ConstantOfShape", ["n"], ["c"], value=floats("v", [2.5])),
        helper.make_node("Unsqueeze", ["c", "last"], ["d"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        helper.make_node("Add", ["r", "e"], ["y"]),
    ]
    stored = [ints("first", 0), ints("rest", -1), ints("last", 1)]
    assert_same(model(nodes, [value("x", [2, 4, 3])], [value("y", None)], stored, opset=20))


def test_every_operator_of_the_table_is_tried_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [op for op in OPERATORS if f'"{op}"' not in source] == []


@pytest.mark.parametrize(
    "name", ["light_densenet121", "light_resnet50", "light_shufflenet", "light_squeezenet", "mlperf_tiny_dscnn_kws",
             "mlperf_tiny_mobilenetv1_025_vww96", "mlperf_tiny_resnet8_cifar10", "mnist_cntk", "ultraface_rfb_320"]
)  # fmt: skip
def test_real_models(onnx_models: Path, name: str) -> None:
    assert_same(onnx.load_model(onnx_models / f"{name}.onnx"))


# --- as a runner


def runner_of(content: bytes | Path, device: Device, feed: Any = None) -> TorchRunner:
    return TorchRunner(content, device, feed, torch_device="cpu")


def test_inputs_are_made_up_at_the_devices_batch() -> None:
    with runner_of(small_net().SerializeToString(), Device(batch_size=3)) as runner:
        assert runner.results[0].shape == (3, 5)
        runner.run()
        assert runner.device_ns is None  # no GPU, no events


def test_a_timer_can_hold_it() -> None:
    with InProcessTimer(Device(), runner_of) as timing:
        handle = timing.load(small_net().SerializeToString(), 2)
        times = timing.alternate([handle], [3], 2).times_ns[0]
        assert times.shape == (2, 2, 3)
        assert (times > 0).all()


def test_weights_may_lie_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(small_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with runner_of(path, Device()) as runner:
        assert runner.results[0].shape == (1, 5)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModelError, match=r"weights\.bin"):
        runner_of(path, Device())


def unknown(op: str, domain: str = "", outputs: int = 1) -> bytes:
    results = [f"y{at}" for at in range(outputs)]
    node = helper.make_node(op, ["x"], results, domain=domain)
    return model([node], [value("x", [1, 2, 4])], [value(name, None) for name in results]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (unknown("NonZero"), "no operator NonZero"),
        (unknown("Relu", domain="nowhere"), "no operator nowhere.Relu"),
        (unknown("Dropout", outputs=2), "Dropout one output only"),
        (one("Conv", more=[weight("w", 6, 5, 3, 3)]).SerializeToString(), "can't be run with torch"),
        (one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2]).SerializeToString(), "AveragePool with dilations"),
        (b"", "it is empty"),
        (b"no model", "not a loadable ONNX model"),
    ],
)
def test_what_cannot_be_run_is_told(content: bytes, named: str) -> None:
    with pytest.raises(InvalidModelError, match=named) as caught:
        runner_of(content, Device())
    assert "\n" not in str(caught.value)


def test_an_open_dimension_is_told() -> None:
    net = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", "M"])], [value("y", ["N", "M"])])
    with pytest.raises(InvalidModelError, match="dimension 'M' of input 'x'"):
        runner_of(net.SerializeToString(), Device())


# --- on a GPU


def on_meta(proto: onnx.ModelProto) -> list[torch.Tensor]:
    """The graph on torch's device without data: whatever needed the host and the device at once would raise."""
    where = torch.device("meta")
    feed = {name: torch.from_numpy(array).to(where) for name, array in fed(proto).items()}
    with torch.inference_mode():
        return TorchGraph(proto, where, "model")(feed)


# A constant that has to come back from the device: there is nothing to bring from this one.
BACK_TO_THE_HOST = ("pad", "pad two axes")


@pytest.mark.parametrize("name", [name for name in SHAPED if name not in BACK_TO_THE_HOST])
def test_no_operator_mixes_devices_or_waits_for_one(name: str) -> None:
    assert all(result.device.type == "meta" for result in on_meta(SHAPED[name]))


@pytest.mark.parametrize("name", ["mlperf_tiny_dscnn_kws", "mnist_cntk", "light_shufflenet", "ultraface_rfb_320"])
def test_real_models_mix_no_devices(onnx_models: Path, name: str) -> None:
    assert on_meta(onnx.load_model(onnx_models / f"{name}.onnx"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")
@pytest.mark.parametrize("name", SHAPED)
def test_a_gpu_agrees_with_onnx_runtime(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    content, feed = SHAPED[name].SerializeToString(), fed(SHAPED[name])
    wanted = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)
    with TorchRunner(content, Device("cuda", runtime="torch", provider=""), feed) as runner:
        for ours, theirs in zip(runner.results, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        assert runner.device_ns is not None
        assert runner.device_ns > 0
