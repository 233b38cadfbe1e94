"""INT8: a float model as the quantised one, calibrated on real inputs or with made-up ranges; no torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from export import onnx_file, qdq, qdq_plan
from export.errors import ExportError, InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

_BATCH = 8  # more at a time leave the processor's caches
_OPSET = 13  # of the first DequantizeLinear with a scale for each channel
_IR_VERSION = 4  # the first whose weights needn't be inputs
# What exporters and ONNX Runtime's constant folding leave out, and `qdq_plan` doesn't know.
_UNFOLDED = frozenset({"BatchNormalization", "Constant", "ConstantOfShape", "Identity", "Dropout"})
_CALIBRATION_ERRORS: tuple[type[Exception], ...] = (InvalidFileError, *onnx_file.RUN_ERRORS)
_QUANTIZED = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})


class QuantizationError(ExportError):
    """The model can't be quantised."""

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())
        super().__init__(f"the model can't be quantised: {self.reason}")


def quantize_int8(model: onnx.ModelProto, calibration: npt.NDArray[np.float32], *, threads: int = 1) -> onnx.ModelProto:
    """Quantise weights (signed, per channel) and activations (unsigned), by the ranges that real inputs give.

    u8s8 per channel is the form that ONNX Runtime's CPU kernels are fastest with.

    Args:
        model: one float input, batch first, embedded weights; stays as it is.
        calibration: real inputs, (N, C, H, W).
        threads: to run the float model with.

    Returns:
        The model with QuantizeLinear/DequantizeLinear pairs; its input and output are float, as they were.

    Raises:
        QuantizationError: the model is quantised already, has nothing to quantise, or can't be run on the inputs.
    """
    source = _prepared(model)
    planned = _planned(source)
    return qdq.write(planned, _measured(source, planned.unknown(), calibration, threads))


def quantize_like(model: bytes) -> bytes:
    """Quantise with made-up ranges: what it computes is useless, what it costs is what the calibrated model costs.

    Nodes, types and the shapes of the scales are those that `quantize_int8` gives; how long an integer kernel
    takes doesn't depend on the numbers.

    Args:
        model: serialised, embedded weights; one network, or a part of one.

    Raises:
        InvalidFileError: no ONNX model.
        QuantizationError: the model is quantised already, or has nothing to quantise.
    """
    planned = _planned(_prepared(onnx_file.read_model(model)))
    return bytes(qdq.write(planned, _made_up(planned)).SerializeToString())


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether activations are quantised in the model; stored weights alone may be."""
    nodes = [node for graph in onnx_file.all_graphs(model.graph) for node in graph.node]
    return any(node.op_type in _QUANTIZED or node.op_type.startswith(("QLinear", "QGemm")) for node in nodes)


def _planned(model: onnx.ModelProto) -> qdq_plan.Plan:
    planned = qdq_plan.plan(model)
    if not planned.weights:
        raise QuantizationError("it has no convolution or matrix product with constant float32 weights")
    return planned


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """With constants folded and a recent opset; most models are so already, and returned as they are."""
    if is_quantized(model):
        raise QuantizationError("it is quantised already")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in onnx_file.all_tensors(model)):
        raise QuantizationError("its weights lie in other files")
    model = _without_defaults(model)
    if (onnx_file.opset_of(model) or 0) < _OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise QuantizationError(f"it can't be brought to opset {_OPSET}: {error}") from error
    if any(node.op_type in _UNFOLDED for node in model.graph.node):
        model = _folded(model)
    return _with_float_weights(model)


def _without_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the stored weights as constants where they are defaults of inputs, as old exporters wrote them."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) == len(model.graph.input):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(model.ir_version, _IR_VERSION)
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def _with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """With weights that are stored as integers as floats again: only constant weights can be given scales anew."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and all(not name or name in stored for name in node.input)
        and len(stored[node.input[1]].dims) <= 1  # scales of blocks within a channel stay as they are
    ]
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in found:
        values, scale, *zero = (numpy_helper.to_array(stored[name]) for name in node.input if name)
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        shape = [-1 if at == axis % max(values.ndim, 1) else 1 for at in range(values.ndim)] if scale.size > 1 else ()
        offset = zero[0].reshape(shape).astype(np.int64) if zero else 0
        floats = (values.astype(np.int64) - offset) * scale.reshape(shape)
        copy.graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), node.output[0]))
    nodes = [node for node in model.graph.node if node not in found]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX Runtime makes of a model for any machine: batch norms and constants folded."""
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except onnx_file.RUNTIME_ERRORS as error:
            raise QuantizationError(str(error)) from error
        return onnx.load(options.optimized_model_filepath)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _measured(
    model: onnx.ModelProto, names: Sequence[str], images: npt.NDArray[np.float32], threads: int
) -> dict[str, qdq_plan.Range]:
    """Least and greatest value of the tensors over all images."""
    if not len(images):
        raise QuantizationError("there are no images to calibrate it on")
    inputs = [value.name for value in model.graph.input]
    if len(inputs) != 1:
        raise QuantizationError(f"it takes {len(inputs)} inputs, not one")
    ranges = {inputs[0]: (float(images.min()), float(images.max()))}
    made = [name for name in names if name != inputs[0]]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made)
    try:
        session = onnx_file.open_session(watched.SerializeToString(), threads=threads)
        for start in range(0, len(images), _BATCH):
            values = session.run(made, {inputs[0]: images[start : start + _BATCH]})
            for name, value in zip(made, values, strict=True):
                low, high = ranges.get(name, (np.inf, -np.inf))
                ranges[name] = (float(np.minimum(low, value.min())), float(np.maximum(high, value.max())))  # keeps NaN
    except _CALIBRATION_ERRORS as error:
        raise QuantizationError(f"it can't be run on the calibration images: {error}") from error
    _require_finite(ranges)
    return ranges


def _require_finite(ranges: Mapping[str, qdq_plan.Range]) -> None:
    for name, bounds in ranges.items():
        if not np.isfinite(bounds).all():
            raise QuantizationError(f"{name} reaches {bounds[0]:g} to {bounds[1]:g} on the calibration images")


def _made_up(planned: qdq_plan.Plan) -> dict[str, qdq_plan.Range]:
    """Ranges of about the usual size; each another one, because a runtime may join equal scales."""
    unknown = planned.unknown()
    return {
        name: (0.0 if planned.activations[name] else -3.0 - place / len(unknown), 3.0 + place / len(unknown))
        for place, name in enumerate(unknown)
    }
