"""Multiply-accumulates of a graph: one formula for each operator that has convolutions or matrix products in it.

Elementwise products, interpolation and reductions don't count, as is usual in the field. An operator that has no
formula and isn't known to be free of products makes the whole count unknown: a limit can't be passed by what nobody
counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnx import helper

from latency_models.errors import UncountableOperatorError
from latency_models.graph.attributes import subgraphs
from latency_models.graph.convolutions import scales_an_activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx

    from latency_models.graph.shapes import Shapes

    Formula = Callable[["_Node"], int]

_DEFAULT, _MICROSOFT, _ML, _NHWC = "", "com.microsoft", "ai.onnx.ml", "com.ms.internal.nhwc"
_RNN_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def macs(shapes: Shapes) -> int:
    """Multiply-accumulates of the convolutions and matrix products that run at every inference.

    A depthwise convolution of 1×1 that hwnas itself wrote for an activation doesn't count: it stands for a Mul.

    Raises:
        UnknownShapeError: a shape that a product's cost depends on isn't known.
        UncountableOperatorError: operators without a formula; it names them.
    """
    unknown = sorted({name_of(node) for node in shapes.live_nodes if not is_countable(node)})
    if unknown:
        raise UncountableOperatorError(unknown)
    return sum(_of(node, shapes) for node in shapes.live_nodes)


def is_countable(node: onnx.NodeProto) -> bool:
    """Whether the node's multiply-accumulates are known to be none, or have a formula."""
    inner = list(subgraphs(node))
    if inner:
        return all(is_free(each) for graph in inner for each in graph.node)
    return _key(node) in _FORMULAS or is_free(node)


def is_free(node: onnx.NodeProto) -> bool:
    """Whether the node is known to hold no convolution or matrix product, those in its branches included."""
    inner = list(subgraphs(node))
    if inner:
        return all(is_free(each) for graph in inner for each in graph.node)
    return node.op_type in _FREE.get(_domain(node), frozenset())


def name_of(node: onnx.NodeProto) -> str:
    """An operator's name in messages, with its domain where that isn't ONNX's own."""
    domain = _domain(node)
    return f"{domain}.{node.op_type}" if domain else node.op_type


def _of(node: onnx.NodeProto, shapes: Shapes) -> int:
    formula = _FORMULAS.get(_key(node))
    return 0 if formula is None else formula(_Node(node, shapes))


def _domain(node: onnx.NodeProto) -> str:
    return _DEFAULT if node.domain == "ai.onnx" else node.domain


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    return _domain(node), node.op_type


class _Node:
    """One node with the shapes of its inputs and outputs, as the formulas read it."""

    def __init__(self, proto: onnx.NodeProto, shapes: Shapes) -> None:
        self.proto = proto
        self._shapes = shapes
        self.attributes: Mapping[str, Any] = {
            each.name: helper.get_attribute_value(each) for each in proto.attribute if not each.ref_attr_name
        }

    def has(self, at: int) -> bool:
        """Whether the input is given."""
        return at < len(self.proto.input) and bool(self.proto.input[at])

    def dims(self, at: int) -> tuple[int, ...]:
        """Shape of an input."""
        return self._shapes.of(self.proto.input[at])

    def size(self, at: int) -> int:
        """Elements of an input."""
        return math.prod(self.dims(at))

    def result(self) -> tuple[int, ...]:
        """Shape of the first output that is given."""
        return self._shapes.of(next(name for name in self.proto.output if name))

    def integers(self, at: int) -> tuple[int, ...]:
        """The values of an integer input. Raises UnknownShapeError where they aren't known."""
        return self._shapes.integers(self.proto.input[at])

    def uncountable(self) -> UncountableOperatorError:
        return UncountableOperatorError([name_of(self.proto)])


def _conv(weight: int) -> Formula:
    """Every output element takes one product per weight of its filter, (M, C/group, k1, …) without M."""

    def cost(node: _Node) -> int:
        filters = node.dims(weight)
        if scales_an_activation(node.proto):
            return 0
        return math.prod(node.result()) * math.prod(filters[1:])

    return cost


def _conv_transpose(node: _Node) -> int:
    """Every input element is multiplied with its filter, (C, M/group, k1, …) without C."""
    return node.size(0) * math.prod(node.dims(1)[1:])


def _matmul(node: _Node) -> int:
    """(…, M, K) times (…, K, N): K products for each output element."""
    return math.prod(node.result()) * node.dims(0)[-1]


def _fused_matmul(node: _Node) -> int:
    if node.attributes.get("transBatchA") or node.attributes.get("transBatchB"):
        raise node.uncountable()
    left = node.dims(0)
    return math.prod(node.result()) * left[-2 if node.attributes.get("transA") and len(left) > 1 else -1]


def _gemm(node: _Node) -> int:
    return math.prod(node.result()) * node.dims(0)[0 if node.attributes.get("transA") else 1]


def _recurrent(node: _Node) -> int:
    """Each step multiplies its input (I) and the state (H) into every gate, for each direction and sequence."""
    steps = _steps(node)
    gates = _RNN_GATES[node.proto.op_type]
    directions, state = node.dims(1)[0], node.dims(2)[-1]
    return int(steps * directions * gates * state * (node.dims(0)[-1] + state))


def _steps(node: _Node) -> int:
    """Steps of all sequences of a batch; shorter sequences end earlier."""
    if node.has(4):
        return sum(max(length, 0) for length in node.integers(4))
    first, second, _ = node.dims(0)
    return first * second


def _quantized_lstm(node: _Node) -> int:
    """Products as in `_recurrent`; the weights are transposed, (directions, I, 4·H)."""
    directions, _, gates = node.dims(1)
    state = int(node.attributes["hidden_size"])
    return _steps(node) * directions * gates * (node.dims(0)[-1] + state)


def _attention(node: _Node) -> int:
    """Scores (queries times keys) and their products with the values, for each query head.

    Q (B, heads, S, D), or (B, S, heads·D); K and V likewise with their own heads. Masked scores are computed too.
    """
    query, key = node.dims(0), node.dims(1)
    past = node.dims(4)[2] if node.has(4) else 0
    result = node.result()
    if len(query) == 3:
        batch, queries, width = query
        return batch * queries * (key[1] + past) * (width + result[-1])
    batch, heads, queries, width = query
    return batch * heads * queries * (key[2] + past) * (width + result[-1])


def _packed_attention(past_at: int) -> Formula:
    """ONNX Runtime's Attention: the projection of the input (B, S, I) to queries, keys and values, then attention."""

    def cost(node: _Node) -> int:
        if node.attributes.get("past_present_share_buffer") or len(node.dims(0)) != 3:
            raise node.uncountable()
        batch, queries, width = node.dims(0)
        made = node.dims(1)[-1]
        query, _, value = node.attributes.get("qkv_hidden_sizes") or [made // 3] * 3
        past = node.dims(past_at)[3] if node.has(past_at) else 0
        return int(batch * queries * (width * made + (queries + past) * (query + value)))

    return cost


def _multi_head_attention(node: _Node) -> int:
    query = node.dims(0)
    if len(query) != 3 or not node.has(1) or not node.has(2) or node.has(6):
        raise node.uncountable()
    batch, queries, width = query
    key = node.dims(1)
    if len(key) == 5:
        raise node.uncountable()
    keys = key[1] if len(key) == 3 else key[2]
    return batch * queries * keys * (width + node.result()[-1])


def _einsum(node: _Node) -> int:
    """Contractions from left to right, as ONNX Runtime makes them; products without a sum are elementwise.

    An index that one of two operands has alone, and that no one needs later, is summed before they are multiplied.
    """
    equation = node.attributes["equation"].decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "..." in equation:
        terms, right = _without_ellipsis(node, terms, right, bool(arrow))
    sizes: dict[str, int] = {}
    for at, term in enumerate(terms):
        for letter, size in zip(term, node.dims(at), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1)) if size else 0
    if not arrow:
        letters = "".join(terms)
        right = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1)) + right
    total, made = 0, set(terms[0])
    for at, term in enumerate(terms[1:], start=1):
        needed = set(right).union(*terms[at + 1 :])
        joined = made | set(term)
        if (made & set(term)) - needed:
            total += math.prod(sizes[letter] for letter in (made & set(term)) | (joined & needed))
        made = joined & needed
    return total


def _without_ellipsis(node: _Node, terms: list[str], right: str, explicit: bool) -> tuple[list[str], str]:
    """The terms with capital Greek letters in place of the dimensions that `...` stands for."""
    counts = [len(node.dims(at)) - len(term.replace("...", "")) for at, term in enumerate(terms)]
    widest = max(count for count, term in zip(counts, terms, strict=True) if "..." in term)
    letters = "".join(chr(0x391 + at) for at in range(widest))
    spelt = [
        term.replace("...", letters[widest - count :] if count > 0 else "")
        for term, count in zip(terms, counts, strict=True)
    ]
    return spelt, right.replace("...", letters) if explicit else letters


def _affine_grid(node: _Node) -> int:
    """Each place of the grid, with a 1 behind its coordinates, times the matrix (N, d, d + 1)."""
    return math.prod(node.result()) * node.dims(0)[-1]


def _linear_model(node: _Node) -> int:
    """Coefficients of ai.onnx.ml's linear models, once for each row of (N, C) or (C,)."""
    dims = node.dims(0)
    return (dims[0] if len(dims) > 1 else 1) * len(node.attributes.get("coefficients", ()))


def _table(*rows: tuple[str, str, Formula]) -> dict[tuple[str, str], Formula]:
    return {(domain, name): formula for domain, names, formula in rows for name in names.split()}


_FORMULAS: dict[tuple[str, str], Formula] = _table(
    (_DEFAULT, "Conv ConvInteger DeformConv", _conv(1)),
    (_DEFAULT, "QLinearConv", _conv(3)),
    (_DEFAULT, "ConvTranspose", _conv_transpose),
    (_DEFAULT, "MatMul MatMulInteger QLinearMatMul", _matmul),
    (_DEFAULT, "Gemm", _gemm),
    (_DEFAULT, "RNN GRU LSTM", _recurrent),
    (_DEFAULT, "Attention", _attention),
    (_DEFAULT, "Einsum", _einsum),
    (_DEFAULT, "AffineGrid", _affine_grid),
    (_MICROSOFT, "FusedConv NhwcFusedConv NhwcConv", _conv(1)),
    (_MICROSOFT, "QLinearConv", _conv(3)),
    (_MICROSOFT, "ConvTransposeWithDynamicPads", _conv_transpose),
    (_MICROSOFT, "FusedMatMul FusedMatMulActivation TransposeMatMul", _fused_matmul),
    (_MICROSOFT, "MatMulInteger16 MatMulIntegerToFloat DynamicQuantizeMatMul", _matmul),
    (_MICROSOFT, "MatMulNBits MatMulBnb4 MatMulFpQ4 GemmFastGelu", _matmul),
    (_MICROSOFT, "FusedGemm QGemm GemmFloat8", _gemm),
    (_MICROSOFT, "Attention", _packed_attention(4)),
    (_MICROSOFT, "QAttention", _packed_attention(8)),
    (_MICROSOFT, "MultiHeadAttention", _multi_head_attention),
    (_MICROSOFT, "DynamicQuantizeLSTM", _quantized_lstm),
    (_NHWC, "Conv", _conv(1)),
    (_NHWC, "QLinearConv", _conv(3)),
    (_ML, "LinearClassifier LinearRegressor", _linear_model),
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxUnpool"
_FREE: dict[str, frozenset[str]] = {
    # Elementwise and reduced values, comparisons, moved and made data.
    _DEFAULT: _names(
        f"""{_POOLS}
        Abs Acos Acosh Add Affine And ArgMax ArgMin Asin Asinh Atan Atanh BatchNormalization Bernoulli
        BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu
        CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Cos Cosh Crop CumProd
        CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear DynamicSlice Elu Equal Erf Exp Expand
        EyeLike Flatten Floor Gather GatherElements GatherND Gelu Greater GreaterOrEqual GridSample
        GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity ImageScaler
        InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
        LpNormalization Max MaxRoiPool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul Multinomial Neg
        NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement OptionalHasElement
        Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RMSNormalization RandomNormal RandomNormalLike
        RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence
        RoiAlign RotaryEmbedding Round Scale ScaledTanh Scatter ScatterElements ScatterND Selu SequenceAt
        SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign
        SimplifiedLayerNormalization Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign
        SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat StringNormalizer StringSplit Sub Sum SwiGLU Swish
        Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu
        Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor"""
    ),
    _MICROSOFT: _names(
        """BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu ComplexMul ComplexMulConj CropAndResize
        DequantizeLinear EmbedLayerNormalization ExpandDims FastGelu GatherBlockQuantized GatherND Gelu
        GemmaRotaryEmbedding GridSample GroupNorm IsAllFinite MRotaryEmbedding MaxpoolWithMask MulInteger NhwcMaxPool
        Pad QEmbedLayerNormalization QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool
        QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear
        QuickGelu Range ReduceSumInteger RemovePadding RestorePadding RotaryEmbedding ScaledSiLU SkipGroupNorm
        SkipLayerNormalization SkipSimplifiedLayerNormalization TorchEmbedding Trilu UnfoldTensor Unique"""
    ),
    _ML: _names(
        """ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
        Normalizer OneHotEncoder Scaler ZipMap"""
    ),
    _NHWC: _names(
        f"""{_POOLS} BatchNormalization DepthToSpace GridSample InstanceNormalization LRN QLinearAveragePool Resize
        SpaceToDepth"""
    ),
}


def known_operators() -> Iterable[tuple[str, str]]:
    """Domain and name of every operator that has a formula or is known to be free of products."""
    yield from _FORMULAS
    yield from ((domain, name) for domain, names in _FREE.items() for name in names)
