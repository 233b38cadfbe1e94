"""Random valid models of one or a few nodes, with all that has to be known to count them by hand; seeded.

The nodes that hold products are drawn here, in every type and with every attribute that ONNX Runtime's CPU provider
takes. All other operators come from ONNX's own node tests, at an opset drawn from those that define them alike.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

_MS, _ML = "com.microsoft", "ai.onnx.ml"
_IR_VERSIONS = {**dict.fromkeys(range(7, 15), 7), **dict.fromkeys((15, 16, 17, 18), 8), 19: 9, 20: 9, 21: 10, 22: 10}
_NEWEST_IR = 11
OLDEST, NEWEST = 7, 26
_FLOATS = (np.float32, np.float32, np.float32, np.float16, np.float64)
_SETTINGS = frozenset({TensorProto.INT64, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING})
_STYLES = ("initializer", "initializer", "listed", "constant", "external", "shared", "sparse")
_BASES = ("plain", "plain", "plain", "plain", "function", "branch", "loop")


@dataclass
class Draft:
    """A model while it is drawn.

    Attributes:
        feed: input arrays by name.
        params: numbers that were stored as weights.
    """

    rng: Rng
    opset: int
    style: str = "initializer"
    feed: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    sparse: list[onnx.SparseTensorProto] = field(default_factory=list)
    params: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def array(self, *shape: int, dtype: Any = np.float32) -> Array:
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            return self.rng.integers(0 if kind.kind == "u" else -20, 20, shape).astype(dtype)
        return (self.rng.standard_normal(shape) / 2).astype(dtype)

    def given(self, array: Array) -> str:
        """A new input of the model."""
        name = f"x{next(self.numbers)}"
        self.feed[name] = array
        return name

    def weight(self, array: Array) -> str:
        """A new weight, stored in the draft's style."""
        name = f"w{next(self.numbers)}"
        tensor = numpy_helper.from_array(array, name)
        return self.tensor(tensor)

    def tensor(self, tensor: onnx.TensorProto) -> str:
        """A new weight, of any of ONNX's types."""
        count = math.prod(tensor.dims)
        weighs = tensor.data_type not in _SETTINGS
        self.constants.add(tensor.name)
        if self.style == "constant" and self.opset >= 9:
            self.nodes.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
            self.params += count if weighs and count > 1 else 0
        elif self.style == "sparse" and tensor.data_type == TensorProto.FLOAT and count > 4 and self.opset >= 11:
            dense = numpy_helper.to_array(tensor).copy()
            dense[self.rng.random(dense.shape) < 0.6] = 0
            at = np.flatnonzero(dense).astype(np.int64)
            values = numpy_helper.from_array(dense.ravel()[at], tensor.name)
            self.sparse.append(
                helper.make_sparse_tensor(values, numpy_helper.from_array(at, tensor.name + "_at"), list(dense.shape))
            )
            self.params += len(at)
        else:
            self.stored[tensor.name] = tensor
            self.params += count if weighs else 0
        return tensor.name

    def either(self, array: Array) -> str:
        """An input or a weight."""
        return self.given(array) if self.chance(0.35) else self.weight(array)

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        """A new node; attributes that are None are left out."""
        names = [f"y{next(self.numbers)}" for _ in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, domain=domain, **given))
        return names


@dataclass(frozen=True)
class Case:
    """A model with inputs, and what was put into it.

    Attributes:
        group: for the summary.
        content: a file where weights lie beside it, else bytes.
        nodes: those whose products are counted, with constants apart.
        turns: how often the nodes run; None for what only the runtime knows.
    """

    group: str
    name: str
    content: bytes | Path
    feed: dict[str, Array]
    params: int
    nodes: tuple[onnx.NodeProto, ...]
    plain: onnx.ModelProto = field(repr=False)
    constants: frozenset[str] = frozenset()
    turns: int = 1


# --- nodes with products


def _window(d: Draft, sizes: tuple[int, ...]) -> dict[str, Any]:
    rank = len(sizes)
    kernel = [d.size(1, min(3, size)) for size in sizes]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": [d.size(1, 3) for _ in sizes]}
    if d.chance(0.35):
        found["dilations"] = [d.size(1, 2) if (k - 1) * 2 + 1 <= s else 1 for k, s in zip(kernel, sizes, strict=True)]
    how = d.pick("none", "pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID")
    if how == "pads":
        found["pads"] = [d.size(0, k - 1) for k in kernel * 2]
    elif how != "none":
        found["auto_pad"] = how
    if d.chance(0.2):
        del found["strides"]
    return found if rank else {}


def _image(d: Draft, dtype: Any = np.float32, channels: int | None = None) -> Array:
    rank = d.pick(1, 2, 2, 2, 3)
    sizes = [d.size(3, 9 if rank < 3 else 5) for _ in range(rank)]
    return d.array(d.size(1, 2), channels or d.pick(1, 2, 3, 4, 6, 8, 16), *sizes, dtype=dtype)


def _grouped(d: Draft, channels: int) -> tuple[int, int]:
    group = d.pick(1, 1, channels, *(g for g in (2, 3) if channels % g == 0))
    return group, group * d.pick(1, 2, 3, 4)


def _conv(d: Draft, x: Array | None = None, name: str | None = None) -> list[str]:
    x = _image(d, d.pick(*_FLOATS)) if x is None else x
    group, made = _grouped(d, x.shape[1])
    window = _window(d, x.shape[2:])
    weight = d.array(made, x.shape[1] // group, *window["kernel_shape"], dtype=x.dtype)
    bias = [d.either(d.array(made, dtype=x.dtype))] if d.chance(0.5) else []
    if d.chance(0.2):
        del window["kernel_shape"]
    return d.add("Conv", name or d.given(x), d.either(weight), *bias, group=group, **window)


def _conv_integer(d: Draft) -> list[str]:
    x = _image(d, d.pick(np.uint8, np.int8))[:, :, ...]
    x = x if x.ndim == 4 else d.array(1, 3, 6, 6, dtype=np.uint8)
    group, made = _grouped(d, x.shape[1])
    window = _window(d, x.shape[2:])
    weight = d.array(made, x.shape[1] // group, *window["kernel_shape"], dtype=d.pick(np.uint8, np.int8))
    points = [d.weight(np.array(3, x.dtype)), d.weight(np.array(1, weight.dtype))][: d.pick(0, 1, 2)]
    return d.add("ConvInteger", d.given(x), d.either(weight), *points, group=group, **window)


def _scale(d: Draft) -> list[Any]:
    return [np.array(0.05, np.float32)]


def _qlinear_conv(d: Draft) -> list[str]:
    kind = d.pick(np.uint8, np.int8)
    x = _image(d, kind)
    group, made = _grouped(d, x.shape[1])
    window = _window(d, x.shape[2:])
    weight = d.array(made, x.shape[1] // group, *window["kernel_shape"], dtype=np.int8)
    per_channel = d.chance(0.5)
    scales = np.full(made, 0.02, np.float32) if per_channel else np.array(0.02, np.float32)
    inputs = [d.given(x), d.weight(np.array(0.05, np.float32)), d.weight(np.array(2, kind)), d.weight(weight)]
    inputs += [d.weight(scales), d.weight(np.zeros(scales.shape, np.int8)), d.weight(np.array(0.3, np.float32))]
    inputs.append(d.weight(np.array(1, kind)))
    if d.chance(0.5):
        inputs.append(d.weight(d.array(made, dtype=np.int32)))
    return d.add("QLinearConv", *inputs, group=group, **window)


def _conv_transpose(d: Draft) -> list[str]:
    x = _image(d, d.pick(np.float32, np.float32, np.float16))
    channels, rank = x.shape[1], x.ndim - 2
    group = d.pick(1, 1, *(g for g in (2, 3) if channels % g == 0))
    window = _window(d, x.shape[2:])
    strides = window.get("strides", [1] * rank)
    weight = d.array(channels, d.pick(1, 2, 4), *window["kernel_shape"], dtype=x.dtype)
    if d.chance(0.4):
        window["output_padding"] = [d.size(0, s - 1) for s in strides]
    elif d.chance(0.3):
        window.pop("pads", None)
        window["output_shape"] = [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
    bias = [d.either(d.array(weight.shape[1] * group, dtype=x.dtype))] if d.chance(0.4) else []
    return d.add("ConvTranspose", d.given(x), d.either(weight), *bias, group=group, **window)


def _deform_conv(d: Draft) -> list[str]:
    d.opset = max(d.opset, 19)
    x = d.array(1, 4, d.size(4, 7), d.size(4, 7), dtype=d.pick(np.float32, np.float64))
    weight = d.array(d.pick(2, 4), 4, 2, 2, dtype=x.dtype)
    out = [size - 1 for size in x.shape[2:]]
    return d.add("DeformConv", d.given(x), d.either(weight), d.given(d.array(1, 8, *out, dtype=x.dtype)))


def _operands(d: Draft, dtype: Any) -> tuple[Array, Array]:
    inner = d.pick(1, 3, 8, 16)
    left, right = [d.size(1, 6), inner], [inner, d.size(1, 9)]
    for at in range(d.size(0, 3)):
        size = d.size(1, 3)
        kept = d.pick("both", "left", "right", "one", "left only", "right only")
        if kept != "right only" and len(left) == 2 + at:
            left.insert(0, 1 if kept == "right" else size)
        if kept != "left only" and len(right) == 2 + at:
            right.insert(0, 1 if kept in ("left", "one") else size)
    if d.chance(0.15):
        left = [inner]
    if d.chance(0.15):
        right = [inner]
    return d.array(*left, dtype=dtype), d.array(*right, dtype=dtype)


def _matmul(d: Draft) -> list[str]:
    kinds = [np.float32, np.float32, np.float64, np.float16, *((np.int32, np.int64) if d.opset >= 9 else ())]
    left, right = _operands(d, d.pick(*kinds))
    return d.add("MatMul", d.either(left) if d.chance(0.2) else d.given(left), d.either(right))


def _matmul_integer(d: Draft) -> list[str]:
    left, right = _operands(d, np.uint8)
    right = right.astype(d.pick(np.uint8, np.int8))
    if left.ndim < 2 or right.ndim < 2:
        left, right = d.array(3, 8, dtype=np.uint8), d.array(8, 5, dtype=right.dtype)
    points = [d.weight(np.array(3, left.dtype)), d.weight(np.array(1, right.dtype))][: d.pick(0, 1, 2)]
    return d.add("MatMulInteger", d.given(left), d.either(right), *points)


def _qlinear_matmul(d: Draft) -> list[str]:
    left, right = d.array(*d.pick((3, 8), (2, 3, 8)), dtype=np.uint8), d.array(8, d.size(1, 9), dtype=np.int8)
    quarter = [np.array(0.1, np.float32)]
    scale, point = d.weight(quarter[0]), d.weight(np.array(3, np.uint8))
    return d.add(
        "QLinearMatMul",
        d.given(left),
        scale,
        point,
        d.either(right),
        scale,
        d.weight(np.array(0, np.int8)),
        scale,
        point,
    )


def _gemm(d: Draft) -> list[str]:
    kind = d.pick(np.float32, np.float32, np.float64, np.float16)
    rows, inner, made = d.size(1, 6), d.size(1, 9), d.size(1, 9)
    left, right = d.array(rows, inner, dtype=kind), d.array(inner, made, dtype=kind)
    across = d.pick(0, 1), d.pick(0, 1)
    bias = [d.array(made, dtype=kind)] if d.opset < 11 or d.chance(0.6) else []
    return d.add(
        "Gemm",
        d.given(left.T.copy() if across[0] else left),
        d.either(right.T.copy() if across[1] else right),
        *map(d.either, bias),
        transA=across[0],
        transB=across[1],
        alpha=d.pick(None, 0.5),
    )


def _recurrent(d: Draft) -> list[str]:
    op, gates = d.pick(("RNN", 1), ("GRU", 3), ("LSTM", 4))
    steps, batch, width, state = d.size(1, 6), d.size(1, 4), d.size(1, 6), d.size(1, 6)
    direction = d.pick("forward", "reverse", "bidirectional")
    both = 1 + (direction == "bidirectional")
    layout = None
    x = d.array(steps, batch, width)
    inputs = [d.given(x), d.either(d.array(both, gates * state, width)), d.either(d.array(both, gates * state, state))]
    lengths = d.rng.integers(1, steps + 1, batch).astype(np.int32)
    bias = d.weight(d.array(both, 2 * gates * state)) if d.chance(0.5) else ""
    optional = [bias]
    if d.chance(0.4):
        lengths[0] = steps
        optional.append(d.given(lengths) if d.chance(0.5) else d.weight(lengths))
        if d.chance(0.4):
            optional.append(d.weight(d.array(both, batch, state)))
    while optional and not optional[-1]:
        optional.pop()
    if op == "GRU" and d.chance(0.4):
        return d.add(op, *inputs, *optional, outputs=2, hidden_size=state, direction=direction, linear_before_reset=1)
    count = d.size(1, 2) if op != "LSTM" else d.size(1, 3)
    return d.add(op, *inputs, *optional, outputs=count, hidden_size=state, direction=direction, layout=layout)


def _einsum(d: Draft) -> list[str]:
    d.opset = max(d.opset, 12)
    equation = d.pick(
        "ij,jk->ik", "ij,jk", "bij,bjk->bik", "bhqd,bhkd->bhqk", "bhqk,bhkd->bqhd", "i,j->ij", "ij,ij->ij", "ij,ij->",
        "ij->ji", "ij->i", "ij,jk,kl->il", "ij,jk->k", "ij,kj->k", "...ij,...jk->...ik", "abc,cd->abd", "ij,j->i",
        "bij,jk->bik", "ab,bc,ac->c", "ij,i->j", "ijk,ilm,njm,nlk,abc->", "bi,oi,bo->b", "ab,cd->ac", "ab,b->ab",
    )  # fmt: skip
    sizes = {letter: d.size(2, 5) for letter in "abcdefghijklmnopq"}
    extra = tuple(d.size(2, 3) for _ in range(d.size(0, 2)))
    arrays = []
    for term in equation.partition("->")[0].split(","):
        shape = (*(extra if "..." in term else ()), *(sizes[letter] for letter in term.replace(".", "")))
        arrays.append(d.array(*shape, dtype=np.float32))
    kind = d.pick(np.float32, np.float32, np.float64)
    names = [d.given(arrays[0].astype(kind)), *(d.either(array.astype(kind)) for array in arrays[1:])]
    return d.add("Einsum", *names, equation=equation)


def _attention(d: Draft) -> list[str]:
    d.opset = max(d.opset, 23)
    kind = d.pick(np.float32, np.float32, np.float16)
    batch, shared, repeat = d.size(1, 2), d.size(1, 2), d.size(1, 3)
    heads, queries, keys, depth, width = shared * repeat, d.size(1, 5), d.size(1, 6), d.pick(4, 8), d.pick(4, 8)
    past = d.size(1, 4) if d.chance(0.35) else 0
    causal = 1 if d.chance(0.3) and not past else None
    flat = d.chance(0.5)
    if flat:
        shapes = (batch, queries, heads * depth), (batch, keys, shared * depth), (batch, keys, shared * width)
    else:
        shapes = (batch, heads, queries, depth), (batch, shared, keys, depth), (batch, shared, keys, width)
    inputs = [d.given(d.array(*shape, dtype=kind)) for shape in shapes]
    settings: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": shared} if flat else {}
    mask = d.given(d.array(queries, keys + past, dtype=kind)) if d.chance(0.3) else ""
    if past:
        inputs += [mask, *(d.given(d.array(batch, shared, past, size, dtype=kind)) for size in (depth, width))]
    elif mask:
        inputs.append(mask)
    return d.add("Attention", *inputs, outputs=3 if past else 1, is_causal=causal, **settings)


def _fused_matmul(d: Draft) -> list[str]:
    left, right = _operands(d, d.pick(np.float32, np.float32, np.float64))
    if left.ndim < 2 or right.ndim < 2:
        left, right = d.array(2, 3, 8), d.array(2, 8, 5)
    across = d.pick(0, 1), d.pick(0, 1)
    left = np.swapaxes(left, -1, -2).copy() if across[0] else left
    right = np.swapaxes(right, -1, -2).copy() if across[1] else right
    return d.add(
        "FusedMatMul", d.given(left), d.either(right), domain=_MS, transA=across[0], transB=across[1], alpha=0.5
    )


def _fused_conv(d: Draft) -> list[str]:
    made = _conv(d, d.array(1, 4, d.size(4, 8), d.size(4, 8)))
    d.nodes[-1].op_type, d.nodes[-1].domain = "FusedConv", _MS
    d.nodes[-1].attribute.append(helper.make_attribute("activation", "Relu"))
    return made


def _fused_gemm(d: Draft) -> list[str]:
    while True:
        made = _gemm(d)
        if next(iter(d.feed.values())).dtype == np.float32:
            break
        fresh = Draft(d.rng, d.opset, d.style)
        d.__dict__.update(fresh.__dict__)
    d.nodes[-1].op_type, d.nodes[-1].domain = "FusedGemm", _MS
    d.nodes[-1].attribute.append(helper.make_attribute("activation", "Relu"))
    return made


def _qgemm(d: Draft) -> list[str]:
    inner, made, across = d.size(1, 9), d.size(1, 9), d.pick(0, 1)
    right = d.array(made, inner, dtype=np.int8) if across else d.array(inner, made, dtype=np.int8)
    scale = d.weight(np.array(0.1, np.float32))
    inputs = [d.given(d.array(d.size(1, 5), inner, dtype=np.uint8)), scale, d.weight(np.array(3, np.uint8))]
    inputs += [d.weight(right), scale, d.weight(np.array(0, np.int8))]
    if d.chance(0.5):
        inputs += [d.weight(d.array(made, dtype=np.int32)), scale, d.weight(np.array(3, np.uint8))]
    return d.add("QGemm", *inputs, domain=_MS, transB=across, alpha=1.0)


def _dynamic_matmul(d: Draft) -> list[str]:
    left, right = d.array(*d.pick((3, 8), (2, 3, 8))), d.array(8, d.size(2, 9), dtype=d.pick(np.uint8, np.int8))
    scale = d.weight(np.array([0.1], np.float32))
    return d.add("DynamicQuantizeMatMul", d.given(left), d.weight(right), scale, domain=_MS)


def _integer_to_float(d: Draft) -> list[str]:
    left, right = d.array(*d.pick((3, 8), (2, 3, 8)), dtype=np.uint8), d.array(8, d.size(2, 9), dtype=np.int8)
    scale = d.weight(np.array(0.1, np.float32))
    return d.add("MatMulIntegerToFloat", d.given(left), d.weight(right), scale, scale, domain=_MS)


def _narrow_matmul(d: Draft) -> list[str]:
    inner, made, block = d.pick(32, 48, 64), d.size(2, 9), d.pick(16, 32)
    blocks = -(-inner // block)
    packed = d.weight(d.rng.integers(0, 255, (made, blocks, block // 2)).astype(np.uint8))
    scales = d.weight(d.array(made * blocks))
    left = d.array(*d.pick((3, inner), (2, 3, inner)))
    return d.add("MatMulNBits", d.given(left), packed, scales, domain=_MS, K=inner, N=made, bits=4, block_size=block)


def _packed_attention(d: Draft) -> list[str]:
    heads, depth, width, queries = d.pick(1, 2), d.pick(4, 8), d.pick(4, 8), d.size(1, 5)
    inner = heads * depth
    sizes = [inner, inner, heads * 4] if d.chance(0.3) else None
    made = sum(sizes) if sizes else 3 * inner
    inputs = [d.given(d.array(d.size(1, 2), queries, width)), d.weight(d.array(width, made)), d.weight(d.array(made))]
    batch = d.feed[inputs[0]].shape[0]
    if d.chance(0.4) and not sizes:
        inputs += ["", d.given(d.array(2, batch, heads, d.size(1, 4), depth))]
        return d.add("Attention", *inputs, outputs=2, domain=_MS, num_heads=heads)
    return d.add("Attention", *inputs, domain=_MS, num_heads=heads, qkv_hidden_sizes=sizes, unidirectional=d.pick(0, 1))


def _multi_head(d: Draft) -> list[str]:
    heads, depth, width = d.pick(1, 2), d.pick(4, 8), d.pick(4, 8)
    batch, queries, keys = d.size(1, 2), d.size(1, 5), d.size(1, 6)
    shapes = (batch, queries, heads * depth), (batch, keys, heads * depth), (batch, keys, heads * width)
    return d.add("MultiHeadAttention", *(d.given(d.array(*s)) for s in shapes), domain=_MS, num_heads=heads)


def _dynamic_lstm(d: Draft) -> list[str]:
    steps, batch, width, state = d.size(1, 5), d.size(1, 3), d.size(2, 6), d.size(2, 6)
    both = d.pick(1, 2)
    parts = [d.weight(d.array(both, size, 4 * state, dtype=np.int8)) for size in (width, state)]
    scale, point = d.weight(np.full(both, 0.02, np.float32)), d.weight(np.zeros(both, np.int8))
    inputs = [d.given(d.array(steps, batch, width)), *parts, "", "", "", "", "", scale, point, scale, point]
    way = "bidirectional" if both == 2 else d.pick("forward", "reverse")
    return d.add("DynamicQuantizeLSTM", *inputs, domain=_MS, hidden_size=state, direction=way)


def _qdq(d: Draft) -> list[str]:
    """A product between dequantised values, quantised or not, as quantisers write it; weights of 4 or 8 bits."""
    d.opset = max(d.opset, 13)
    narrow = d.opset >= 21 and d.chance(0.5)
    scale = d.weight(np.array(0.05, np.float32))
    kind = d.pick(np.uint8, np.int8)
    point = d.weight(np.array(3, kind))
    inner, made = d.pick(8, 16), d.size(2, 9)
    x = d.given(d.array(d.size(1, 4), inner))
    quantized = d.add("DequantizeLinear", d.add("QuantizeLinear", x, scale, point)[0], scale, point)[0]
    values = d.rng.integers(-7, 7, (inner, made))
    if narrow:
        bits = d.pick(TensorProto.INT4, TensorProto.UINT4)
        tensor = helper.make_tensor(f"w{next(d.numbers)}", bits, [inner, made], [abs(int(v)) for v in values.ravel()])
        weight = d.add("DequantizeLinear", d.tensor(tensor), d.weight(np.full(made, 0.1, np.float32)), axis=1)[0]
    else:
        weight = d.add("DequantizeLinear", d.weight(values.astype(np.int8)), scale)[0]
    y = d.add("MatMul", quantized, weight)[0]
    if d.chance(0.6):
        y = d.add("DequantizeLinear", d.add("QuantizeLinear", y, scale, point)[0], scale, point)[0]
    return [y]


def _qdq_conv(d: Draft) -> list[str]:
    d.opset = max(d.opset, 13)
    scale = d.weight(np.array(0.05, np.float32))
    point = d.weight(np.array(3, np.uint8))
    array = d.array(1, d.pick(3, 8, 16), d.size(4, 9), d.size(4, 9))
    x = d.add("DequantizeLinear", d.add("QuantizeLinear", d.given(array), scale, point)[0], scale, point)[0]
    made = d.pick(4, 8, 16)
    weight = d.weight(d.array(made, array.shape[1], 3, 3, dtype=np.int8))
    scales, points = d.weight(np.full(made, 0.02, np.float32)), d.weight(np.zeros(made, np.int8))
    weight = d.add("DequantizeLinear", weight, scales, points, axis=0)[0]
    y = d.add("Conv", x, weight, pads=[1, 1, 1, 1])[0]
    if d.chance(0.7):
        y = d.add("DequantizeLinear", d.add("QuantizeLinear", y, scale, point)[0], scale, point)[0]
    return [y]


def _float8_weights(d: Draft) -> list[str]:
    d.opset = max(d.opset, 19)
    made = d.size(2, 9)
    kind = d.pick(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
    tensor = helper.make_tensor(f"w{next(d.numbers)}", kind, [8, made], [0.5] * (8 * made))
    scale = d.weight(np.array(0.1, np.float32))
    return d.add("MatMul", d.given(d.array(3, 8)), d.add("DequantizeLinear", d.tensor(tensor), scale)[0])


def _bfloat16_weights(d: Draft) -> list[str]:
    d.opset = max(d.opset, 13)
    made = d.size(2, 9)
    tensor = helper.make_tensor(f"w{next(d.numbers)}", TensorProto.BFLOAT16, [8, made], [0.5] * (8 * made))
    return d.add("MatMul", d.given(d.array(3, 8)), d.add("Cast", d.tensor(tensor), to=TensorProto.FLOAT)[0])


def _pool_then_conv(d: Draft) -> list[str]:
    """What a pool makes is what the convolution behind it costs."""
    x = d.array(1, 3, d.size(5, 10), d.size(5, 10))
    window = _window(d, x.shape[2:])
    window["kernel_shape"] = [max(2, k) for k in window["kernel_shape"]]
    op = d.pick("MaxPool", "MaxPool", "AveragePool", "LpPool")
    if op != "MaxPool" or d.opset < 10:
        window.pop("dilations", None)
    ceil = d.pick(None, 1, 1) if d.opset >= 10 and op != "LpPool" else None
    pooled = d.add(op, d.given(x), ceil_mode=ceil, **window)[0]
    return d.add("Conv", pooled, d.weight(d.array(4, 3, 1, 1)))


def _resize_then_conv(d: Draft) -> list[str]:
    d.opset = max(d.opset, 13)
    x = d.array(1, 3, d.size(4, 9), d.size(4, 9))
    settings: dict[str, Any] = {"mode": d.pick("nearest", "linear", "cubic")}
    settings["coordinate_transformation_mode"] = d.pick("half_pixel", "asymmetric", "align_corners")
    if d.chance(0.5):
        factors = np.array([1, 1, d.pick(0.6, 1.5, 2.3, 2.0), d.pick(0.7, 1.3, 2.0)], np.float32)
        inputs = ["", d.weight(factors)]
    else:
        sizes = np.array([d.size(3, 12), d.size(3, 12)], np.int64)
        if d.opset >= 18 and d.chance(0.6):
            settings |= {"axes": [2, 3], "keep_aspect_ratio_policy": d.pick("not_larger", "not_smaller", "stretch")}
        else:
            sizes = np.array([1, 3, *sizes], np.int64)
        inputs = ["", "", d.weight(sizes)]
    resized = d.add("Resize", d.given(x), *inputs, **settings)[0]
    return d.add("Conv", resized, d.weight(d.array(4, 3, 1, 1)))


def _values_decide(d: Draft) -> list[str]:
    """Sizes that depend on values: a matrix product of what is left."""
    d.opset = max(d.opset, 13)
    x = d.given(np.maximum(d.array(d.size(3, 9)), 0))
    places = d.add("NonZero", x)[0]
    columns = d.add("Cast", d.add("Transpose", places)[0], to=TensorProto.FLOAT)[0]
    return d.add("MatMul", columns, d.weight(d.array(1, d.size(1, 6))))


def _linear_model(d: Draft) -> list[str]:
    d.opset = min(d.opset, 22)
    width, classes = d.size(1, 5), d.size(2, 4)
    x = d.array(d.size(1, 4), width)
    d.params += width * classes + classes
    numbers = {
        "coefficients": d.array(width * classes).tolist(),
        "intercepts": d.array(classes).tolist(),
    }
    if d.chance(0.5):
        return d.add("LinearRegressor", d.given(x), domain=_ML, targets=classes, **numbers)
    labels = list(range(classes))
    return d.add("LinearClassifier", d.given(x), outputs=2, domain=_ML, classlabels_ints=labels, **numbers)


def _scaler(d: Draft) -> list[str]:
    width = d.size(1, 5)
    d.params += 2 * width
    numbers = {"offset": d.array(width).tolist(), "scale": d.array(width).tolist()}
    return d.add("Scaler", d.given(d.array(3, width)), domain=_ML, **numbers)


def _tree(d: Draft) -> list[str]:
    """A tree of one question: products or not, its cost may be given as unknown alone."""
    d.opset = min(d.opset, 22)
    d.params += 3 + 2
    return d.add(
        "TreeEnsembleRegressor", d.given(d.array(3, 2)), domain=_ML, n_targets=1, nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_values=[0.1, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
        post_transform="NONE",
    )  # fmt: skip


def _integer_elementwise(d: Draft) -> list[str]:
    kind = d.pick(np.uint8, np.int8)
    scale, point = d.weight(np.array(0.1, np.float32)), d.weight(np.array(3, kind))
    shape = (2, d.size(2, 5), 4)
    pair = [d.given(d.array(*shape, dtype=kind)), scale, point, d.given(d.array(*shape, dtype=kind)), scale, point]
    op = d.pick("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu")
    if op in ("QLinearAdd", "QLinearMul"):
        return d.add(op, *pair, scale, point, domain=_MS)
    d.feed.pop(pair[3])
    return d.add(op, *pair[:3], scale, point, domain=_MS)


def _fused_elementwise(d: Draft) -> list[str]:
    width = d.pick(4, 8)
    x = d.array(2, 3, width)
    op = d.pick("BiasGelu", "FastGelu", "QuickGelu", "Gelu", "SkipLayerNormalization", "GroupNorm", "FusedMatMulless")
    if op == "BiasGelu":
        return d.add(op, d.given(x), d.weight(d.array(width)), domain=_MS)
    if op == "SkipLayerNormalization":
        parts = [d.weight(d.array(width)), d.weight(d.array(width))]
        return d.add(op, d.given(x), d.given(x + 1), *parts, domain=_MS)
    return d.add(op if op.endswith("elu") else "QuickGelu", d.given(x), domain=_MS)


PRODUCTS: tuple[tuple[Callable[[Draft], list[str]], int], ...] = (
    (_conv, 8), (_conv_integer, 2), (_qlinear_conv, 4), (_conv_transpose, 7), (_deform_conv, 1), (_matmul, 7),
    (_matmul_integer, 3), (_qlinear_matmul, 2), (_gemm, 5), (_recurrent, 8), (_einsum, 6), (_attention, 6),
    (_fused_matmul, 3), (_fused_conv, 2), (_fused_gemm, 1), (_qgemm, 2), (_dynamic_matmul, 2), (_integer_to_float, 1),
    (_narrow_matmul, 2), (_packed_attention, 2), (_multi_head, 2), (_dynamic_lstm, 1), (_qdq, 4), (_qdq_conv, 3),
    (_float8_weights, 1), (_bfloat16_weights, 1), (_pool_then_conv, 6), (_resize_then_conv, 6), (_values_decide, 2),
    (_linear_model, 2), (_scaler, 1), (_tree, 1), (_integer_elementwise, 2), (_fused_elementwise, 2),
)  # fmt: skip


def product_case(seed: int, number: int, folder: Path) -> Case:
    """One node that holds products, or two or three that belong together."""
    rng = np.random.default_rng((seed, number, 1))
    weights = np.array([weight for _, weight in PRODUCTS])
    make = PRODUCTS[int(rng.choice(len(PRODUCTS), p=weights / weights.sum()))][0]
    draft = Draft(rng, int(rng.integers(OLDEST, NEWEST + 1)), str(rng.choice(_STYLES)))
    outputs = make(draft)
    base = str(rng.choice(_BASES))
    name = f"{make.__name__.strip('_')}, opset {draft.opset}, {draft.style}, {base}"
    return finished(draft, outputs, name, base, folder / f"p{number}")


def finished(draft: Draft, outputs: list[str], name: str, base: str, folder: Path, group: str = "products") -> Case:
    """The draft as a model, its weights stored as it says, its nodes in a function, a branch or a loop, or none."""
    plain = _model(draft, draft.nodes, outputs)
    turns = 1
    model = plain
    if base == "function" and draft.opset >= 15:
        model = _in_function(draft, outputs)
    elif base == "branch" and draft.opset >= 11 and draft.feed:
        model = _in_branch(draft, outputs)
    elif base == "loop" and draft.opset >= 13 and len(outputs) == 1 and draft.style != "constant":
        model, turns = _in_loop(draft, outputs)
    content: bytes | Path = model.SerializeToString()
    if draft.style in ("external", "shared"):
        content = _beside(model, folder, shared=draft.style == "shared")
    return Case(
        group, name, content, draft.feed, draft.params, tuple(draft.nodes), plain,
        frozenset() if draft.style == "listed" else frozenset(draft.constants), turns,
    )  # fmt: skip


def _model(draft: Draft, nodes: list[onnx.NodeProto], outputs: list[str], functions: Any = ()) -> onnx.ModelProto:
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in draft.feed.items()
    ]
    if draft.style == "listed":
        given += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in draft.stored.values()]
    wanted = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "drawn", given, wanted, list(draft.stored.values()))
    graph.sparse_initializer.extend(draft.sparse)
    opsets = [helper.make_opsetid("", draft.opset)]
    opsets += [helper.make_opsetid(_MS, 1), helper.make_opsetid(_ML, 3 if draft.opset < 23 else 5)]
    if functions:
        opsets.append(helper.make_opsetid("own", 1))
    ir = max(8 if functions else 4, _IR_VERSIONS.get(draft.opset, _NEWEST_IR))
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))


def _in_function(draft: Draft, outputs: list[str]) -> onnx.ModelProto:
    inner = [node for node in draft.nodes if node.op_type != "Constant"]
    made = {name for node in inner for name in node.output}
    read = list(dict.fromkeys(name for node in inner for name in node.input if name and name not in made))
    opsets = [helper.make_opsetid("", draft.opset), helper.make_opsetid(_MS, 1)]
    opsets.append(helper.make_opsetid(_ML, 3 if draft.opset < 23 else 5))
    function = helper.make_function("own", "Block", read, outputs, inner, opsets)
    constants = [node for node in draft.nodes if node.op_type == "Constant"]
    call = helper.make_node("Block", read, outputs, domain="own")
    return _model(draft, [*constants, call], outputs, [function])


def _in_branch(draft: Draft, outputs: list[str]) -> onnx.ModelProto:
    """The nodes in the branch that is taken; the other gives the input itself, or makes another product."""
    condition = draft.given(np.array(True)) if draft.chance(0.5) else draft.weight(np.array(True))
    x = next(iter(draft.feed))
    inner = [node for node in draft.nodes if node.op_type != "Constant"]
    wanted = [onnx.ValueInfoProto(name=name) for name in outputs]
    then = helper.make_graph(inner, "then", [], wanted)
    others = [helper.make_node("Identity", [x], [f"other{at}"]) for at in range(len(outputs))]
    named = [onnx.ValueInfoProto(name=f"other{at}") for at in range(len(outputs))]
    otherwise = helper.make_graph(others, "else", [], named)
    results = [f"result{at}" for at in range(len(outputs))]
    choice = helper.make_node("If", [condition], results, then_branch=then, else_branch=otherwise)
    constants = [node for node in draft.nodes if node.op_type == "Constant"]
    return _model(draft, [*constants, choice], results)


def _in_loop(draft: Draft, outputs: list[str]) -> tuple[onnx.ModelProto, int]:
    turns = draft.size(1, 3)
    count = draft.weight(np.array(turns, np.int64))
    going = helper.make_node("Identity", ["more"], ["still"])
    body = helper.make_graph(
        [going, *draft.nodes],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), onnx.ValueInfoProto(name=outputs[0])],
    )
    loop = helper.make_node("Loop", [count, ""], ["stacked"], body=body)
    return _model(draft, [loop], ["stacked"]), turns


def _beside(model: onnx.ModelProto, folder: Path, *, shared: bool) -> Path:
    """The model with its weights in a file beside it, equal ones in one region if `shared`."""
    folder.mkdir(parents=True, exist_ok=True)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    regions: dict[bytes, int] = {}
    written = b""
    for tensor in copied.graph.initializer:
        if not tensor.HasField("raw_data") or not tensor.raw_data:
            continue
        raw = tensor.raw_data
        at = regions.get(raw) if shared else None
        if at is None:
            written += b"\0" * (-len(written) % 64)
            at = len(written)
            regions[raw] = at
            written += raw
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        tensor.external_data.add(key="offset", value=str(at))
        tensor.external_data.add(key="length", value=str(len(raw)))
    (folder / "weights.bin").write_bytes(written)
    assert not written or any(external_data_helper.uses_external_data(t) for t in copied.graph.initializer)
    path = folder / "model.onnx"
    path.write_bytes(copied.SerializeToString())
    return path


# --- all other operators


@cache
def _published() -> tuple[Any, ...]:
    """ONNX's own node tests of one node, whose inputs are plain tensors."""
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        cases = collect_testcases(None)
    return tuple(
        case
        for case in cases
        if len(case.model.graph.node) == 1
        and case.data_sets
        and all(info.type.HasField("tensor_type") for info in case.model.graph.input)
        and all(isinstance(array, (np.ndarray, np.generic)) for array in case.data_sets[0][0])
    )


def published_count() -> int:
    """How many node tests there are."""
    return len(_published())


def published_case(seed: int, number: int) -> Case:
    """A node test, at an opset at which its operator is defined alike; some inputs become weights."""
    case = _published()[number % published_count()]
    rng = np.random.default_rng((seed, number, 2))
    node = case.model.graph.node[0]
    domain, own = node.domain, {each.domain: each.version for each in case.model.opset_import}
    opset = own.get(domain, own.get("", NEWEST))
    if domain == "":
        since = onnx.defs.get_schema(node.op_type, opset, domain).since_version
        alike = [
            version
            for version in range(max(OLDEST, since), NEWEST + 1)
            if onnx.defs.get_schema(node.op_type, version, domain).since_version == since
        ]
        opset = int(rng.choice(alike)) if alike else opset
    draft = Draft(rng, opset if domain == "" else own.get("", 22))
    arrays = [np.asarray(array) for array in case.data_sets[0][0]]
    names = [info.name for info in case.model.graph.input]
    for at, (name, array) in enumerate(zip(names, arrays, strict=True)):
        info = case.model.graph.input[at]
        if at and array.size and array.dtype.kind in "fiub" and rng.random() < 0.4:
            tensor = numpy_helper.from_array(array, name)
            if tensor.data_type == info.type.tensor_type.elem_type:
                draft.tensor(tensor)
                continue
        draft.feed[name] = array
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = [info for info in model.graph.input if info.name in draft.feed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(draft.stored.values())
    for each in model.opset_import:
        if each.domain == "" and domain == "":
            each.version = opset
    model.ir_version = min(model.ir_version, _NEWEST_IR)
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    params = draft.params + _in_attributes(node)
    name = f"{node.op_type}, opset {opset} ({case.name})"
    constants = frozenset(draft.constants)
    return Case("operators", name, model.SerializeToString(), draft.feed, params, (node,), model, constants)


def _in_attributes(node: onnx.NodeProto) -> int:
    """Numbers in the attributes of Constant and of classic models."""
    inner = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    if inner:
        return sum(_in_attributes(each) for graph in inner for each in graph.node)
    if node.op_type != "Constant" and node.domain != _ML:
        return 0
    total = 0
    for each in node.attribute:
        if each.type == onnx.AttributeProto.TENSOR and each.t.data_type not in _SETTINGS:
            total += math.prod(each.t.dims)
        total += len(each.floats)
    return total if node.domain == _ML or total > 1 else 0
