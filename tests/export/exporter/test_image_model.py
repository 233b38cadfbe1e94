"""The preprocessing inside of the model: the same probabilities from raw images."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export import onnx_file
from export.bundle.content_checks import softmax
from export.errors import ExportError
from export.exporter.graph_builder import build_graph
from export.exporter.image_model import with_preprocessing
from export.preprocessing import Preprocessing
from export.quantization.quantize import quantize_int8
from helpers.nets import Mobile, histogram, randomise

IMAGENET = Preprocessing(3, 12, 12, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    return build_graph(randomise(Mobile()).eval(), (3, 12, 12))


def run(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    return onnx_file.run(onnx_file.open_session(model.SerializeToString()), inputs)


@pytest.mark.parametrize("quantised", [False, True], ids=["fp32", "int8"])
def test_it_gives_the_models_probabilities(model, quantised):
    inputs = IMAGENET.apply(RAW)
    base = quantize_int8(model, inputs) if quantised else model
    whole = with_preprocessing(base, IMAGENET)
    for batch in (1, 64):
        found = run(whole, RAW[:batch])
        np.testing.assert_allclose(found, softmax(run(base, inputs[:batch])), atol=1e-5, rtol=0)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_quantised_model_gets_its_inputs_to_the_last_bit(model):
    """A rounding error might end in another integer."""
    base = quantize_int8(model, IMAGENET.apply(RAW))
    whole = with_preprocessing(base, IMAGENET)
    source = base.graph.input[0].name
    whole.graph.output.append(helper.make_tensor_value_info(source, TensorProto.FLOAT, None))
    session = onnx_file.open_session(whole.SerializeToString())
    every_level = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 12, 12, 3))
    (found,) = session.run([source], {"images": every_level})
    assert np.array_equal(found, IMAGENET.apply(np.ascontiguousarray(every_level)))


def test_its_form(model):
    whole = with_preprocessing(model, IMAGENET, input_name="picture", output_name="shares")
    source, target = whole.graph.input[0], whole.graph.output[0]
    assert (source.name, target.name) == ("picture", "shares")
    assert source.type.tensor_type.elem_type == TensorProto.UINT8
    shape = source.type.tensor_type.shape.dim
    assert shape[0].dim_param == "batch"
    assert [dim.dim_value for dim in shape[1:]] == [12, 12, 3]
    assert [node.op_type for node in whole.graph.node][:3] == ["Transpose", "Cast", "BatchNormalization"]
    assert histogram(whole) - histogram(model) == {"Transpose": 1, "Cast": 1, "BatchNormalization": 1, "Softmax": 1}
    assert all(node.name for node in whole.graph.node)
    assert model.graph.input[0].name == "input"  # the given one is left alone


def test_what_does_not_fit_is_refused(model):
    grey = Preprocessing(1, 12, 12, 1 / 255, (0.5,), (0.5,))
    with pytest.raises(ExportError, match=r"takes float \(0, 3, 12, 12\), the preprocessing makes"):
        with_preprocessing(model, grey)
    with pytest.raises(ExportError, match="'input' is taken"):
        with_preprocessing(model, IMAGENET, input_name="input")
    with pytest.raises(ExportError, match="takes uint8"):
        with_preprocessing(with_preprocessing(model, IMAGENET), IMAGENET, input_name="a", output_name="b")
    old = onnx.ModelProto()
    old.CopyFrom(model)
    old.opset_import[0].version = 12
    with pytest.raises(ExportError, match="opset 12"):
        with_preprocessing(old, IMAGENET)
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, None))
    with pytest.raises(ExportError, match="2 outputs"):
        with_preprocessing(more, IMAGENET)
