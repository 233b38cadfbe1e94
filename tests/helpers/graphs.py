"""Small graphs written by hand, and how they are held against what the lowering makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.lowering.lower import LoweringResult, lower_with_report

Node = helper.make_node
FLOAT = TensorProto.FLOAT


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, object] | None = None,
    shape: Sequence[int | str | None] = ("batch", 8, 6, 6),
    *,
    opset: int = 20,
    kind: int = FLOAT,
    outputs: Sequence[str] = ("z",),
    output_kind: int | None = None,
) -> onnx.ModelProto:
    """A model of one input x; what isn't typed among the constants is float32."""
    stored, constants = [], constants or {}
    for name, value in constants.items():
        array = np.asarray(value)
        if array.dtype == np.float64 and kind != TensorProto.DOUBLE:
            array = array.astype(np.float32)
        stored.append(numpy_helper.from_array(array, name))
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [
            helper.make_tensor_value_info(
                name, output_kind or kind, np.shape(constants[name]) if name in constants else None
            )
            for name in outputs
        ],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def assert_equal(
    found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], tolerance: float = 1e-5, at_least: float = 1.0
) -> None:
    """To that relative to the largest number or `at_least`; NaN and infinities in the same places."""
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        finite = np.isfinite(other)
        np.testing.assert_array_equal(np.isfinite(one), finite)
        size = max(at_least, float(np.abs(other[finite]).max(initial=0)))
        assert np.abs(one.astype(np.float64) - other)[finite].max(initial=0) <= tolerance * size


def assert_sound(model: onnx.ModelProto) -> None:
    """Valid, in topological order, no name twice."""
    made = {info.name for info in model.graph.input} | {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        assert set(node.input) <= made, node.name
        assert made.isdisjoint(node.output)
        made.update(node.output)
    names = [node.name for node in model.graph.node if node.name]
    assert len(set(names)) == len(names)
    shaped = onnx.ModelProto()
    shaped.CopyFrom(onnx.shape_inference.infer_shapes(model))
    onnx.checker.check_model(shaped, full_check=True)


def assert_lowers_alike(
    model: onnx.ModelProto, x: np.ndarray, *, again: bool = True, tolerance: float = 1e-5
) -> LoweringResult:
    """What the lowering makes of a model, after all that has to hold of it was looked at."""
    before = model.SerializeToString()
    found = lower_with_report(model)
    assert model.SerializeToString() == before
    assert_equal(run(found.model, x), run(model, x), tolerance)
    assert_sound(found.model)
    if again:
        assert lower_with_report(found.model).model.graph == found.model.graph
    return found


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def recognised(found: LoweringResult) -> list[str]:
    """Families, with a + where a scale was folded."""
    return [site.activation + "+" * site.folded for site in found.sites]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def between(low: float, high: float, *shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


X = 3 * normal(3, 8, 6, 6)
