"""Random small graphs of several nodes, for `count_files.py`: of any operators and types, and of the planned ones.

`graph_case` draws chains of transformers and of convolutions in any type, and networks of `int8_nets.py`, as they are,
in half or double precision, and quantised by ONNX Runtime's own tools. `planned_case` draws convolutional networks of
the operators that candidates are made of, with channels that fill no block, residual and dense connections, in float32
and quantised.
"""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from counted_models import Case, Draft, finished
from int8_nets import random_net
from onnx import TensorProto, helper, numpy_helper

from export.errors import QuantizationError
from export.quantization.quantize import quantize_like

Array = np.ndarray[Any, Any]
_CHANNELS = (3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40)
_QUANTIZED_KINDS = ("dynamic", "QDQ", "QOperator")


def graph_case(seed: int, number: int, folder: Path) -> Case | None:
    """One small graph; None where its tool refuses it."""
    rng = np.random.default_rng((seed, number, 3))
    kind = ("chain", "chain", "net", "retyped", "quantised")[number % 5]
    if kind == "chain":
        return _chain(rng, folder / f"g{number}")
    net = random_net(seed, number)
    model = net.model
    feed = {"x": net.inputs[: int(rng.integers(1, 3))]}
    if kind == "retyped":
        dtype = np.dtype(np.float16 if rng.random() < 0.6 else np.float64)
        model = _retyped(model, dtype)
        feed = {name: array.astype(dtype) for name, array in feed.items()}
    if kind == "quantised":
        how = str(rng.choice(_QUANTIZED_KINDS))
        found = _quantized(model, how, net.inputs, folder / f"g{number}")
        if found is None:
            return None
        model, kind = found, f"quantised {how}"
    name = f"{kind} {net.name}, opset {model.opset_import[0].version}"
    return _whole("graphs", name, model, feed)


def _whole(group: str, name: str, model: onnx.ModelProto, feed: dict[str, Array]) -> Case:
    """A case of a whole model: what is stored in it was put there by its maker."""
    settings = (TensorProto.INT64, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING)
    tensors = list(model.graph.initializer)
    inner = [each.t for node in model.graph.node if node.op_type == "Constant" for each in node.attribute]
    counted = [(t, 0) for t in tensors] + [(t, 1) for t in inner]
    sizes = [(math.prod(t.dims), least) for t, least in counted if t.data_type not in settings]
    constants = {t.name for t in tensors}
    constants.update(n.output[0] for n in model.graph.node if n.op_type == "Constant")
    return Case(
        group, name, model.SerializeToString(), feed, sum(size for size, least in sizes if size > least),
        tuple(model.graph.node), model, frozenset(constants),
    )  # fmt: skip


# --- chains


def _chain(rng: np.random.Generator, folder: Path) -> Case:
    styles = ("initializer", "initializer", "constant", "external", "shared", "listed")
    draft = Draft(rng, int(rng.integers(13, 27)), str(rng.choice(styles)))
    dtype = draft.pick(np.float32, np.float32, np.float32, np.float16)
    batch, steps, width = draft.size(1, 2), draft.size(3, 6), draft.pick(8, 16)
    if draft.chance(0.3):
        table = draft.weight(draft.array(20, width, dtype=dtype))
        tokens = draft.given(draft.rng.integers(0, 20, (batch, steps)).astype(np.int64))
        last = draft.add("Gather", table, tokens)[0]
    else:
        last = draft.given(draft.array(batch, steps, width, dtype=dtype))
    names = []
    for _ in range(draft.size(3, 8)):
        step = _STEPS[int(draft.rng.integers(len(_STEPS)))]
        if step is _lstm and dtype == np.float16:
            continue
        last = step(draft, last, batch, steps, width, dtype)
        names.append(step.__name__.strip("_"))
    extra = [draft.nodes[0].output[0]] if draft.chance(0.2) and draft.nodes[0].op_type != "Constant" else []
    outputs = list(dict.fromkeys([last, *extra])) if names else [draft.add("Identity", last)[0]]
    base = draft.pick("plain", "plain", "plain", "function", "branch")
    label = f"{' '.join(names)}, opset {draft.opset}, {draft.style}, {base}, {np.dtype(dtype)}"
    return finished(draft, outputs, label, base, folder, "graphs")


def _linear(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    made = d.add("MatMul", x, d.weight(d.array(width, width, dtype=dtype)))[0]
    return d.add("Add", made, d.weight(d.array(width, dtype=dtype)))[0]


def _feed_forward(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    wide = d.add("MatMul", x, d.weight(d.array(width, 3 * width, dtype=dtype)))[0]
    gate = d.add(d.pick("Relu", "Sigmoid", "Tanh", "Erf"), wide)[0]
    back = d.add("MatMul", d.add("Mul", wide, gate)[0], d.weight(d.array(3 * width, width, dtype=dtype)))[0]
    return d.add("Add", x, back)[0]


def _self_attention(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    """Attention written out, as exporters write it below opset 23, or as one node."""
    query, key, value = (d.add("MatMul", x, d.weight(d.array(width, width, dtype=dtype)))[0] for _ in range(3))
    if d.opset >= 23 and d.chance(0.6):
        return d.add("Attention", query, key, value, q_num_heads=2, kv_num_heads=2)[0]
    split = np.array([batch, steps, 2, width // 2], np.int64)
    parts = [d.add("Reshape", each, d.weight(split))[0] for each in (query, key, value)]
    query, value = (d.add("Transpose", each, perm=[0, 2, 1, 3])[0] for each in (parts[0], parts[2]))
    key = d.add("Transpose", parts[1], perm=[0, 2, 3, 1])[0]
    scores = d.add("Softmax", d.add("MatMul", query, key)[0], axis=-1)[0]
    mixed = d.add("Transpose", d.add("MatMul", scores, value)[0], perm=[0, 2, 1, 3])[0]
    return d.add("Reshape", mixed, d.weight(np.array([batch, steps, width], np.int64)))[0]


def _lstm(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    op, gates = d.pick(("GRU", 3), ("LSTM", 4))
    first = d.add("Transpose", x, perm=[1, 0, 2])[0]
    weights = [d.weight(d.array(2, gates * width // 2, size)) for size in (width, width // 2)]
    made = d.add(op, first, *weights, hidden_size=width // 2, direction="bidirectional")[0]
    swapped = d.add("Transpose", made, perm=[2, 0, 1, 3])[0]
    return d.add("Reshape", swapped, d.weight(np.array([batch, steps, width], np.int64)))[0]


def _convolved(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    turned = d.add("Transpose", x, perm=[0, 2, 1])[0]
    kernel, group = d.pick(1, 3, 5), d.pick(1, 2, width)
    weight = d.weight(d.array(width, width // group, kernel, dtype=dtype))
    made = d.add("Conv", turned, weight, group=group, pads=[kernel // 2] * 2)[0]
    return d.add("Transpose", d.add("Relu", made)[0], perm=[0, 2, 1])[0]


def _normed(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    if d.opset < 17:
        return d.add("Softmax", x, axis=-1)[0]
    scale = d.weight(d.array(width, dtype=dtype))
    if d.opset >= 23 and d.chance(0.4):
        return d.add("RMSNormalization", x, scale)[0]
    return d.add("LayerNormalization", x, scale)[0]


def _mixed(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    if dtype == np.float16:
        return _linear(d, x, batch, steps, width, dtype)
    return d.add("Einsum", x, d.weight(d.array(width, width)), equation="bsi,oi->bso")[0]


def _cut(d: Draft, x: str, batch: int, steps: int, width: int, dtype: Any) -> str:
    """Two halves that change their places."""
    parts = d.add("Split", x, d.weight(np.array([width // 2] * 2, np.int64)), outputs=2, axis=2)
    return d.add("Concat", *parts[::-1], axis=2)[0]


_STEPS = (_linear, _feed_forward, _self_attention, _lstm, _convolved, _normed, _mixed, _cut)


# --- networks in other types


def _retyped(model: onnx.ModelProto, dtype: np.dtype[Any]) -> onnx.ModelProto:
    """The network in another type; a Resize's scales stay float32."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    scales = {name for node in found.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    for tensor in found.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for info in (*found.graph.input, *found.graph.output):
        info.type.tensor_type.elem_type = kind
    return found


def _quantized(model: onnx.ModelProto, how: str, inputs: Array, folder: Path) -> onnx.ModelProto | None:
    """The network quantised by ONNX Runtime's tool; None where it refuses."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = [{"x": inputs}]

        def get_next(self) -> dict[str, Array] | None:
            return self._left.pop() if self._left else None

    logging.getLogger().setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)  # the tool writes inferred sizes that the runtime warns of
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "quantised.onnx"
    try:
        if how == "dynamic":
            quantize_dynamic(model, made, weight_type=QuantType.QInt8)
        else:
            form = QuantFormat.QDQ if how == "QDQ" else QuantFormat.QOperator
            quantize_static(model, made, _Reader(), quant_format=form)
    except Exception:  # the tool's errors have no common base; what it can't quantise is no case
        return None
    return onnx.load_model(made)


# --- planned graphs


class _Net:
    """A convolutional network that grows, and the shapes of its values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.d = Draft(rng, int(rng.integers(13, 24)))
        self.batch = self.d.pick(1, 1, 2)
        side = self.d.pick(8, 12, 16, 17)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.last = self.d.given(self.d.array(1, self.d.pick(1, 3, 4, 16), side, side + self.d.pick(0, 0, 3)))
        self.shapes[self.last] = self.d.feed[self.last].shape
        self.made: list[str] = []

    @property
    def here(self) -> tuple[int, ...]:
        return self.shapes[self.last]

    def add(self, op: str, *inputs: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> str:
        name = self.d.add(op, *inputs, **attributes)[0]
        self.shapes[name] = self.shapes[inputs[0]] if shape is None else shape
        return name

    def grow(self) -> None:
        step = self.d.pick(*_PLANNED_STEPS)
        found = step(self)
        if found is not None:
            self.last = found
            self.made.append(found)


def _p_conv(n: _Net, stride: int | None = None) -> str:
    d = n.d
    batch, channels, height, width = n.here
    kernel, stride = d.pick(1, 1, 3, 3, 5), d.pick(1, 1, 2) if stride is None else stride
    group = d.pick(1, 1, channels, *([2] if channels % 2 == 0 else []))
    made = channels * d.pick(1, 2) if group == channels else d.pick(*_CHANNELS)
    made += made % 2 if group == 2 else 0
    weight = d.weight(d.array(made, channels // group, kernel, kernel))
    bias = [d.weight(d.array(made))] if d.chance(0.6) else []
    shape = (batch, made, *((size - 1) // stride + 1 for size in (height, width)))
    pads = [kernel // 2] * 4
    strides = [stride] * 2
    settings = {"group": group, "pads": pads, "strides": strides, "kernel_shape": [kernel] * 2}
    y = n.add("Conv", n.last, weight, *bias, shape=shape, **settings)
    if d.chance(0.4):
        ones = [d.weight(np.abs(d.array(made)) + 0.5) for _ in range(4)]
        y = n.add("BatchNormalization", y, *ones)
    return _p_activation(n, y) if d.chance(0.7) else y


_UNARY = (
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Neg", "Relu", "Relu", "Relu", "Relu",
    "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu", "silu", "hard", "PRelu", "Identity",
    "Dropout", "HardSwish", "Mish", "Gelu", "Sqrt",
)  # fmt: skip


def _p_activation(n: _Net, x: str | None = None) -> str | None:
    d, x = n.d, n.last if x is None else x
    op = str(d.pick(*_UNARY))
    if {"HardSwish": 14, "Mish": 18, "Gelu": 20}.get(op, 0) > d.opset:
        op = "Relu"
    if op == "Clip":
        ends = [d.weight(np.array(end, np.float32)) for end in d.pick((0.0, 6.0), (-1.0, 1.0))]
        return n.add("Clip", x, *ends)
    if op == "PRelu":
        return n.add("PRelu", x, d.weight(d.array(n.shapes[x][1], *[1] * (len(n.shapes[x]) - 2))))
    if op == "silu":
        return n.add("Mul", x, n.add("Sigmoid", x))
    if op == "hard":
        return n.add("Mul", x, n.add("HardSigmoid", x, **d.pick({}, {"alpha": 1 / 6, "beta": 0.5})))
    if op == "Sqrt":
        return n.add("Sqrt", n.add("Abs", x))
    return n.add(op, x)


def _p_pool(n: _Net) -> str | None:
    d = n.d
    kernel, stride = d.pick((2, 2), (3, 2), (3, 1))
    if min(n.here[2:]) < 4:
        return None
    pad = kernel // 2 if kernel == 3 else 0
    shape = (*n.here[:2], *((size + 2 * pad - kernel) // stride + 1 for size in n.here[2:]))
    settings = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    op = d.pick("MaxPool", "AveragePool")
    include = {"count_include_pad": d.pick(0, 1)} if op == "AveragePool" else {}
    return n.add(op, n.last, shape=shape, **settings, **include)


def _p_sum(n: _Net) -> str | None:
    same = [name for name in n.made if n.shapes[name] == n.here]
    op = n.d.pick("Add", "Add", "Add", "Mul", "Sub", "Max", "Min", "Div")
    other = n.d.pick(*same) if same else n.last
    if other == n.last and op in ("Sub", "Div"):
        op = "Add"
    return n.add(op, *n.d.pick((n.last, other), (other, n.last)))


def _p_residual(n: _Net) -> str | None:
    """An inverted bottleneck with its input added."""
    x, channels = n.last, n.here[1]
    wide = channels * n.d.pick(2, 3)
    for made, group, kernel in ((wide, 1, 1), (wide, wide, 3), (channels, 1, 1)):
        weight = n.d.weight(n.d.array(made, n.here[1] // group, kernel, kernel))
        shape = (n.here[0], made, *n.here[2:])
        settings: dict[str, Any] = {"group": group, "pads": [kernel // 2] * 4}
        n.last = n.add("Conv", n.last, weight, n.d.weight(n.d.array(made)), shape=shape, **settings)
        if made != channels:
            n.last = _p_activation(n) or n.last
        if group == wide and n.d.chance(0.4):
            n.last = _p_gate(n)
    y = n.add("Add", *n.d.pick((x, n.last), (n.last, x)))
    return n.add("Relu", y) if n.d.chance(0.4) else y


def _p_gate(n: _Net) -> str:
    """Squeeze and excitation."""
    x, channels = n.last, n.here[1]
    pooled = n.add("GlobalAveragePool", x, shape=(*n.here[:2], 1, 1))
    less = max(1, channels // 4)
    small = n.add("Conv", pooled, n.d.weight(n.d.array(less, channels, 1, 1)), shape=(n.here[0], less, 1, 1))
    small = n.add("Relu", small)
    gate = n.add("Conv", small, n.d.weight(n.d.array(channels, less, 1, 1)), shape=(n.here[0], channels, 1, 1))
    gate = n.add(n.d.pick("Sigmoid", "HardSigmoid"), gate)
    return n.add("Mul", x, gate, shape=n.shapes[x])


def _p_dense(n: _Net) -> str | None:
    fits = [name for name in n.made if n.shapes[name][2:] == n.here[2:] and len(n.shapes[name]) == 4]
    parts = [n.last, n.d.pick(*fits)] if fits else [n.last, n.last]
    if fits and n.d.chance(0.3):
        parts.append(n.d.pick(*fits))
    channels = sum(n.shapes[part][1] for part in parts)
    if channels > 128:
        return None
    return n.add("Concat", *parts, axis=1, shape=(n.here[0], channels, *n.here[2:]))


def _p_split(n: _Net) -> str | None:
    if n.here[1] % 2:
        return None
    half = n.here[1] // 2
    sizes = n.d.weight(np.array([half, half], np.int64))
    parts = n.d.add("Split", n.last, sizes, outputs=2, axis=1)
    for part in parts:
        n.shapes[part] = (n.here[0], half, *n.here[2:])
    n.made.append(parts[1])
    return parts[0]


def _p_shuffle(n: _Net) -> str | None:
    batch, channels, height, width = n.here
    if channels % 2:
        return None
    five = n.d.weight(np.array([0, 2, channels // 2, height, width], np.int64))
    wide = n.add("Reshape", n.last, five, shape=(batch, 2, channels // 2, height, width))
    turned = n.add("Transpose", wide, perm=[0, 2, 1, 3, 4], shape=(batch, channels // 2, 2, height, width))
    four = n.d.weight(np.array([0, channels, height, width], np.int64))
    return n.add("Reshape", turned, four, shape=n.here)


_PLANNED_STEPS = (
    _p_conv, _p_conv, _p_conv, _p_conv, _p_residual, _p_residual, _p_activation, _p_pool, _p_sum, _p_sum, _p_dense,
    _p_split, _p_shuffle, lambda n: _p_gate(n),
)  # fmt: skip


def _p_head(n: _Net) -> str:
    d = n.d
    batch, channels = n.here[:2]
    how = d.pick("pool", "mean", "squeeze", "flat")
    if how == "mean":
        if d.opset >= 18:
            axes = d.weight(np.array([2, 3], np.int64))
            x = n.add("ReduceMean", n.last, axes, keepdims=0, shape=(batch, channels))
        else:
            x = n.add("ReduceMean", n.last, axes=[2, 3], keepdims=0, shape=(batch, channels))
    else:
        pool = d.pick("GlobalAveragePool", "GlobalMaxPool")
        x = n.last if how == "flat" else n.add(pool, n.last, shape=(batch, channels, 1, 1))
        if how == "squeeze":
            x = n.add("Squeeze", x, d.weight(np.array([2, 3], np.int64)), shape=(batch, channels))
        else:
            x = n.add("Flatten", x, shape=(batch, math.prod(n.shapes[x][1:])))
    width = n.shapes[x][1]
    for made in (d.pick(8, 10), 10)[: d.size(1, 2)]:
        x = n.add("Gemm", x, d.weight(d.array(made, width)), d.weight(d.array(made)), transB=1, shape=(batch, made))
        width = made
        if d.chance(0.5):
            x = n.add("Relu", x)
    return x


def planned_case(seed: int, number: int) -> Case | None:
    """One planned network: every third is quantised as candidates are, every sixth drawn by `int8_nets.py`."""
    rng = np.random.default_rng((seed, number, 4))
    if number % 6 == 5:
        net = random_net(seed, number)
        case = _whole("planned", net.name, net.model, {"x": net.inputs[:1]})
    else:
        case = _drawn(rng)
    if number % 3 == 2:
        try:
            assert isinstance(case.content, bytes)
            content = quantize_like(case.content)
        except QuantizationError:
            return None
        name = f"INT8 {case.name}"
        case = _whole("planned", name, onnx.load_model_from_string(content), case.feed)
    return case


def _drawn(rng: np.random.Generator) -> Case:
    net = _Net(rng)
    for _ in range(net.d.size(2, 10)):
        net.grow()
    if not net.made:
        net.last = _p_conv(net)
    outputs = [_p_head(net) if net.d.chance(0.7) else net.last]
    if net.d.chance(0.15) and net.made[0] != outputs[0]:
        outputs.append(net.made[0])
    case = finished(net.d, outputs, f"opset {net.d.opset}", "plain", Path(), "planned")
    model = onnx.ModelProto()
    model.CopyFrom(case.plain)
    return _whole("planned", f"{operators_of(model)}, opset {net.d.opset}", model, case.feed)


def operators_of(model: onnx.ModelProto) -> str:
    """The operators of a network in their order, for its name."""
    return " ".join(node.op_type for node in model.graph.node)
