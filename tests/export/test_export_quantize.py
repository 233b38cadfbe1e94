"""INT8: the same function within a quantisation step, in the form that was asked for, and the source untouched."""

import numpy as np
import onnx
import pytest
import torch
from export_nets import onnx_outputs
from torch import nn

from export.graph_builder import build_graph
from export.quantize import QuantizationError, quantize_int8


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()


@pytest.fixture(scope="module")
def graph(network):
    return build_graph(network, (3, 16, 16))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((96, 3, 16, 16)).astype(np.float32)


def test_the_outputs_stay_within_a_few_steps(graph, images):
    quantized = quantize_int8(graph, images)
    plain, rough = onnx_outputs(graph, torch.from_numpy(images)), onnx_outputs(quantized, torch.from_numpy(images))
    assert 0 < np.abs(plain - rough).max() <= 0.1 * np.ptp(plain)


def test_the_form_is_u8s8_per_channel(graph, images):
    quantized = quantize_int8(graph, images)
    kinds = {node.op_type for node in quantized.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    types = {tensor.data_type for tensor in quantized.graph.initializer if tensor.name.endswith("_zero_point")}
    assert {onnx.TensorProto.UINT8, onnx.TensorProto.INT8} <= types
    scales = [t for t in quantized.graph.initializer if t.name.endswith("_scale") and list(t.dims) == [16]]
    assert scales, "convolution weights have one scale for each of their 16 channels"


def test_the_given_model_is_left_as_it_was(graph, images):
    before = graph.SerializeToString()
    quantize_int8(graph, images)
    assert graph.SerializeToString() == before


def test_what_cannot_be_quantised_is_told(graph):
    with pytest.raises(QuantizationError, match="can't be quantised"):
        quantize_int8(graph, np.zeros((0, 3, 16, 16), np.float32))
