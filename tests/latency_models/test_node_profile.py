import json
import tempfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from export.lowering.recognition import activations_by_output
from helpers.cost_graphs import model, small_net, value, weight
from latency_models.devices.device import Device
from latency_models.errors import DeviceError, InvalidModelError
from latency_models.node_profile import NodeProfile, node_profile

node = helper.make_node
SECONDS = 0.05
CPU = Device()


def named_net(activation: list[onnx.NodeProto], channels: int = 16) -> onnx.ModelProto:
    """stem.conv → act (from c to r) → head.conv, named as the exports name their nodes."""
    nodes = [
        node("Conv", ["x", "stem.conv.weight"], ["c"], name="stem.conv/Conv", pads=[1, 1, 1, 1]),
        *activation,
        node("Conv", ["r", "head.conv.weight"], ["y"], name="head.conv/Conv", pads=[1, 1, 1, 1]),
    ]
    weights = [weight("stem.conv.weight", channels, 3, 3, 3), weight("head.conv.weight", channels, channels, 3, 3)]
    sizes = [value("x", [1, 3, 32, 32])], [value("y", [1, channels, 32, 32])]
    net = model(nodes, *sizes, [*weights, number("half", 0.5), number("twenty", 20.0)], opset=20)
    net.ir_version = 10
    return net


def number(name: str, content: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [], [content])


def profiled(net: onnx.ModelProto | bytes | Path, device: Device = CPU, ms: float | None = None) -> NodeProfile:
    source = net.SerializeToString() if isinstance(net, onnx.ModelProto) else net
    return node_profile(source, device, recognise=activations_by_output, latency_ms=ms, budget_s=SECONDS)


def shares(found: NodeProfile, kind: str) -> dict[str, float]:
    return {group.name: group.share for group in getattr(found, kind)}


def test_everything_adds_up_to_the_latency_that_was_handed_in() -> None:
    found = profiled(small_net(), ms=12.5)
    assert found.latency_ms == 12.5
    total = sum(each.ms for each in found.nodes)
    assert total + found.overhead_ms == pytest.approx(12.5)
    assert 0 < found.overhead_ms < 12.5
    for groups in (found.by_op, found.by_activation):
        assert sum(group.ms for group in groups) == pytest.approx(total)
        assert sum(group.kernels for group in groups) == len(found.nodes)
        assert [group.share for group in groups] == sorted((group.share for group in groups), reverse=True)
    assert all(each.ms == pytest.approx(12.5 * each.share) and each.share >= 0 for each in found.nodes)
    assert found.attributed == pytest.approx(1.0)
    assert found.runs >= 1
    assert json.loads(json.dumps(found.as_dict()))["latency_ms"] == 12.5


def test_a_fused_activation_is_named_with_what_it_went_into() -> None:
    found = profiled(named_net([node("Relu", ["c"], ["r"], name="stem.act/Relu")]))
    first = found.nodes[0]
    assert (first.node, first.module, first.activation) == ("stem.conv/Conv", "stem.conv", "Conv + relu")
    assert first.covers == ("Conv", "Relu")
    assert {each.module for each in found.nodes} == {"stem.conv", "head.conv"}


FORMS = {
    "elu": [node("Elu", ["c"], ["r"], name="stem.act/Elu")],
    "mish": [node("Mish", ["c"], ["r"], name="stem.act/Mish")],
    "silu": [
        node("Sigmoid", ["c"], ["s"], name="stem.act/Sigmoid"),
        node("Mul", ["c", "s"], ["r"], name="stem.act/Mul"),
    ],
    "squared_relu": [
        node("Relu", ["c"], ["s"], name="stem.act/Relu"),
        node("Mul", ["s", "s"], ["r"], name="stem.act/Mul"),
    ],
    "softplus": [
        node("Softplus", ["c"], ["s"], name="stem.act/Softplus"),
        node("Greater", ["c", "twenty"], ["g"], name="stem.act/Greater"),
        node("Where", ["g", "c", "s"], ["r"], name="stem.act/Where"),
    ],
    "gelu_tanh": [node("Gelu", ["c"], ["r"], name="stem.act/Gelu", approximate="tanh")],
}


@pytest.mark.parametrize("name", FORMS)
def test_an_activation_of_several_kernels_has_its_copies_with_it(name: str) -> None:
    found = profiled(named_net(FORMS[name], channels=20))
    own = {each.op_type for each in found.nodes if each.module == "stem.act"}
    assert own, [each.module for each in found.nodes]
    labels = {each.activation for each in found.nodes} - {""}
    assert labels <= {name, f"Conv + {name}"}
    assert labels
    assert {each.module for each in found.nodes} <= {"stem.conv", "stem.act", "head.conv"}
    # What stands around it only because it wants the plain layout is charged to it.
    assert {each.module for each in found.nodes if each.op_type == "ReorderInput"} <= {"stem.act"}


def test_a_sum_and_its_activation_fused_into_a_convolution_dont_reach_the_next_module() -> None:
    nodes = [
        node("Conv", ["x", "a.weight"], ["a"], name="a/Conv", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "b.weight"], ["b"], name="b/Conv", pads=[1, 1, 1, 1]),
        node("Add", ["b", "a"], ["s"], name="block/Add"),
        node("Relu", ["s"], ["t"], name="block.act/Relu"),
        node("Conv", ["t", "c.weight"], ["y"], name="c/Conv", pads=[1, 1, 1, 1]),
    ]
    weights = [weight("a.weight", 16, 3, 3, 3), *(weight(f"{name}.weight", 16, 16, 3, 3) for name in "bc")]
    found = profiled(model(nodes, [value("x", [1, 3, 16, 16])], [value("y", [1, 16, 16, 16])], weights))
    last = next(each for each in found.nodes if each.module == "c")
    assert (last.covers, last.activation) == (("Conv",), "")
    if len(found.nodes) > 3:  # without the blocked layout the sum stays by itself
        assert any(each.covers[-1] == "Relu" for each in found.nodes if each.module == "b")


def test_the_exporters_metadata_tells_module_and_class() -> None:
    relu = node("LeakyRelu", ["c"], ["r"], name="node_leaky_relu")
    net = named_net([relu])
    for each, (scope, kind) in zip(
        net.graph.node, [("stem.conv", "Conv2d"), ("stem.act", "LeakyReLU"), ("head.conv", "Conv2d")], strict=True
    ):
        each.name = f"node_{each.op_type}_{scope.replace('.', '_')}"
        levels = ["", "stem", scope, "call"]
        each.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(levels))
        classes = ["Net", "Sequential", f"torch.nn.modules.{kind}", "aten.default"]
        each.metadata_props.add(key="pkg.torch.onnx.class_hierarchy", value=str(classes))
    found = profiled(net)
    assert {each.module for each in found.nodes} == {"stem.conv", "head.conv"}
    assert "Conv + leaky_relu" in shares(found, "by_activation")
    tree = shares(found, "by_module")
    assert tree["stem"] == pytest.approx(tree["stem.conv"])


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.1/features.1.0/Conv", "features.1.0"),
        ("net/block/Conv2D;net/block/Bias", "net.block"),
        ("Conv_7", "Conv_7"),
    ],
)
def test_foreign_names_give_a_module_where_they_hold_a_path(name: str, module: str) -> None:
    net = named_net([node("Relu", ["c"], ["r"])])
    net.graph.node[0].name = name
    net.graph.node[0].input[1] = "w0"
    net.graph.initializer[0].name = "w0"
    assert profiled(net).nodes[0].module == module


def test_quantised_graphs_are_told_apart() -> None:
    quantized: list[onnx.NodeProto] = []
    tensors = [helper.make_tensor("zero", TensorProto.UINT8, [], [0]), number("half", 0.5)]

    def pair(source: str, name: str) -> str:
        quantized.append(node("QuantizeLinear", [source, "half", "zero"], [f"{name}.q"], name=f"{name}/Quantize"))
        quantized.append(node("DequantizeLinear", [f"{name}.q", "half", "zero"], [f"{name}.d"], name=f"{name}/Dequant"))
        return f"{name}.d"

    tensors.append(helper.make_tensor("w", TensorProto.INT8, [16, 3, 3, 3], [1] * 432))
    tensors.append(helper.make_tensor("signed", TensorProto.INT8, [], [0]))
    x = pair("x", "in")
    quantized.append(node("DequantizeLinear", ["w", "half", "signed"], ["w.d"], name="conv.weight/Dequant"))
    quantized.append(node("Conv", [x, "w.d"], ["c"], name="conv/Conv", pads=[1, 1, 1, 1]))
    c = pair("c", "mid")
    quantized.append(node("Elu", [c], ["e"], name="act/Elu"))
    quantized.append(node("GlobalAveragePool", ["e"], ["y"], name="pool/GlobalAveragePool"))
    net = model(quantized, [value("x", [1, 3, 16, 16])], [value("y", [1, 16, 1, 1])], tensors)
    found = profiled(net)
    assert found.attributed == pytest.approx(1.0)
    assert {"conv", "act", "pool"} <= {each.module for each in found.nodes}
    assert "elu" in shares(found, "by_activation")
    assert any(each.op_type == "QLinearConv" and each.module == "conv" for each in found.nodes)


def test_control_flow_is_one_node() -> None:
    branch = helper.make_graph([node("Neg", ["x"], ["z"]), node("Abs", ["z"], ["u"])], "b", [], [value("u", [4])])
    nodes = [
        node("If", ["flag"], ["i"], name="choice/If", then_branch=branch, else_branch=branch),
        node("Neg", ["i"], ["y"], name="last/Neg"),
    ]
    net = model(nodes, [value("x", [4]), value("flag", [], TensorProto.BOOL)], [value("y", [4])])
    found = profiled(net)
    assert [(each.op_type, each.module) for each in found.nodes] == [("If", "choice"), ("Neg", "last")]


def test_external_data_is_found_and_no_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = tmp_path / "net.onnx"
    net = named_net([node("PRelu", ["c", "half"], ["r"], name="stem.act/PRelu")])
    onnx.save_model(net, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = sorted(tmp_path.iterdir())
    found = profiled(path)
    assert {each.module for each in found.nodes} == {"stem.conv", "stem.act", "head.conv"}
    assert "prelu" in shares(found, "by_activation")
    with pytest.raises(InvalidModelError):
        profiled(b"no model")
    assert sorted(tmp_path.iterdir()) == before
    assert list(scratch.iterdir()) == []
    assert not list(Path.cwd().glob("onnxruntime_profile*"))


def test_only_onnx_runtime_on_this_machine_can_tell() -> None:
    with pytest.raises(DeviceError, match="runs with torch"):
        profiled(small_net(), Device(runtime="torch", provider=""))
    with pytest.raises(DeviceError, match="runs on board"):
        profiled(small_net(), Device(host="board"))


@pytest.mark.parametrize("name", ["mnist_cntk", "mlperf_tiny_dscnn_kws", "ultraface_rfb_320"])
def test_published_files_are_attributed(onnx_models: Path, name: str) -> None:
    found = profiled(onnx_models / f"{name}.onnx")
    assert found.attributed > 0.99
    assert any("relu" in group.name for group in found.by_activation)
