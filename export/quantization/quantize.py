"""A float model quantised to INT8, calibrated on real inputs or with made-up ranges; no torch.

Every calibrated model is checked in the session that will run it: see `kernel_check` for its kernels, `distrust` for
what then stays float.
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from export import onnx_file
from export.errors import InvalidFileError, QuantizationError, did_you_mean
from export.quantization import kernel_check, mixed_precision, qdq
from export.quantization.distrust import Distrust, planned, trusted_model
from export.quantization.ranges import MIN_MAX, Statistics, batch_of, made_up
from export.runtime_forms import with_exact_forms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from export.quantization.qdq_plan import Plan, Range

__all__ = ["QuantizationError", "Quantizer", "float_reasons", "is_quantized", "quantize_int8", "quantize_like"]

_OPSET = 13  # of the first DequantizeLinear with a scale for each channel
_IR_VERSION = 4  # the first whose weights needn't be inputs
# What exporters and ONNX Runtime's constant folding leave out, and `qdq_plan` doesn't know.
_UNFOLDED = frozenset({"BatchNormalization", "Constant", "ConstantOfShape", "Identity", "Dropout"})
REASONS_KEY = "hwnas.int8.float_reasons"
"""Metadata of a quantised model: JSON, value → the reason why its node stays float."""
_CHECKED_INPUTS = 4
_CHECKED_VALUES = _CHECKED_INPUTS * 3 * 64 * 64  # of larger inputs fewer: each has as many places to differ
_NO_SIGNAL = 1.0
"""Error of the outputs as a share of their own size from which on they say nothing about the float model's."""
_ERRORS: tuple[type[Exception], ...] = (InvalidFileError, *onnx_file.RUN_ERRORS)
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
        planned(self._source)
        self._distrust = Distrust()
        self._given, self._probes = model, _probes(calibration, batch_of(self._source))
        self._statistics = Statistics(self._source, calibration, threads=threads)
        self.groups = mixed_precision.groups_of(self._source)
        """Groups of nodes that can be left in float together, in order of execution."""
        self.activations = mixed_precision.activations_of(self._source)
        """Values made by activations that cost an integer operator of their own."""

    def quantize(
        self, method: str = MIN_MAX, float_nodes: Collection[str] = (), *, checked: bool = True
    ) -> onnx.ModelProto:
        """Return the model with QuantizeLinear/DequantizeLinear pairs; its input and output stay float.

        A node whose integer kernel gives something else than the graph says stays float, here and in all later calls;
        the model's metadata name these, see `float_reasons`.

        Args:
            method: of `export.quantization.ranges.METHODS`.
            float_nodes: values whose nodes stay float.
            checked: whether the file is run to check it, as every file has to be before it is used; without, what
                earlier checks of this model found stays float.

        Raises:
            QuantizationError: a value in `float_nodes` is none of the model's, nothing is left to quantise, the model
                can't be run on the images, a range isn't finite, the runtime computes a part of it wrongly even in
                float, or the outputs have nothing to do with the float model's.
            UnknownMethodError: no such method.
        """
        self._require_known(float_nodes)
        self._statistics.require_method(method)
        ranges = self._ranges(method)
        if checked:
            plan, model = trusted_model(self._source, float_nodes, self._distrust, ranges, self._feeds(self._source))
            self._require_signal(model, method)
        else:
            plan = planned(self._source, float_nodes, self._distrust)
            model = qdq.write(plan, self._distrust.wider(ranges(plan)))
        return _noted(model, plan.kept)

    def check_kernels(self) -> None:
        """Find what has to stay float for its integer kernel; later calls of `quantize` know it.

        Raises:
            QuantizationError: see `quantize`.
        """
        trusted_model(self._source, (), self._distrust, self._ranges(MIN_MAX), self._feeds(self._source))

    def _ranges(self, method: str) -> Callable[[Plan], dict[str, Range]]:
        return lambda plan: self._statistics.ranges(plan.unknown(), method)

    def _feeds(self, model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
        return {model.graph.input[0].name: self._probes}

    def _require_signal(self, model: onnx.ModelProto, method: str) -> None:
        error = self._error(model)
        if not error < _NO_SIGNAL:
            raise QuantizationError(
                f"with ranges by {method} its outputs are off by {error:.0%} of the float model's own size:"
                " 8 bits are too few for it"
            )

    def _error(self, model: onnx.ModelProto) -> float:
        """Distance of the deployed outputs from the float graph's as it was given, as a share of their size."""
        try:
            found = onnx_file.open_session(model.SerializeToString()).run(None, self._feeds(model))
            wanted = self._wanted
        except _ERRORS as error:
            raise QuantizationError(f"it can't be run on the calibration images: {error}") from error
        errors = [_relative_error(a, b) for a, b in zip(found, wanted, strict=True)]
        return max(errors, default=0.0)

    @cached_property
    def _wanted(self) -> list[npt.NDArray[np.float32]]:
        """Outputs of the float graph on the inputs of the check, with optimisations off."""
        session = onnx_file.open_session(self._given.SerializeToString(), optimised=False)
        return list(session.run(None, self._feeds(self._source)))

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


def quantize_like(model: bytes, *, feeds: Mapping[str, npt.NDArray[Any]] | None = None) -> bytes:
    """Quantise a model with made-up ranges: its outputs are useless, its costs are those of the calibrated model.

    Nodes, types and the shapes of the scales are those that `quantize_int8` gives; how long an integer kernel
    takes doesn't depend on the numbers.

    Args:
        model: serialised, embedded weights; one network, or a part of one.
        feeds: any inputs that it can be run on. With them its kernels are checked as `quantize_int8` checks them;
            without, only nodes whose kernels are known to be wrong or slow stay float.

    Raises:
        InvalidFileError: no ONNX model.
        QuantizationError: the model is quantised already, or has nothing to quantise.
    """
    source = _prepared(onnx_file.read_model(model))
    if feeds is None:
        plan = planned(source)
        return bytes(_noted(qdq.write(plan, made_up(plan)), plan.kept).SerializeToString())
    plan, quantised = trusted_model(source, (), Distrust(), made_up, feeds)
    return bytes(_noted(quantised, plan.kept).SerializeToString())


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether activations are quantised in the model; stored weights alone may be."""
    nodes = [node for graph in onnx_file.all_graphs(model.graph) for node in graph.node]
    return any(node.op_type in _QUANTIZED or node.op_type.startswith(("QLinear", "QGemm")) for node in nodes)


def float_reasons(model: onnx.ModelProto) -> dict[str, str]:
    """Map the values whose nodes are float for wrong or slow integer kernels to the reasons; of a model made here."""
    stored = {entry.key: entry.value for entry in model.metadata_props}.get(REASONS_KEY, "{}")
    return dict(json.loads(stored))


def _noted(model: onnx.ModelProto, reasons: Mapping[str, str]) -> onnx.ModelProto:
    if reasons:
        model.metadata_props.add(key=REASONS_KEY, value=json.dumps(dict(reasons), sort_keys=True))
    return model


def _probes(calibration: npt.NDArray[np.float32], batch: int | None) -> npt.NDArray[np.float32]:
    """Some of the calibration inputs, for the checks: a fixed batch, or as few as keep a large network in memory."""
    size = max(1, calibration[:1].size)
    return kernel_check.some_of(calibration, batch or max(1, min(_CHECKED_INPUTS, _CHECKED_VALUES // size)))


def _relative_error(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind != "f" or not wanted.size:
        return 0.0  # classes and the like: one in doubt says nothing
    size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
    off = float(np.sqrt(np.mean(np.square(found.astype(np.float64) - wanted))))
    return off / size if size > 0 else 0.0


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
        except onnx_file.CHECKER_ERRORS as error:
            raise QuantizationError(f"it can't be brought to opset {_OPSET}: {error}") from error
    model = with_exact_forms(model)
    if _foldable(model.graph):
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
    """The model with weights of any stored type as floats again: only constant float weights can be given new scales.

    Integers, 4-bit ones among them, and 8-bit floats have one scale, one a channel, or one a block of a channel.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    floats: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        constant = node.op_type == "DequantizeLinear" and all(not name or name in stored for name in node.input)
        if constant and node.domain in onnx_file.DEFAULT_DOMAINS and _gives_float32(node, stored[node.input[1]]):
            array = _dequantised(node, [stored[name] for name in node.input if name])
            floats[node.output[0]] = numpy_helper.from_array(array, node.output[0])
    if not floats:
        return model
    copy = onnx_file.copied(model)
    copy.graph.initializer.extend(floats.values())
    nodes = [node for node in model.graph.node if node.output[0] not in floats]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _gives_float32(node: onnx.NodeProto, scale: onnx.TensorProto) -> bool:
    asked = onnx_file.attributes_of(node).get("output_dtype") or onnx.TensorProto.FLOAT
    return bool(scale.data_type == asked == onnx.TensorProto.FLOAT)


def _dequantised(node: onnx.NodeProto, tensors: Sequence[onnx.TensorProto]) -> npt.NDArray[np.float32]:
    """Floats that a DequantizeLinear makes of constants: (values - zero point) · scale, in float32."""
    values, *others = (numpy_helper.to_array(tensor).astype(np.float64) for tensor in tensors)
    options = onnx_file.attributes_of(node)
    axis, block = int(options.get("axis", 1)), int(options.get("block_size", 0))
    spread = []
    for each in others:
        if block and each.ndim == values.ndim:
            each = np.repeat(each, block, axis).take(range(values.shape[axis]), axis)
        elif each.size > 1:
            each = each.reshape([-1 if at == axis % values.ndim else 1 for at in range(values.ndim)])
        elif each.ndim > values.ndim:
            each = each.reshape(())
        spread.append(each)
    scale, zero = spread[0], spread[1] if len(spread) > 1 else np.float64(0)
    return np.asarray((values - zero).astype(np.float32) * scale.astype(np.float32)).reshape(values.shape)


def _foldable(graph: onnx.GraphProto) -> bool:
    """Whether nodes compute something from constants alone, such as floats from stored half floats.

    Dequantised weights are no matter for a runtime, which may keep them as they are: see `_with_float_weights`.
    """
    stored = {tensor.name for tensor in graph.initializer}
    return any(
        node.op_type in _UNFOLDED
        or (
            node.op_type != "DequantizeLinear"
            and any(node.input)
            and all(name in stored for name in node.input if name)
        )
        for node in graph.node
    )


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
    options.log_severity_level = 4  # errors are raised
    return options
