"""The model with the preprocessing inside: 8-bit images in, probabilities out; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import onnx_file
from export.errors import ExportError

if TYPE_CHECKING:
    from export.preprocessing import Preprocessing

# A power of two that is more than the 1e-5 some runtimes insist on: with 1 - ε as variance the root is exactly 1.
_EPSILON = 2.0**-16
_LEAST_OPSET = 13  # from here on Softmax means what it says
_SCOPE = "preprocessing"


def with_preprocessing(
    model: onnx.ModelProto,
    preprocessing: Preprocessing,
    *,
    input_name: str = "images",
    output_name: str = "probabilities",
) -> onnx.ModelProto:
    """Copy a model into one that takes uint8 images (N, height, width, C) and returns probabilities (N, classes).

    Images must have the network's size already. They are transposed while they are still bytes, because ONNX Runtime's
    arithmetic is many times slower along a last axis of three. A float model gets its normalisation as one
    BatchNormalization, the fastest form. A quantised one gets multiplication, subtraction and division in the recorded
    order, exact to the last bit: half a rounding error could become another integer. Nothing is folded into the first
    convolution, whose zero padding means zeros after the normalisation.

    Args:
        model: takes one float32 tensor (N, C, height, width) and returns one of logits (N, classes).
        preprocessing: the recorded one.
        input_name: of the new graph.
        output_name: of the new graph.

    Raises:
        ExportError: the model has another form, or the preprocessing doesn't fit it.
        InvalidFileError: the checker or ONNX Runtime refuses the result.
    """
    whole = onnx_file.copied(model)
    graph = whole.graph
    source = _checked(whole, preprocessing, (input_name, output_name))
    logits = graph.output[0]
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    before, constants = _normalisation(preprocessing, input_name, source.name, exact=quantized)
    softmax = helper.make_node("Softmax", [logits.name], [output_name], axis=-1, name="probabilities/Softmax")
    nodes = [*before, *graph.node, softmax]
    batch = source.type.tensor_type.shape.dim[0]
    images = helper.make_tensor_value_info(
        input_name, TensorProto.UINT8, [None, preprocessing.height, preprocessing.width, preprocessing.channels]
    )
    images.type.tensor_type.shape.dim[0].CopyFrom(batch)
    probabilities = onnx_file.copied(logits)
    probabilities.name = output_name
    for field, values in (("node", nodes), ("input", [images]), ("output", [probabilities])):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    graph.initializer.extend(constants)
    data = whole.SerializeToString()
    onnx_file.check_model(data)
    onnx_file.open_session(data)
    return whole


def _checked(model: onnx.ModelProto, preprocessing: Preprocessing, new_names: tuple[str, str]) -> onnx.ValueInfoProto:
    """The model's one input, after checking its form, its opset and the new names."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ExportError(f"a model with {len(inputs)} inputs and {len(graph.output)} outputs: one of each is needed")
    opset = onnx_file.opset_of(model) or 0
    if opset < _LEAST_OPSET:
        raise ExportError(f"a model of opset {opset}; preprocessing can be put inside from {_LEAST_OPSET} on")
    kind = inputs[0].type.tensor_type
    shape = tuple(dimension.dim_value for dimension in kind.shape.dim)
    if kind.elem_type != TensorProto.FLOAT or len(shape) != 4 or not _fits(shape[1:], preprocessing.input_shape):
        found = f"{TensorProto.DataType.Name(kind.elem_type).lower()} {shape}"
        raise ExportError(f"the model takes {found}, the preprocessing makes float (N, {preprocessing.input_shape})")
    if len(graph.output[0].type.tensor_type.shape.dim) != 2:
        raise ExportError("the model's output isn't one row of logits for each image")
    taken = onnx_file.value_names(graph) & {*new_names}
    if taken or new_names[0] == new_names[1]:
        raise ExportError(f"the name {sorted(taken or new_names)[0]!r} is taken in the model; choose another")
    source: onnx.ValueInfoProto = inputs[0]
    return source


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether sizes are the wanted ones; a dimension without a value (0) takes any size."""
    return all(found in (0, size) for found, size in zip(shape, wanted, strict=True))


def _normalisation(
    preprocessing: Preprocessing, source: str, target: str, *, exact: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from uint8 (N, H, W, C) to float32 (N, C, H, W)."""
    names = [f"{_SCOPE}/{part}" for part in ("transposed", "float")]
    nodes = [
        helper.make_node("Transpose", [source], names[:1], perm=[0, 3, 1, 2], name=f"{_SCOPE}/Transpose"),
        helper.make_node("Cast", names[:1], names[1:], to=TensorProto.FLOAT, name=f"{_SCOPE}/Cast"),
    ]
    steps = _exact_steps if exact else _one_step
    return _joined(nodes, steps(preprocessing), names[1], target)


def _one_step(record: Preprocessing) -> list[tuple[str, dict[str, np.ndarray]]]:
    std = np.asarray(record.std, np.float64)
    constants = {
        "scale": record.scale / std,
        "bias": np.zeros(record.channels),
        "mean": np.asarray(record.mean, np.float64) / record.scale,
        "variance": np.full(record.channels, 1 - _EPSILON),
    }
    return [("BatchNormalization", constants)]


def _exact_steps(record: Preprocessing) -> list[tuple[str, dict[str, np.ndarray]]]:
    each = (1, record.channels, 1, 1)
    return [
        ("Mul", {"scale": np.asarray(record.scale)}),
        ("Sub", {"mean": np.asarray(record.mean).reshape(each)}),
        ("Div", {"std": np.asarray(record.std).reshape(each)}),
    ]


def _joined(
    nodes: list[onnx.NodeProto], steps: list[tuple[str, dict[str, np.ndarray]]], value: str, target: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    constants = []
    for index, (operator, parameters) in enumerate(steps):
        names = [f"{_SCOPE}.{name}" for name in parameters]
        constants += [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in zip(names, parameters.values(), strict=True)
        ]
        output = target if index == len(steps) - 1 else f"{_SCOPE}/{operator}_output"
        attributes: dict[str, Any] = {"epsilon": _EPSILON} if operator == "BatchNormalization" else {}
        nodes.append(helper.make_node(operator, [value, *names], [output], name=f"{_SCOPE}/{operator}", **attributes))
        value = output
    return nodes, constants
