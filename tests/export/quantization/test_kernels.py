"""A quantised file computes what its graph says, in the session that runs it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import onnx_file
from export.errors import QuantizationError
from export.quantization.distrust import Distrust
from export.quantization.kernel_check import disagreements, findings
from export.quantization.qdq import between_ties
from export.quantization.qdq_plan import plan
from export.quantization.quantize import Quantizer, float_reasons, quantize_int8, quantize_like

RNG = np.random.default_rng(7)
CONV = (RNG.standard_normal((16, 16, 3, 3)) * 0.1).astype(np.float32)
SQUARE = (RNG.standard_normal((16, 16)) * np.logspace(-2, 0, 16)[:, None]).astype(np.float32)
IMAGES = RNG.standard_normal((4, 16, 15, 15)).astype(np.float32)
ROWS = RNG.standard_normal((32, 16)).astype(np.float32)


def model_of(nodes, stored, shape, *, opset=20, outputs=("y",)):
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])]
    wanted = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in stored.items()
    ]
    nodes = [helper.make_node(op, inputs.split(), [output], **options) for op, inputs, output, options in nodes]
    graph = helper.make_graph(nodes, "g", given, wanted, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


PADDED = {"pads": [1] * 4}
CEIL = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
DILATED = {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2] * 4}
PLAIN = {"kernel_shape": [2, 2], "dilations": [1, 1]}


def pooled(options):
    nodes = [
        ("Conv", "x w", "a", PADDED),
        ("Relu", "a", "r", {}),
        ("AveragePool", "r", "p", options),
        ("Conv", "p w", "y", PADDED),
    ]
    return model_of(nodes, {"w": CONV}, (16, 15, 15))


def eight_bit_floats():
    values = (RNG.standard_normal(16 * 16 * 9) * 0.2).tolist()
    stored = {"q": helper.make_tensor("q", TensorProto.FLOAT8E4M3FN, [16, 16, 3, 3], values), "s": np.float32(0.5)}
    nodes = [("DequantizeLinear", "q s", "w", {}), ("Conv", "x w", "y", PADDED)]
    return model_of(nodes, stored, (16, 15, 15), opset=21)


def four_bit_blocks():
    values = RNG.integers(-8, 8, 16 * 16).tolist()
    scales = RNG.uniform(0.01, 0.1, (2, 16)).astype(np.float32)
    stored = {"q": helper.make_tensor("q", TensorProto.INT4, [16, 16], values), "s": scales}
    nodes = [("DequantizeLinear", "q s", "w", {"axis": 0, "block_size": 8}), ("MatMul", "x w", "y", {})]
    return model_of(nodes, stored, (16,), opset=21)


def tied(first, second):
    nodes = [("Gemm", "x w", "a", {"transB": first}), ("Relu", "a", "r", {}), ("Gemm", "r w", "y", {"transB": second})]
    return model_of(nodes, {"w": SQUARE}, (16,))


def weight_and_factor():
    nodes = [
        ("Conv", "x w", "r", PADDED),
        ("Mul", "r f", "s", {}),
        ("Conv", "s f", "z", {"group": 16}),
        ("Conv", "z w", "y", PADDED),
    ]
    factor = (RNG.standard_normal((16, 1, 1, 1)) * 0.1).astype(np.float32)
    return model_of(nodes, {"w": CONV, "f": factor}, (16, 15, 15))


def half_quantised():
    """A product that is quantised, and one of the same weight that isn't (an alpha of .5)."""
    nodes = [("Gemm", "x w", "a", {}), ("Gemm", "a w", "b", {"transB": 1, "alpha": 0.5}), ("Gemm", "b v", "y", {})]
    return model_of(nodes, {"w": SQUARE, "v": SQUARE.T.copy()}, (16,))


def transposed_between():
    nodes = [
        ("Conv", "x w", "a", PADDED),
        ("ConvTranspose", "a t", "b", {"strides": [2, 2]}),
        ("MaxPool", "b", "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", "m w", "y", PADDED),
    ]
    spread = np.logspace(-2, 0, 16, dtype=np.float32)[:, None, None, None]
    return model_of(nodes, {"w": CONV, "t": CONV[:, :, :2, :2] * spread}, (16, 15, 15))


def softmax_between():
    nodes = [("Conv", "x w", "a", PADDED), ("Softmax", "a", "s", {"axis": 1}), ("Conv", "s w", "y", PADDED)]
    return model_of(nodes, {"w": CONV * 3}, (16, 15, 15))


def zero_pad_before_a_pool():
    zero_pads = np.array([0, 0, 1, 1] * 2, np.int64)
    nodes = [
        ("Conv", "x w b", "a", PADDED),
        ("Pad", "a p", "q", {}),
        ("MaxPool", "q", "m", {"kernel_shape": [2, 2], "pads": [0] * 4}),
        ("Conv", "m w", "y", PADDED),
    ]
    return model_of(nodes, {"w": CONV, "p": zero_pads, "b": np.full(16, -5, np.float32)}, (16, 15, 15))


def output_before_a_move():
    """A float output whose other reader only moves its values, into a quantised product."""
    nodes = [
        ("Gemm", "x w", "a", {}),
        ("Softplus", "a", "p", {}),
        ("Reshape", "p s", "r", {}),
        ("Gemm", "r w b", "y", {}),
    ]
    stored = {"w": SQUARE, "b": np.ones(16, np.float32), "s": np.array([0, 16])}
    return model_of(nodes, stored, (16,), outputs=("y", "p"))


CASES = {
    "an average pool that divides otherwise": (pooled(CEIL), IMAGES),
    "an average pool with dilations": (pooled(DILATED), IMAGES),
    "an average pool with dilations of 1": (pooled(PLAIN), IMAGES),
    "weights in 8-bit floats": (eight_bit_floats(), IMAGES),
    "weights in blocks of 4-bit integers": (four_bit_blocks(), ROWS),
    "one weight along two axes": (tied(1, 0), ROWS),
    "one weight along two axes, the other way round": (tied(0, 1), ROWS),
    "one weight twice": (tied(1, 1), ROWS),
    "a weight that is a factor too": (weight_and_factor(), IMAGES[:1]),
    "a weight of which one reader stays float": (half_quantised(), ROWS),
    "a convolution that the runtime quantises itself": (transposed_between(), IMAGES),
    "an activation that the runtime takes in": (softmax_between(), IMAGES),
    "an output that is moved into a product": (output_before_a_move(), ROWS),
    "zeros around negative values": (zero_pad_before_a_pool(), IMAGES),
}


def both(model, inputs):
    """Outputs as deployed, and with optimisations off."""
    content = model.SerializeToString()
    sessions = (onnx_file.open_session(content), onnx_file.open_session(content, optimised=False))
    return [onnx_file.run(session, inputs) for session in sessions]


@pytest.mark.parametrize("name", CASES)
def test_the_file_gives_what_its_graph_says_and_is_near_the_float_model(name):
    model, inputs = CASES[name]
    quantised = quantize_int8(model, inputs)
    deployed, said = both(quantised, inputs)
    step = np.ptp(np.append(said, 0)) / 254  # of 255, and float32's own rounding
    assert np.abs(deployed - said).max() <= step
    plain = onnx_file.run(onnx_file.open_session(model.SerializeToString(), optimised=False), inputs)
    assert np.linalg.norm(deployed - plain) <= 0.05 * np.linalg.norm(plain)


class TestThePlan:
    def test_each_role_of_a_constant_is_a_tensor_of_its_own(self):
        made = plan(weight_and_factor())
        assert sorted(made.weights.values()) == [0, 0]
        assert set(made.weights) > {"w"}
        assert not set(made.weights) & set(made.constants)

    def test_a_weight_in_one_role_stays_one_tensor(self):
        assert plan(tied(1, 1)).weights == {"w": 0}

    def test_a_weight_along_two_axes_is_two_tensors(self):
        assert sorted(plan(tied(1, 0)).weights.values()) == [0, 1]

    def test_the_last_clamp_after_a_product_stays(self):
        """The product gives floats, which saturate nowhere."""
        model = model_of([("Gemm", "x w", "a", {}), ("Relu", "a", "y", {})], {"w": SQUARE}, (16,))
        deployed, _ = both(quantize_int8(model, ROWS), ROWS)
        assert deployed.min() == 0

    def test_an_output_that_only_moves_values_and_is_read_on(self):
        nodes = [("Gemm", "x w", "a", {}), ("Reshape", "a s", "m", {}), ("Gemm", "m w b", "y", {})]
        stored = {"w": SQUARE, "s": np.array([0, 16]), "b": np.ones(16, np.float32)}
        model = model_of(nodes, stored, (16,), outputs=("y", "m"))
        assert len(quantize_int8(model, ROWS).graph.output) == 2


class TestTheReasons:
    def test_the_file_names_what_stays_float(self):
        reasons = float_reasons(quantize_int8(pooled(CEIL), IMAGES))
        assert list(reasons) == ["p"]
        assert "divides otherwise" in reasons["p"]

    def test_nothing_stays_float_where_all_is_right(self):
        assert float_reasons(quantize_int8(tied(1, 1), ROWS)) == {}

    def test_a_kernel_that_nobody_knew_is_found(self, monkeypatch):
        """Without the list of known forms the check finds the pool, and the result is as right."""
        monkeypatch.setattr("export.quantization.integer_forms.reason_of_wrong_results", lambda *_: "")
        monkeypatch.setattr("export.quantization.integer_forms.SLOW_FORMS", {})
        quantizer = Quantizer(pooled(CEIL), IMAGES)
        quantised = quantizer.quantize()
        (reason,) = float_reasons(quantised).values()
        assert "AveragePool" in reason
        deployed, said = both(quantised, IMAGES)
        assert np.abs(deployed - said).max() <= np.abs(said).max() / 255

    def test_a_form_that_can_t_be_loaded_is_found(self, monkeypatch):
        monkeypatch.setattr("export.quantization.integer_forms.reason_of_wrong_results", lambda *_: "")
        monkeypatch.setattr("export.quantization.integer_forms.SLOW_FORMS", {})
        (reason,) = float_reasons(quantize_int8(pooled(DILATED), IMAGES)).values()
        assert "can't load" in reason


class TestTheCheck:
    def quantised_by_hand(self, options):
        nodes = [
            ("QuantizeLinear", "x s z", "q", {}),
            ("DequantizeLinear", "q s z", "d", {}),
            ("AveragePool", "d", "p", options),
            ("QuantizeLinear", "p s z", "r", {}),
            ("DequantizeLinear", "r s z", "y", {}),
        ]
        return model_of(nodes, {"s": np.float32(0.03), "z": np.uint8(128)}, (16, 15, 15))

    def test_a_wrong_kernel_is_named(self):
        (found,) = disagreements(self.quantised_by_hand(CEIL), {"x": IMAGES})
        assert (found.value, found.operators) == ("r", ("AveragePool",))
        assert found.steps > 10
        assert 0 < found.share < 0.5

    def test_a_right_kernel_agrees(self):
        assert disagreements(self.quantised_by_hand({"kernel_shape": [2, 2]}), {"x": IMAGES}) == []

    def test_roundings_are_counted(self):
        """At equal scales every fourth mean of 4 integers lies just between two; of 9 none does."""
        for size, between in ((2, (0.05, 0.3)), (3, (0, 0))):
            _, found = findings(self.quantised_by_hand({"kernel_shape": [size] * 2}), {"x": IMAGES}).roundings
            assert (found.value, found.values) == ("r", 4 * 16 * (16 - size) ** 2)
            assert found.share == found.differing / found.values
            assert between[0] <= found.share <= between[1]


class TestLoading:
    @pytest.mark.parametrize("culprit", range(5))
    def test_the_node_that_can_t_be_loaded_is_found(self, culprit):
        values = [f"v{at}" for at in range(5)]
        distrust = Distrust()
        distrust.learn_from_refusal(values, lambda kept: values[culprit] in kept, "no such attribute")
        assert list(distrust.kept) == [values[culprit]]

    def test_what_can_t_be_loaded_in_float_is_refused(self):
        with pytest.raises(QuantizationError, match="nor with all of it in float: broken"):
            Distrust().learn_from_refusal(["v"], lambda kept: False, "broken")

    def test_costs_alone_are_of_a_file_that_loads(self):
        for feeds in (None, {"x": IMAGES}):
            content = quantize_like(pooled(DILATED).SerializeToString(), feeds=feeds)
            onnx_file.run(onnx_file.open_session(content), IMAGES)


def test_outputs_without_any_signal_are_refused():
    """The values that matter are all within the first of 255 steps of a value that doesn't."""
    sizes = np.ones(16, np.float32)
    sizes[15] = 1e6
    chosen = np.eye(16, dtype=np.float32)
    chosen[15] = 0
    model = model_of([("Gemm", "x w", "a", {}), ("Gemm", "a v", "y", {})], {"w": np.diag(sizes), "v": chosen}, (16,))
    with pytest.raises(QuantizationError, match="8 bits are too few"):
        quantize_int8(model, ROWS)


class TestTies:
    """What lies just between two integers is rounded to either, so as little as possible is made to lie there."""

    def ratios(self, model):
        """For each product of the file: its result's scale over those of its input and of its weights' channels."""
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        makers = {name: node for node in model.graph.node for name in node.output}
        readers = {name: node for node in model.graph.node for name in node.input}
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm", "MatMul") and node.output[0] in readers:
                given, weights = (stored[makers[name].input[1]] for name in node.input[:2])
                yield stored[readers[node.output[0]].input[1]] / (given.astype(np.float64) * weights)

    def test_a_products_results_are_odd_parts_of_a_step(self):
        nodes = [
            ("Conv", "x w", "a", PADDED),
            ("Relu", "a", "r", {}),
            ("Conv", "r v", "c", {"group": 16}),
            ("GlobalAveragePool", "c", "g", {}),
            ("Flatten", "g", "f", {}),
            ("Gemm", "f s b", "h", {"transB": 1}),
            ("MatMul", "h t", "m", {}),
            ("Add", "m b", "y", {}),
        ]
        stored = {"w": CONV, "v": CONV[:, :1] * 2, "s": SQUARE, "t": SQUARE.T.copy(), "b": np.ones(16, np.float32)}
        found = list(self.ratios(quantize_int8(model_of(nodes, stored, (16, 15, 15)), IMAGES)))
        assert len(found) == 4
        for ratio in found:
            whole = np.rint(ratio)
            assert (whole % 2 == 1).all()
            assert ratio == pytest.approx(whole, rel=1e-6)

    def test_scales_grow_by_two_parts_at_most(self):
        scales = np.array([0.01, 0.0123, 0.5], np.float32)
        wider = between_ties(scales, 10.0)
        assert (wider >= scales * (1 - 1e-7)).all()
        assert 10 / wider[:2] == pytest.approx([999, 813])
        assert wider[2] == scales[2]  # so few parts that two of them would be felt

    def test_dead_channels_keep_their_scale(self):
        assert between_ties(np.array([1.0], np.float32), 1e-9) == [1.0]

    def test_an_average_has_another_scale_than_what_is_averaged(self):
        """These images are the same in each window of the pool, so that its range is its input's."""
        images = np.repeat(np.repeat(IMAGES[:, :, :7, :7], 2, 2), 2, 3)
        options = {"kernel_shape": [2, 2], "strides": [2, 2]}
        same = np.eye(16, dtype=np.float32)[:, :, None, None]
        nodes = [("Conv", "x e", "a", {}), ("AveragePool", "a", "p", options), ("Conv", "p w", "y", PADDED)]
        quantised = quantize_int8(model_of(nodes, {"w": CONV, "e": same}, (16, 14, 14)), images)
        checked = findings(quantised, {"x": IMAGES[:, :, :14, :14]}).roundings
        assert len(checked) == 4
        assert max(each.share for each in checked) < 1e-3

    @pytest.mark.parametrize("op", ["HardSwish", "HardSigmoid"])
    def test_a_hard_gate_of_0_is_no_tie(self, op):
        """Half of 255 steps is one, and 0 is the most frequent value behind a ReLU."""
        nodes = [
            ("Conv", "x w", "a", PADDED),
            ("Relu", "a", "r", {}),
            (op, "r", "h", {}),
            ("Conv", "h w", "y", PADDED),
        ]
        model = model_of(nodes, {"w": CONV}, (16, 15, 15))
        quantised = quantize_int8(model, IMAGES)
        deployed, said = both(quantised, np.zeros_like(IMAGES))
        assert (deployed == said).all()


class TestRestlessValues:
    """Values that lie just between two integers are rounded to either, and later layers make several steps of that."""

    def halves(self):
        """The sum of a value with itself and a half step: every second integer of it is a tie."""
        nodes = [("Gemm", "x w", "a", {}), ("Mul", "a h", "m", {}), ("Gemm", "m v", "y", {})]
        return model_of(nodes, {"w": np.eye(16, dtype=np.float32), "h": np.float32(0.5), "v": SQUARE}, (16,))

    def test_ranges_of_such_values_are_widened_a_little(self):
        model = self.halves()
        made = plan(model)
        made.pairs["q"] = "m"
        distrust = Distrust()
        assert distrust.widen(made, ["q"])
        ((low, high),) = distrust.wider({"m": (-1.0, 2.0)}).values()
        assert (low, high) == pytest.approx((-1, 2), rel=0.005)
        assert (low, high) != (-1, 2)

    def test_that_ends_after_a_few_times(self):
        made = plan(self.halves())
        made.pairs["q"] = "m"
        distrust = Distrust()
        assert [distrust.widen(made, ["q"]) for _ in range(6)][-1] is False
        assert distrust.wider({"m": (0.0, 1.0)})["m"][1] < 1.006

    def test_no_file_keeps_many_of_them(self):
        quantised = quantize_int8(self.halves(), ROWS)
        assert findings(quantised, {"x": ROWS}).restless == []
