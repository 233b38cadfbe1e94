"""A float model quantised to INT8, calibrated on real inputs or with made-up ranges; no torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from export import onnx_file
from export.errors import QuantizationError, did_you_mean
from export.quantization import mixed_precision, qdq, qdq_plan
from export.quantization.ranges import MIN_MAX, Statistics

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

__all__ = ["QuantizationError", "Quantizer", "is_quantized", "quantize_int8", "quantize_like"]

_OPSET = 13  # of the first DequantizeLinear with a scale for each channel
_IR_VERSION = 4  # the first whose weights needn't be inputs
# What exporters and ONNX Runtime's constant folding leave out, and `qdq_plan` doesn't know.
_UNFOLDED = frozenset({"BatchNormalization", "Constant", "ConstantOfShape", "Identity", "Dropout"})
_QUANTIZED = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})


class Quantizer:
    """Quantises one float model in several ways, with one pass over the calibration images for all of them.

    Weights become signed, per channel, activations unsigned: u8s8 is the form that ONNX Runtime's CPU kernels are
    fastest with.

    Args:
        model: one float input, batch first, embedded weights; stays as it is.
        calibration: real inputs, (N, C, H, W).
        threads: to run the float model with.

    Raises:
        QuantizationError: the model is quantised already, or has nothing to quantise.
    """

    def __init__(self, model: onnx.ModelProto, calibration: npt.NDArray[np.float32], *, threads: int = 1) -> None:
        self._source = _prepared(model)
        _planned(self._source)
        self._statistics = Statistics(self._source, calibration, threads=threads)
        self.groups = mixed_precision.groups_of(self._source)
        """Groups of nodes that can be left in float together, in order of execution."""
        self.activations = mixed_precision.activations_of(self._source)
        """Values made by activations that cost an integer operator of their own."""

    def quantize(self, method: str = MIN_MAX, float_nodes: Collection[str] = ()) -> onnx.ModelProto:
        """Return the model with QuantizeLinear/DequantizeLinear pairs; its input and output stay float.

        Args:
            method: of `export.quantization.ranges.METHODS`.
            float_nodes: values whose nodes stay float.

        Raises:
            QuantizationError: a value in `float_nodes` is none of the model's, nothing is left to quantise, the model
                can't be run on the images, or a range isn't finite.
            UnknownMethodError: no such method.
        """
        self._require_known(float_nodes)
        planned = _planned(self._source, float_nodes)
        return qdq.write(planned, self._statistics.ranges(planned.unknown(), method))

    def _require_known(self, names: Collection[str]) -> None:
        known = {name for node in self._source.graph.node for name in node.output}
        for name in sorted(set(names) - known):
            hint = did_you_mean(name, known)
            raise QuantizationError(f"{name!r}, which is to stay float, is no value in it{hint}")


def quantize_int8(
    model: onnx.ModelProto,
    calibration: npt.NDArray[np.float32],
    *,
    method: str = MIN_MAX,
    float_nodes: Collection[str] = (),
    threads: int = 1,
) -> onnx.ModelProto:
    """Quantise a model in one way; arguments, result and errors are those of `Quantizer` and its `quantize`."""
    return Quantizer(model, calibration, threads=threads).quantize(method, float_nodes)


def quantize_like(model: bytes) -> bytes:
    """Quantise a model with made-up ranges: its outputs are useless, its costs are those of the calibrated model.

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


def _planned(model: onnx.ModelProto, float_nodes: Collection[str] = ()) -> qdq_plan.Plan:
    planned = qdq_plan.plan(model, float_nodes)
    if not planned.weights and float_nodes:
        raise QuantizationError("all of it is to stay float")
    if not planned.weights:
        raise QuantizationError("it has no convolution or matrix product with constant float32 weights")
    return planned


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants folded and a recent opset; most have both already, and are returned as they are."""
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
    """The model without inputs that only declare a stored weight, as old exporters wrote them."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) == len(model.graph.input):
        return model
    copy = onnx_file.copied(model)
    copy.ir_version = max(model.ir_version, _IR_VERSION)
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def _with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with integer weights stored as floats again: only constant float weights can be given new scales."""
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
    copy = onnx_file.copied(model)
    for node in found:
        values, scale, *zero = (numpy_helper.to_array(stored[name]) for name in node.input if name)
        axis = onnx_file.attributes_of(node).get("axis", 1)
        shape = [-1 if at == axis % max(values.ndim, 1) else 1 for at in range(values.ndim)] if scale.size > 1 else ()
        offset = zero[0].reshape(shape).astype(np.int64) if zero else 0
        floats = (values.astype(np.int64) - offset) * scale.reshape(shape)
        copy.graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), node.output[0]))
    nodes = [node for node in model.graph.node if node not in found]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after ONNX Runtime's machine-independent optimisation, with batch norms and constants folded."""
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


def _made_up(planned: qdq_plan.Plan) -> dict[str, qdq_plan.Range]:
    """Ranges of about the usual size, each a different one because a runtime may join equal scales."""
    unknown = planned.unknown()
    return {
        name: (0.0 if planned.activations[name] else -3.0 - place / len(unknown), 3.0 + place / len(unknown))
        for place, name in enumerate(unknown)
    }
