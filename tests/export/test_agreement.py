"""Float files that ONNX Runtime's optimisations would compute otherwise: found, named, written right."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import onnx_file
from export.agreement import difference, disagreement, kept_apart, probes
from export.barriers import is_barrier
from export.checks import parity
from export.runtime_forms import with_exact_forms

IMAGES = np.random.default_rng(3).standard_normal((4, 3, 8, 8)).astype(np.float32)
AROUND = np.array([0, 0, 1, 1] * 2, np.int64)


def model_of(nodes, stored=None, shape=(3, 8, 8), opset=18):
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])]
    wanted = [helper.make_empty_tensor_value_info("y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()]
    made = [helper.make_node(op, ins.split(), [out], name=f"{op}_{out}", **options) for op, ins, out, options in nodes]
    graph = helper.make_graph(made, "g", given, wanted, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def padded(pool, before=(), source="x", **options):
    nodes = [*before, ("Pad", f"{source} p", "z", {}), (pool, "z", "y", {"kernel_shape": [2, 2], **options})]
    return model_of(nodes, {"p": AROUND})


RELU = [("Relu", "x", "r", {})]
WRONG = {
    "a maximum of negative values and zeros": padded("MaxPool", pads=[0] * 4),
    "an average whose merged padding is too large": padded("AveragePool", pads=[1] * 4, count_include_pad=1),
    "a pool whose merged padding is too large": padded("MaxPool", pads=[1] * 4),
}


def said(model, inputs):
    return onnx_file.run(onnx_file.open_session(model.SerializeToString(), optimised=False), inputs)


def deployed(model, inputs):
    return onnx_file.run(onnx_file.open_session(model.SerializeToString()), inputs)


class TestFindingIt:
    @pytest.mark.parametrize("name", WRONG)
    def test_the_place_is_named_and_kept_apart(self, name):
        model = WRONG[name]
        fixed, (place,) = kept_apart(model, probes(IMAGES))
        assert "Pad" in place
        assert "Pool" in place
        assert sum(map(is_barrier, fixed.graph.node)) == 1
        for probe in probes(IMAGES):
            assert np.allclose(deployed(fixed, probe.inputs), said(model, probe.inputs))

    def test_what_agrees_is_left_as_it_is(self):
        model = model_of([("Relu", "x", "r", {}), ("MaxPool", "r", "y", {"kernel_shape": [2, 2]})])
        assert kept_apart(model, probes(IMAGES)) == (model, [])

    def test_positive_inputs_alone_hide_it(self):
        model = WRONG["a maximum of negative values and zeros"].SerializeToString()
        shown = probes(np.abs(IMAGES))
        assert disagreement(model, shown[:1]) is None
        assert disagreement(model, shown) is not None

    def test_parity_of_a_file_fails_and_names_it(self):
        model = WRONG["a maximum of negative values and zeros"]
        positive = np.abs(IMAGES)
        check = parity(model.SerializeToString(), positive, said(model, positive))
        assert check.ok is False
        assert "Pad" in check.detail
        assert "negative" in check.detail
        fixed = with_exact_forms(model)
        assert parity(fixed.SerializeToString(), positive, said(model, positive)).ok


class TestTheMeasure:
    def test_rounding_is_no_difference_and_a_step_is_one(self):
        wanted = np.linspace(-1, 1, 50)
        assert difference("given", wanted * (1 + 1e-6), wanted, None) is None
        found = difference("given", wanted + 0.01, wanted, None)
        assert found is not None
        assert found.largest == pytest.approx(0.01)

    def test_what_a_nudge_changes_may_differ(self):
        wanted = np.ones(5)
        assert difference("large", wanted + 0.01, wanted, wanted + 0.005) is None

    def test_infinity_where_a_number_should_be(self):
        found = difference("large", np.array([-np.inf, 1]), np.array([-200.0, 1]), None)
        assert found is not None
        assert found.largest == np.inf

    def test_only_what_is_finite_is_compared(self):
        assert difference("large", np.array([1.0, 2]), np.array([np.inf, 2]), None) is None

    def test_words_are_probed_as_they_are(self):
        ids = np.zeros((2, 5), np.int64)
        (only,) = probes(ids)
        assert only.inputs is ids or np.array_equal(only.inputs, ids)


class TestExactForms:
    @pytest.mark.parametrize("name", WRONG)
    def test_pads_are_kept_apart_from_pools(self, name):
        model = with_exact_forms(WRONG[name])
        for probe in probes(IMAGES):
            assert np.allclose(deployed(model, probe.inputs), said(WRONG[name], probe.inputs))

    def test_a_pad_of_values_that_are_never_negative_may_be_merged(self):
        model = padded("MaxPool", RELU, "r", pads=[0] * 4)
        assert with_exact_forms(model) is model
        assert disagreement(model.SerializeToString(), probes(IMAGES)) is None

    def test_the_logarithm_of_a_sigmoid_stays_finite(self):
        model = with_exact_forms(model_of([("Sigmoid", "x", "s", {}), ("Log", "s", "y", {})]))
        x = np.array([-200, -30, -1, 0, 1, 30, 200], np.float32).reshape(1, 1, 1, 7)
        found = deployed(with_shape(model, (1, 1, 7)), x)
        assert np.allclose(found, -np.logaddexp(0, -x.astype(np.float64)), rtol=1e-5, atol=1e-6)

    def test_a_sigmoid_that_something_else_reads_stays(self):
        nodes = [("Sigmoid", "x", "s", {}), ("Log", "s", "l", {}), ("Add", "l s", "y", {})]
        model = model_of(nodes)
        assert np.allclose(deployed(with_exact_forms(model), IMAGES), said(model, IMAGES), atol=1e-5)

    def test_the_stable_form_itself_is_left_alone(self):
        model = model_of([("Abs", "x", "a", {}), ("Sigmoid", "a", "s", {}), ("Log", "s", "y", {})])
        assert with_exact_forms(model) is model


def with_shape(model, shape):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for dim, size in zip(copy.graph.input[0].type.tensor_type.shape.dim[1:], shape, strict=True):
        dim.dim_value = size
    return copy
