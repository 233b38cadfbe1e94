"""What is slower on integers than in float stays float: small average pools, convolutions in narrow groups."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from export import onnx_file
from export.errors import QuantizationError
from export.quantization import integer_forms
from export.quantization.kernel_check import disagreements
from export.quantization.quantize import float_reasons, quantize_int8, quantize_like

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((8, 16, 12, 12)).astype(np.float32)
POOL = {"kernel_shape": [3, 3], "pads": [1] * 4}
WHOLE = {"kernel_shape": [12, 12]}


def weight(*sizes):
    return (RNG.standard_normal(sizes) / np.sqrt(np.prod(sizes[1:]))).astype(np.float32)


def model_of(nodes, **stored):
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    given = [helper.make_tensor_value_info("x", 1, ["n", 16, 12, 12])]
    wanted = [helper.make_tensor_value_info("y", 1, None)]
    nodes = [helper.make_node(op, inputs.split(), [output], **options) for op, inputs, output, options in nodes]
    graph = helper.make_graph(nodes, "g", given, wanted, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def pooled(options):
    nodes = [("Conv", "x a", "c", {}), ("AveragePool", "c", "p", options), ("Conv", "p b", "y", {})]
    return model_of(nodes, a=weight(16, 16, 1, 1), b=weight(16, 16, 1, 1))


def summed():
    """A pool beside a convolution, as in a cell: the sum of both is read by another."""
    nodes = [
        ("Conv", "x a", "c", {}),
        ("AveragePool", "c", "p", POOL),
        ("Conv", "c b", "d", {}),
        ("Add", "p d", "s", {}),
        ("Relu", "s", "r", {}),
        ("Conv", "r e", "y", {}),
    ]
    return model_of(nodes, **{name: weight(16, 16, 1, 1) for name in "abe"})


def clamped():
    """A pool whose result goes through a ReLU that changes it."""
    nodes = [
        ("Conv", "x a", "c", {}),
        ("AveragePool", "c", "p", POOL),
        ("Relu", "p", "r", {}),
        ("Conv", "r b", "y", {}),
    ]
    return model_of(nodes, a=weight(16, 16, 1, 1), b=weight(16, 16, 1, 1))


def grouped(inside, results=None):
    groups = 16 // inside
    after = groups * (results or inside)
    nodes = [
        ("Conv", "x a", "c", {}),
        ("Relu", "c", "r", {}),
        ("Conv", "r g", "d", {"group": groups, "pads": [1] * 4}),
        ("Relu", "d", "s", {}),
        ("Conv", "s b", "y", {}),
    ]
    return model_of(nodes, a=weight(16, 16, 1, 1), g=weight(after, inside, 3, 3), b=weight(16, after, 1, 1))


def operators_run(model, tmp_path):
    """The operators of the graph that ONNX Runtime runs in the end."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx_file.read_model((tmp_path / "fused.onnx").read_bytes()).graph
    return Counter(node.op_type for node in graph.node)


def distance(quantised, model):
    """Of the outputs, as a share of their size."""
    sessions = (onnx_file.open_session(each.SerializeToString()) for each in (quantised, model))
    found, wanted = (onnx_file.run(session, IMAGES) for session in sessions)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


SLOW = {
    "a padded pool": pooled(POOL),
    "a small pool": pooled({"kernel_shape": [2, 2], "strides": [2, 2]}),
    "a pool in a sum": summed(),
    "a pool before a ReLU": clamped(),
    "groups of 2": grouped(2),
    "groups of 4": grouped(4),
    "several results of a channel": grouped(1, results=2),
    "one result of two channels": grouped(2, results=1),
}
FAST = {
    "a pool of the whole map": pooled(WHOLE),
    "groups of 8": grouped(8),
    "depthwise": grouped(1),
    "dense": grouped(16),
}


class TestWhatStaysFloat:
    @pytest.mark.parametrize("name", SLOW)
    def test_runs_in_float_and_right(self, name, tmp_path):
        quantised = quantize_int8(SLOW[name], IMAGES)
        (reason,) = float_reasons(quantised).values()
        assert "integer kernel is slower than its float one" in reason
        run = operators_run(quantised, tmp_path)
        assert "QLinearAveragePool" not in run
        assert run["AveragePool"] + run["Conv"] + run["FusedConv"] == 1
        assert disagreements(quantised, {"x": IMAGES}) == []
        assert distance(quantised, SLOW[name]) < 0.1

    def test_a_sum_with_a_pool_stays_on_integers(self, tmp_path):
        assert operators_run(quantize_int8(summed(), IMAGES), tmp_path)["QLinearAdd"] == 1

    def test_a_relu_behind_a_float_pool_isnt_lost(self):
        model = SLOW["a pool before a ReLU"]
        with patch.dict(integer_forms.SLOW_FORMS, clear=True):
            before = quantize_int8(model, IMAGES)
        assert distance(quantize_int8(model, IMAGES), model) <= 1.1 * distance(before, model)

    @pytest.mark.parametrize("name", FAST)
    def test_what_is_fast_is_quantised_whole(self, name, tmp_path):
        quantised = quantize_int8(FAST[name], IMAGES)
        assert float_reasons(quantised) == {}
        run = operators_run(quantised, tmp_path)
        assert run["Conv"] == run["FusedConv"] == run["AveragePool"] == 0

    @pytest.mark.parametrize("name", SLOW)
    def test_costs_alone_are_of_the_same_graph(self, name, tmp_path):
        like = onnx_file.read_model(quantize_like(SLOW[name].SerializeToString()))
        assert operators_run(like, tmp_path) == operators_run(quantize_int8(SLOW[name], IMAGES), tmp_path)
        assert float_reasons(like)

    def test_a_network_of_nothing_else_is_quantised_all_the_same(self, tmp_path):
        model = model_of([("Conv", "x g", "y", {"group": 8})], g=weight(16, 2, 3, 3))
        quantised = quantize_int8(model, IMAGES)
        assert float_reasons(quantised) == {}
        assert operators_run(quantised, tmp_path)["Conv"] == 0

    def test_a_network_of_pools_alone_has_nothing_to_quantise(self):
        with pytest.raises(QuantizationError, match="it has no convolution"):
            quantize_int8(model_of([("AveragePool", "x", "y", POOL)]), IMAGES)
