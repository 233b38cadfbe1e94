"""INT8: the same function within a quantisation step, in the fast form; made-up ranges cost what measured ones cost."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import onnx_file
from export.activations import table as activations
from export.errors import InvalidFileError
from export.exporter.graph_builder import build_graph
from export.quantization import qdq_plan
from export.quantization.quantize import QuantizationError, Quantizer, is_quantized, quantize_int8, quantize_like
from helpers.nets import SqueezeExcitation, conv_norm, histogram, onnx_outputs, randomise

INTEGER = ("relu", "relu6", "leaky_relu", "silu", "hardswish", "hardsigmoid", "sigmoid", "squared_relu", "identity")


class Residual(nn.Module):
    """Dense, depthwise and pointwise convolutions, a shortcut, a gate, a linear head."""

    def __init__(self, activation: str, classes: int = 5) -> None:
        super().__init__()
        self.stem, self.first = conv_norm(3, 16, 3), activations.create(activation, 16)
        self.expand, self.second = conv_norm(16, 32), activations.create(activation, 32)
        self.depthwise, self.third = conv_norm(32, 32, 3, groups=32), activations.create(activation, 32)
        self.gate, self.project = SqueezeExcitation(32), conv_norm(32, 16)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        y = self.third(self.depthwise(self.second(self.expand(x))))
        return self.head(torch.flatten(self.pool(torch.relu(x + self.project(self.gate(y)))), 1))


def graph_of(activation: str = "relu") -> onnx.ModelProto:
    torch.manual_seed(0)
    return build_graph(randomise(Residual(activation)).eval(), (3, 16, 16))


def fused_ops(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """What ONNX Runtime runs in the end."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return histogram(onnx.load(options.optimized_model_filepath))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((48, 3, 16, 16)).astype(np.float32)


class TestTheFunction:
    @pytest.mark.parametrize("name", activations.names())
    def test_the_outputs_stay_within_a_few_steps(self, name, images):
        graph = graph_of(name)
        quantized = quantize_int8(graph, images)
        onnx.checker.check_model(quantized, full_check=True)
        plain, rough = onnx_outputs(graph, torch.from_numpy(images)), onnx_outputs(quantized, torch.from_numpy(images))
        assert 0 < np.abs(plain - rough).max() <= 0.1 * np.ptp(plain)

    def test_a_dead_channel_keeps_its_bias(self):
        """Weights of nearly 0 would give a step so small that the bias leaves int32."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
        with torch.no_grad():
            network[0].weight[1] = 1e-20
            network[0].weight[2] = 0
            network[0].bias[1:3] = 3.0
        pixels = np.random.default_rng(0).random((8, 1, 8, 8)).astype(np.float32)
        graph = build_graph(network, (1, 8, 8))
        plain = onnx_outputs(graph, torch.from_numpy(pixels))
        rough = onnx_outputs(quantize_int8(graph, pixels), torch.from_numpy(pixels))
        assert np.abs(plain - rough).max() < 0.02

    def test_what_is_0_throughout_stays_0(self, images):
        graph = build_graph(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval(), (3, 16, 16))
        for tensor in graph.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
        assert not onnx_outputs(quantize_int8(graph, images), torch.from_numpy(images)).any()

    def test_a_formula_stays_float_inside(self, images):
        """The exponential in e/(e + 1) reaches far beyond 255 steps of what matters: only its ends are quantised."""
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, 16, 16]) for n in ("x", "y")]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Exp", ["c"], ["e"]),
            helper.make_node("Add", ["e", "one"], ["n"]),
            helper.make_node("Mul", ["e", "e"], ["m"]),
            helper.make_node("Div", ["m", "n"], ["d"]),
            helper.make_node("Conv", ["d", "w"], ["y"]),
        ]
        weights = [
            numpy_helper.from_array(np.eye(3, dtype=np.float32)[..., None, None] * 4, "w"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ]
        graph = helper.make_graph(nodes, "formula", values[:1], values[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        planned = qdq_plan.plan(model)
        assert list(planned.activations) == ["x", "c", "d", "y"]
        assert planned.weights == {"w": 0}


class TestTheForm:
    def test_it_is_u8s8_per_channel(self, images):
        quantized = quantize_int8(graph_of(), images)
        stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
        makers = {node.output[0]: node for node in quantized.graph.node}
        for node in quantized.graph.node:
            if node.op_type == "QuantizeLinear":
                assert stored[node.input[2]].data_type == TensorProto.UINT8
            if node.op_type == "Conv":
                weights, biases = (makers[name] for name in node.input[1:])
                integers, scale, zero_point = (stored[name] for name in weights.input)
                assert integers.data_type == zero_point.data_type == TensorProto.INT8
                assert list(scale.dims) == list(zero_point.dims) == [integers.dims[0]]
                assert not numpy_helper.to_array(zero_point).any()
                assert stored[biases.input[0]].data_type == TensorProto.INT32
        assert not any(t.data_type == TensorProto.FLOAT and len(t.dims) > 1 for t in stored.values())

    @pytest.mark.parametrize("name", INTEGER)
    def test_the_runtime_does_it_all_on_integers(self, name, images, tmp_path):
        found = fused_ops(quantize_int8(graph_of(name), images), tmp_path)
        others = {op for op in found if not op.startswith(("QLinear", "QGemm"))}
        assert others <= {"QuantizeLinear", "Transpose", "Reshape", "Flatten"}, found
        assert found["QuantizeLinear"] == 1  # the input; the logits come out as floats

    def test_pooling_is_done_on_integers_after_a_float_activation_too(self, images, tmp_path):
        found = fused_ops(quantize_int8(graph_of("mish"), images), tmp_path)
        assert found["QLinearGlobalAveragePool"] == 2
        assert "GlobalAveragePool" not in found

    def test_input_and_output_are_as_they_were(self, images):
        graph = graph_of()
        quantized = quantize_int8(graph, images)
        assert list(quantized.graph.input) == list(graph.graph.input)
        assert list(quantized.graph.output) == list(graph.graph.output)

    def test_the_given_model_is_left_as_it_was(self, images):
        graph = graph_of("hardswish")
        before = graph.SerializeToString()
        quantize_int8(graph, images)
        assert graph.SerializeToString() == before

    def test_a_bias_of_two_layers_gets_two_scales(self, images):
        graph = build_graph(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval(), (3, 16, 16))
        first, second = (node for node in graph.graph.node if node.op_type == "Conv")
        second.input[2] = first.input[2]
        plain, quantized = onnx_outputs(graph, torch.from_numpy(images)), quantize_int8(graph, images)
        rough = onnx_outputs(quantized, torch.from_numpy(images))
        assert np.abs(plain - rough).max() <= 0.05 * np.ptp(plain)

    def test_an_output_that_is_used_inside_as_well_is_a_float(self, images):
        graph = build_graph(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval(), (3, 16, 16))
        middle = next(node for node in graph.graph.node if node.op_type == "Relu").output[0]
        graph.graph.output.append(helper.make_tensor_value_info(middle, TensorProto.FLOAT, ["batch", 4, 16, 16]))
        session = onnx_file.open_session(quantize_int8(graph, images).SerializeToString())
        plain = onnx_file.open_session(graph.SerializeToString())
        for found, wanted in zip(session.run(None, {"input": images}), plain.run(None, {"input": images}), strict=True):
            assert found.dtype == np.float32
            assert np.abs(found - wanted).max() <= 0.05 * np.ptp(wanted)


class TestWhatStaysFloat:
    @pytest.mark.parametrize("name", activations.names())
    def test_any_group_can(self, name, images):
        graph = graph_of(name)
        quantizer = Quantizer(graph, images)
        whole = histogram(quantizer.quantize())
        plain = onnx_outputs(graph, torch.from_numpy(images))
        products = sum(node.op_type in ("Conv", "Gemm") for node in graph.graph.node)  # scales of channels among them
        firsts = {node for group in quantizer.groups for node in group.nodes[:1]}
        assert len(quantizer.groups) == len(firsts) == products >= 7
        for group in quantizer.groups:
            quantized = quantizer.quantize(float_nodes=group.nodes)
            onnx.checker.check_model(quantized, full_check=True)
            assert histogram(quantized) != whole
            assert np.abs(plain - onnx_outputs(quantized, torch.from_numpy(images))).max() <= 0.1 * np.ptp(plain)

    def test_its_weights_stay_as_they_were(self, images):
        graph = graph_of()
        quantizer = Quantizer(graph, images)
        stem = next(node for node in graph.graph.node if node.op_type == "Conv")
        before = {tensor.name: tensor for tensor in graph.graph.initializer}
        after = {tensor.name: tensor for tensor in quantizer.quantize(float_nodes=[stem.output[0]]).graph.initializer}
        assert all(after[name] == before[name] for name in stem.input[1:])

    def test_activations_are_those_that_cost_an_operator(self, images):
        kinds = {"relu": 0, "relu6": 0, "leaky_relu": 3, "silu": 6, "hardswish": 3, "squared_relu": 3}
        for name, count in kinds.items():
            found = Quantizer(graph_of(name), images[:8]).activations
            assert len(found) == count + 1, name  # the gate's

    def test_with_activations_in_float_none_has_an_integer_kernel(self, images, tmp_path):
        quantizer = Quantizer(graph_of("silu"), images)
        found = fused_ops(quantizer.quantize(float_nodes=quantizer.activations), tmp_path)
        assert found["QLinearSigmoid"] == 0
        assert found["QLinearConv"] == 6

    def test_not_everything(self, images):
        quantizer = Quantizer(graph_of(), images)
        with pytest.raises(QuantizationError, match="all of it is to stay float"):
            quantizer.quantize(float_nodes={node for group in quantizer.groups for node in group.nodes})

    def test_a_value_that_isnt_there(self, images):
        with pytest.raises(QuantizationError, match="'nothing', which is to stay float"):
            quantize_int8(graph_of(), images, float_nodes=["nothing"])


class TestMadeUpRanges:
    @pytest.mark.parametrize("name", activations.names())
    def test_nodes_types_and_shapes_are_the_calibrated_ones(self, name, images, tmp_path):
        graph = graph_of(name)
        made_up = onnx.load_model_from_string(quantize_like(graph.SerializeToString()))
        calibrated = quantize_int8(graph, images)
        assert [(n.op_type, *n.input, *n.output) for n in made_up.graph.node] == [
            (n.op_type, *n.input, *n.output) for n in calibrated.graph.node
        ]
        shapes = [{t.name: (t.data_type, tuple(t.dims)) for t in m.graph.initializer} for m in (made_up, calibrated)]
        assert shapes[0] == shapes[1]
        assert fused_ops(made_up, tmp_path) == fused_ops(calibrated, tmp_path)

    def test_the_function_can_be_sent_to_another_process(self):
        assert pickle.loads(pickle.dumps(quantize_like)) is quantize_like

    def test_no_two_activations_share_a_scale(self):
        made = onnx.load_model_from_string(quantize_like(graph_of("silu").SerializeToString()))
        stored = {tensor.name: tensor for tensor in made.graph.initializer}
        names = {node.input[1] for node in made.graph.node if node.op_type == "QuantizeLinear"}
        assert len({numpy_helper.to_array(stored[name]).item() for name in names}) == len(names) > 10


class TestForeignFiles:
    def test_batch_norm_constants_and_an_old_opset(self, images):
        values = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 14, 14]),
        ]
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal((4, 3, 3, 3)), "g": rng.random(4) + 1, "b": rng.random(4)}
        weights |= {"m": rng.random(4), "v": rng.random(4) + 1}
        stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
            helper.make_node("Relu", ["n"], ["y"]),
        ]
        defaults = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in stored]
        graph = helper.make_graph(nodes, "old", [values[0], *defaults], values[1:], stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
        quantized = quantize_int8(model, images)
        assert onnx_file.opset_of(quantized) == 13
        assert histogram(quantized) == {"QuantizeLinear": 2, "DequantizeLinear": 4, "Conv": 1}
        plain, rough = onnx_outputs(model, torch.from_numpy(images)), onnx_outputs(quantized, torch.from_numpy(images))
        assert np.abs(plain - rough).max() <= 0.05 * np.ptp(plain)

    @pytest.mark.parametrize("stored", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
    def test_weights_that_are_computed_from_stored_ones(self, stored, images):
        """As a converter stores half of them: in another type, and the other way round."""
        values = np.linspace(-1, 2, 24, dtype=np.float32)
        nodes = [
            helper.make_node("Cast", ["s"], ["t"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["t"], ["w"], perm=[1, 0, 2, 3]),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ]
        weights = [helper.make_tensor("s", stored, (3, 8, 1, 1), values.tolist())]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *images.shape[1:]])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(nodes, "cast", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        quantized = quantize_int8(model, images)
        assert any(tensor.data_type == TensorProto.INT8 for tensor in quantized.graph.initializer)
        wanted, found = (onnx_outputs(each, torch.from_numpy(images)) for each in (model, quantized))
        assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


class TestRefusals:
    def test_no_images(self):
        with pytest.raises(QuantizationError, match="no images"):
            quantize_int8(graph_of(), np.zeros((0, 3, 16, 16), np.float32))

    def test_images_of_another_shape(self):
        with pytest.raises(QuantizationError, match="can't be run on the calibration images"):
            quantize_int8(graph_of(), np.zeros((2, 1, 16, 16), np.float32))

    def test_images_that_are_no_numbers(self, images):
        with pytest.raises(QuantizationError, match="nan"):
            quantize_int8(graph_of(), np.full_like(images, np.nan))

    def test_what_is_quantised_already(self, images):
        quantized = quantize_int8(graph_of(), images)
        assert is_quantized(quantized)
        assert not is_quantized(graph_of())
        with pytest.raises(QuantizationError, match="quantised already"):
            quantize_like(quantized.SerializeToString())

    def test_nothing_to_quantise(self):
        with pytest.raises(QuantizationError, match="no convolution of 1 or 2 dimensions and no matrix product"):
            quantize_like(build_graph(nn.Sequential(nn.ReLU()).eval(), (3, 4, 4)).SerializeToString())

    def test_an_opset_that_cannot_be_raised(self, monkeypatch):
        def refuse(*_):
            raise onnx.version_converter.ConvertError("nobody makes y")

        monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
        node = onnx.helper.make_node("Relu", ["x"], ["y"])
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
        graph = onnx.helper.make_graph([node], "old", values[:1], values[1:])
        old = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)])
        with pytest.raises(QuantizationError, match=r"can't be brought to opset.*nobody makes y"):
            quantize_like(old.SerializeToString())

    def test_weights_that_are_not_there(self):
        graph = graph_of()
        tensor = next(t for t in graph.graph.initializer if len(t.dims) == 4)
        tensor.data_location = TensorProto.EXTERNAL
        with pytest.raises(QuantizationError, match="other files"):
            quantize_like(graph.SerializeToString())

    def test_no_model(self):
        with pytest.raises(InvalidFileError):
            quantize_like(b"no model")


@pytest.mark.parametrize("activation", ["hardswish", "hardsigmoid"])
def test_nodes_without_names_can_be_quantised(activation: str) -> None:
    """An inlined function's nodes have none, and ONNX Runtime loads no two nodes of the same name."""
    model = graph_of(activation)
    for node in model.graph.node:
        node.name = ""
    images = np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32)
    quantised = quantize_int8(model, images)
    names = [node.name for node in quantised.graph.node if node.name]
    assert len(set(names)) == len(names)
    onnxruntime.InferenceSession(quantised.SerializeToString())
