"""Output shapes of ONNX Runtime's own kernels, which ONNX's shape inference doesn't know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Dims = tuple[int, ...]
    Inputs = Sequence[Dims | None]
    Rule = Callable[[Inputs, Mapping[str, Any]], Dims]

BLOCKED = "com.microsoft.nchwc"
OWN_DOMAINS = frozenset({BLOCKED, "com.microsoft"})


def own_output_shapes(
    op_type: str, inputs: Sequence[tuple[int, ...] | None], attributes: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """The shape of a kernel's first output; None without a rule for the operator."""
    rule = _RULES.get(op_type)
    return None if rule is None else rule(inputs, attributes)


def _dims(inputs: Inputs, at: int) -> Dims:
    found = inputs[at]
    assert found is not None
    return found


def window_settings(count: int, attributes: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Strides, dilations and pads of a convolution or a pool of `count` spatial dimensions."""
    ones = [1] * count
    pads = attributes.get("pads") or [0] * (2 * count)
    return attributes.get("strides") or ones, attributes.get("dilations") or ones, pads


def window_sizes(dims: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Output sizes of a convolution or a pool, one for each spatial dimension."""
    count = len(kernel)
    strides, dilations, pads = window_settings(count, attributes)
    padding = attributes.get("auto_pad", b"NOTSET")
    sizes = []
    for at, (size, width, stride, dilation) in enumerate(zip(dims, kernel, strides, dilations, strict=True)):
        if padding in (b"SAME_UPPER", b"SAME_LOWER"):
            sizes.append(-(-size // stride))
            continue
        around = 0 if padding == b"VALID" else pads[at] + pads[at + count]
        steps = size + around - dilation * (width - 1) - 1
        sizes.append((-(-steps // stride) if attributes.get("ceil_mode") else steps // stride) + 1)
    return tuple(sizes)


def _convolution(weight_at: int) -> Rule:
    def rule(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
        weight = _dims(inputs, weight_at)
        if attributes.get("channels_last"):
            batch, *spatial, _ = _dims(inputs, 0)
            return (batch, *window_sizes(spatial, weight[2:], attributes), weight[0])
        batch, _, *spatial = _dims(inputs, 0)
        return (batch, weight[0], *window_sizes(spatial, weight[2:], attributes))

    return rule


def _pool(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    if attributes.get("channels_last"):
        batch, *spatial, channels = _dims(inputs, 0)
        return (batch, *window_sizes(spatial, attributes["kernel_shape"], attributes), channels)
    batch, channels, *spatial = _dims(inputs, 0)
    return (batch, channels, *window_sizes(spatial, attributes["kernel_shape"], attributes))


def _global_pool(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    dims = _dims(inputs, 0)
    ones = (1,) * (len(dims) - 2)
    return (dims[0], *ones, dims[-1]) if attributes.get("channels_last") else (*dims[:2], *ones)


def _reorder_input(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    dims = _dims(inputs, 0)
    return (dims[0], dims[-1], *dims[1:-1]) if attributes.get("channels_last") else dims


def _reorder_output(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    batch, _, *spatial = _dims(inputs, 0)
    channels = int(attributes["channels"])
    return (batch, *spatial, channels) if attributes.get("channels_last") else (batch, channels, *spatial)


def _upsample(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    scales = attributes.get("scales") or [1] * len(_dims(inputs, 0))
    return tuple(size * scale for size, scale in zip(_dims(inputs, 0), scales, strict=True))


def _same(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    return _dims(inputs, 0)


def broadcast(some: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """The shape of two shapes broadcast together."""
    width = max(len(some), len(others))
    pairs = zip((1,) * (width - len(some)) + tuple(some), (1,) * (width - len(others)) + tuple(others), strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


def _binary(other_at: int) -> Rule:
    return lambda inputs, attributes: broadcast(_dims(inputs, 0), _dims(inputs, other_at))


def _gemm(weight_at: int) -> Rule:
    def rule(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
        rows = _dims(inputs, 0)[1 if attributes.get("transA") else 0]
        return (rows, _dims(inputs, weight_at)[0 if attributes.get("transB") else 1])

    return rule


def _matmul(weight_at: int) -> Rule:
    def rule(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
        some, others = _dims(inputs, 0), _dims(inputs, weight_at)
        if attributes.get("transA"):
            some = (*some[:-2], some[-1], some[-2])
        if attributes.get("transB"):
            others = (*others[:-2], others[-1], others[-2])
        return (*broadcast(some[:-2], others[:-2]), some[-2], others[-1])

    return rule


def _quantised_concat(inputs: Inputs, attributes: Mapping[str, Any]) -> Dims:
    parts = [_dims(inputs, at) for at in range(2, len(inputs), 3)]
    axis = int(attributes["axis"]) % len(parts[0])
    return tuple(sum(each[at] for each in parts) if at == axis else size for at, size in enumerate(parts[0]))


_RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("Conv FusedConv NhwcFusedConv", _convolution(1)),
        ("QLinearConv", _convolution(3)),
        ("MaxPool AveragePool QLinearAveragePool", _pool),
        ("NhwcMaxPool", lambda inputs, attributes: _pool(inputs, {**attributes, "channels_last": 1})),
        ("GlobalMaxPool GlobalAveragePool QLinearGlobalAveragePool", _global_pool),
        ("ReorderInput", _reorder_input),
        ("ReorderOutput", _reorder_output),
        ("Upsample", _upsample),
        ("FusedGemm", _gemm(1)),
        ("QGemm", _gemm(3)),
        ("FusedMatMul MatMulIntegerToFloat DynamicQuantizeMatMul", _matmul(1)),
        ("QLinearAdd QLinearMul", _binary(3)),
        ("QLinearConcat", _quantised_concat),
        ("Gelu QuickGelu FastGelu BiasGelu BiasAdd FusedHardSwish DequantizeLinear", _same),
        ("SkipLayerNormalization SkipSimplifiedLayerNormalization", _same),
        ("QLinearSigmoid QLinearLeakyRelu QLinearSoftmax", _same),
    )
    for name in names.split()
}
