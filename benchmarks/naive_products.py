"""Products counted one by one, the slow and plain way, from the arrays that a runtime returned: what a graph costs.

Nothing here is shared with the package that is held against it. Each function returns the number of products, and where
it is cheap to have, the result that they give, so that a wrong reading of an attribute shows.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Counted = tuple[int, Array | None]


class UnknownCostError(Exception):
    """An operator whose products nobody has counted here: a figure for it would be a guess."""


def products(nodes: Sequence[onnx.NodeProto], arrays: Arrays, constants: frozenset[str] = frozenset()) -> int:
    """Products of convolutions and matrix products in the nodes, those that depend on constants alone left out.

    Raises:
        UnknownCostError: there is an operator that nobody counts.
        AssertionError: what the products add up to isn't what the runtime returned.
    """
    total = 0
    fixed = set(constants)
    for node in nodes:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
            continue
        count = _COUNTS.get((_domain(node), node.op_type))
        if count is None:
            if not _is_free(node):
                raise UnknownCostError(node.op_type)
            continue
        number, result = count(_Node(node, arrays))
        made = arrays.get(node.output[0])
        if result is not None and made is not None:
            assert result.shape == made.shape, (node.op_type, result.shape, made.shape)
            loose = 0.05 if made.dtype == np.float16 else 1e-3
            assert np.allclose(result, made.astype(np.float64), rtol=loose, atol=loose), node.op_type
        total += number
    return total


def _is_free(node: onnx.NodeProto) -> bool:
    key = _domain(node), node.op_type
    inner = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    return key not in _UNKNOWN and key not in _COUNTS and all(_is_free(each) for graph in inner for each in graph.node)


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


class _Node:
    def __init__(self, proto: onnx.NodeProto, arrays: Arrays) -> None:
        self.proto, self._arrays = proto, arrays
        self.attributes = {each.name: helper.get_attribute_value(each) for each in proto.attribute}

    def read(self, at: int) -> Array | None:
        if at < len(self.proto.input) and self.proto.input[at]:
            return self._arrays[self.proto.input[at]]
        return None

    def input(self, at: int) -> Array:
        return self._arrays[self.proto.input[at]]

    @property
    def output(self) -> Array:
        return self._arrays[next(name for name in self.proto.output if name)]

    def listed(self, name: str, default: Sequence[int]) -> list[int]:
        return [int(value) for value in self.attributes.get(name, default)]


def _convolution(weight_at: int, *, channels_last: bool = False, checked: bool = False) -> Callable[[_Node], Counted]:
    def count(node: _Node) -> Counted:
        x, weight, made = node.input(0), node.input(weight_at), node.output
        if channels_last:
            x, made = np.moveaxis(x, -1, 1), np.moveaxis(made, -1, 1)
        rank = x.ndim - 2
        kernel, spatial = weight.shape[2:], made.shape[2:]
        strides, dilations = node.listed("strides", [1] * rank), node.listed("dilations", [1] * rank)
        begins = _begins(node, x.shape[2:], spatial, kernel, strides, dilations)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        room = [
            (begin, max(0, (out - 1) * s + r - begin - size))
            for begin, out, s, r, size in zip(begins, spatial, strides, reach, x.shape[2:], strict=True)
        ]
        padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *room])
        groups = int(node.attributes.get("group", 1))
        inside, outside = weight.shape[1], weight.shape[0] // groups
        total, result = 0, np.zeros(made.shape)
        filters = weight.astype(np.float64)
        for place in itertools.product(*(range(size) for size in spatial)):
            cut = tuple(slice(p * s, p * s + r, d) for p, s, r, d in zip(place, strides, reach, dilations, strict=True))
            window = padded[(slice(None), slice(None), *cut)]
            for group in range(groups):
                part = window[:, None, group * inside : (group + 1) * inside]
                mine = filters[None, group * outside : (group + 1) * outside]
                total += np.broadcast(part, mine).size
                if checked:
                    sums = (part * mine).reshape(len(x), outside, -1).sum(-1)
                    result[(slice(None), slice(group * outside, (group + 1) * outside), *place)] = sums
        if not checked or x.dtype.kind != "f":
            return total, None
        bias = node.read(2)
        return total, result if bias is None else result + bias.astype(np.float64).reshape(-1, *[1] * rank)

    return count


def _begins(
    node: _Node,
    sizes: Sequence[int],
    made: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Zeros before the first element along each axis."""
    how = node.attributes.get("auto_pad", b"NOTSET")
    if how == b"NOTSET":
        return node.listed("pads", [0] * (2 * len(sizes)))[: len(sizes)]
    if how == b"VALID":
        return [0] * len(sizes)
    totals = [
        max(0, (out - 1) * s + (k - 1) * d + 1 - size)
        for out, s, k, d, size in zip(made, strides, kernel, dilations, sizes, strict=True)
    ]
    return [(total + (how == b"SAME_LOWER")) // 2 for total in totals]


def _transposed(node: _Node) -> Counted:
    """Each input element is spread over a window: one product for each weight that its channel has."""
    x, weight = node.input(0), node.input(1)
    return sum(weight[channel].size * x[:, channel].size for channel in range(x.shape[1])), None


def _matrix_product(left: Array, right: Array) -> Counted:
    one = left[None] if left.ndim == 1 else left
    two = right[:, None] if right.ndim == 1 else right
    count = np.broadcast(one[..., :, :, None], two[..., None, :, :]).size if one.size and two.size else 0
    with np.errstate(all="ignore"):
        return count, np.matmul(left.astype(np.float64), right.astype(np.float64))


def _matmul(*, at: tuple[int, int] = (0, 1), checked: bool = False) -> Callable[[_Node], Counted]:
    def count(node: _Node) -> Counted:
        left, right = (node.input(place) for place in at)
        number, result = _matrix_product(left, right)
        return number, result if checked and left.dtype.kind == "f" and np.isfinite(node.output).all() else None

    return count


def _fused_matmul(node: _Node) -> Counted:
    left, right = node.input(0), node.input(1)
    if node.attributes.get("transA"):
        left = np.swapaxes(left, -1, -2)
    if node.attributes.get("transB"):
        right = np.swapaxes(right, -1, -2)
    number, result = _matrix_product(left, right)
    assert result is not None
    return number, result * node.attributes.get("alpha", 1.0)


def _gemm(*, right_at: int = 1) -> Callable[[_Node], Counted]:
    def count(node: _Node) -> Counted:
        left, right = node.input(0), node.input(right_at)
        left = left.T if node.attributes.get("transA") else left
        right = right.T if node.attributes.get("transB") else right
        return left.shape[0] * left.shape[1] * right.shape[1], None

    return count


def _narrow_weights(node: _Node) -> Counted:
    return math.prod(node.input(0).shape[:-1]) * int(node.attributes["K"]) * int(node.attributes["N"]), None


def _recurrent(node: _Node) -> Counted:
    x, weights, state = node.input(0), node.input(1), node.input(2)
    if node.attributes.get("layout"):
        x = np.swapaxes(x, 0, 1)
    given = node.read(4)
    lengths = [x.shape[0]] * x.shape[1] if given is None else [int(length) for length in given]
    total = 0
    for direction in range(len(weights)):
        for length in lengths:
            for _ in range(length):
                total += weights[direction].size + state[direction].size
    return total, None


def _attention(node: _Node) -> Counted:
    query, key, value = (node.input(at) for at in range(3))
    if query.ndim == 3:
        heads, shared = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
        batch, queries, depth, width = len(query), query.shape[1], query.shape[2] // heads, value.shape[2] // shared
        keys = key.shape[1]
    else:
        batch, heads, queries, depth = query.shape
        keys, width = key.shape[2], value.shape[3]
    past = node.read(4)
    keys += 0 if past is None else past.shape[2]
    return sum(depth + width for _ in range(batch * heads) for _ in range(queries) for _ in range(keys)), None


def _projected_attention(node: _Node, past_at: int = 4) -> Counted:
    x, weight = node.input(0), node.input(1)
    sizes = node.listed("qkv_hidden_sizes", [weight.shape[1] // 3] * 3)
    past = node.read(past_at)
    keys = x.shape[1] + (0 if past is None else past.shape[3])
    return len(x) * (x.shape[1] * weight.size + x.shape[1] * keys * (sizes[0] + sizes[2])), None


def _multi_head(node: _Node) -> Counted:
    query, key, value = (node.input(at) for at in range(3))
    width = value.shape[-1] if value.ndim == 3 else value.shape[1] * value.shape[3]
    keys = key.shape[1] if key.ndim == 3 else key.shape[2]
    return len(query) * query.shape[1] * keys * (query.shape[2] + width), None


def _einsum(node: _Node) -> Counted:
    """Operands are taken from left to right; an index of one operand alone is summed before any product is made."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    arrays = [node.input(at).astype(np.float64) for at in range(len(node.proto.input))]
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    extra = [array.ndim - len(term.replace(".", "")) for array, term in zip(arrays, terms, strict=True)]
    most = max(extra)
    spare = "ZYXWV"[:most]
    terms = [term.replace("...", spare[most - number :]) for term, number in zip(terms, extra, strict=True)]
    if arrow:
        right = right.replace("...", spare)
    else:
        letters = "".join(terms)
        once = sorted(letter for letter in set(letters) - set(spare) if letters.count(letter) == 1)
        right = (spare if "..." in left else "") + "".join(once)
    sizes: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for letter, size in zip(term, array.shape, strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    held = set(terms[0])
    total = 0
    for at in range(1, len(terms)):
        term, later = set(terms[at]), set(right).union(*terms[at + 1 :])
        alone_left, alone_right = held - term - later, term - held - later
        summed = (held & term) - later
        if summed:
            total += math.prod(sizes[letter] for letter in (held | term) - alone_left - alone_right)
        held = (held | term) & later
    simple = [term for term in terms if len(set(term)) == len(term)]
    checked = len(simple) == len(terms) and all(1 not in array.shape for array in arrays)
    return total, np.einsum(",".join(terms) + "->" + right, *arrays) if checked else None


def _affine_grid(node: _Node) -> Counted:
    """A 1 stands behind the coordinates of each place; all are multiplied with the matrix of each of the batch."""
    theta, made = node.input(0), node.output
    return math.prod(made.shape[:-1]) * theta.shape[1] * theta.shape[2], None


def _linear(node: _Node) -> Counted:
    x = node.input(0)
    return (x.shape[0] if x.ndim > 1 else 1) * len(node.attributes["coefficients"]), None


_MS, _ML = "com.microsoft", "ai.onnx.ml"
_COUNTS: dict[tuple[str, str], Callable[[_Node], Counted]] = {
    ("", "Conv"): _convolution(1, checked=True),
    ("", "ConvInteger"): _convolution(1),
    ("", "DeformConv"): _convolution(1),
    ("", "QLinearConv"): _convolution(3),
    ("", "ConvTranspose"): _transposed,
    ("", "MatMul"): _matmul(checked=True),
    ("", "MatMulInteger"): _matmul(),
    ("", "QLinearMatMul"): _matmul(at=(0, 3)),
    ("", "Gemm"): _gemm(),
    ("", "RNN"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "LSTM"): _recurrent,
    ("", "Attention"): _attention,
    ("", "Einsum"): _einsum,
    ("", "AffineGrid"): _affine_grid,
    (_MS, "FusedConv"): _convolution(1),
    (_MS, "QLinearConv"): _convolution(3),
    (_MS, "NhwcFusedConv"): _convolution(1, channels_last=True),
    (_MS, "FusedMatMul"): _fused_matmul,
    (_MS, "TransposeMatMul"): _fused_matmul,
    (_MS, "FusedGemm"): _gemm(),
    (_MS, "QGemm"): _gemm(right_at=3),
    (_MS, "MatMulIntegerToFloat"): _matmul(),
    (_MS, "MatMulInteger16"): _matmul(),
    (_MS, "DynamicQuantizeMatMul"): _matmul(),
    (_MS, "MatMulNBits"): _narrow_weights,
    (_MS, "MatMulBnb4"): _narrow_weights,
    (_MS, "Attention"): _projected_attention,
    (_MS, "QAttention"): lambda node: _projected_attention(node, 8),
    (_MS, "MultiHeadAttention"): _multi_head,
    (_MS, "DynamicQuantizeLSTM"): _recurrent,
    (_ML, "LinearClassifier"): _linear,
    (_ML, "LinearRegressor"): _linear,
}
# They multiply matrices, or may: a count of nothing would be wrong.
_UNKNOWN = frozenset(
    {
        *(("", name) for name in ("CausalConvWithState", "DFT", "Det", "FlexAttention", "LinearAttention", "STFT")),
        *((_ML, name) for name in ("SVMClassifier", "SVMRegressor")),
        *((_MS, name) for name in ("CDist", "GroupQueryAttention", "Inverse", "Irfft", "MoE", "QMoE", "Rfft")),
        *((_MS, name) for name in ("SparseAttention", "WordConvEmbedding")),
    }
)
