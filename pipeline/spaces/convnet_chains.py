"""The blocks of the space `convnet` for its latency predictor: their operators, and chains of them as networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from torch import nn

from export.activations import table as activations
from latency_models.predictors.operators import Operator, constant, convolution, elementwise
from pipeline.nni_types import model_context
from pipeline.spaces.base import Block, BlockChain
from pipeline.spaces.convnet_net import KINDS, BlockSettings, SqueezeExcitation, activation_label, convolution_and_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.spaces.base import Value
    from pipeline.spaces.convnet_net import Plan

_CALL = constant("call")
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class _BlockSpec:
    """All settings of a block that its time depends on.

    `before` and `after` are channels; `height` and `width` are those of the input.
    """

    kind: str
    before: int
    after: int
    kernel: int
    expansion: int
    stride: int
    attention: bool
    activation: str
    height: int
    width: int
    keeps_shape: bool

    @property
    def output_shape(self) -> Shape:
        return self.after, _halved(self.height, self.stride), _halved(self.width, self.stride)


def blocks_of(plan: Plan, architecture: Mapping[str, Value], input_shape: Shape) -> tuple[Block, ...]:
    """Stem, blocks of the stages, and head of an architecture in canonical form."""
    _, height, width = input_shape
    stem = _stem(plan.channels, plan.stem_width, plan.stem_stride, height, width)
    made = [stem]
    for n, stage in enumerate(plan.stages):
        for b in range(int(architecture[f"stage{n}_depth"])):
            label, (before, height, width) = f"stage{n}_block{b}", made[-1].output_shape
            spec = _BlockSpec(
                kind=str(architecture[f"{label}_kind"]),
                before=before,
                after=int(architecture[f"stage{n}_width"]),
                kernel=int(architecture[f"{label}_kernel"]),
                expansion=int(architecture.get(f"{label}_expansion", 1)),
                stride=stage.stride if b == 0 else 1,
                attention=architecture[f"{label}_se"] == "on",
                activation=str(architecture[activation_label(label, architecture)]),
                height=height,
                width=width,
                keeps_shape=b > 0,
            )
            made.append(_block(spec))
    return (*made, _head(made[-1].output_shape, plan.classes))


def chain_of(blocks: Sequence[Block]) -> BlockChain:
    """Build consecutive blocks as a network, with a 1×1 convolution in place of a missing stem or head.

    So a block is between two convolutions, as in a whole network, and its input and output have the same layouts.
    """
    modules: list[nn.Module] = []
    operators = [_CALL]
    with model_context({}):
        if blocks[0].kind != "stem":
            modules.append(_between(blocks[0].input_shape[0]))
            operators += [elementwise("enter", *_sides(blocks[0].input_shape)), *_around(blocks[0].input_shape)]
        for block in blocks:
            modules.append(_BUILDERS[block.kind](block))
            operators += block.operators
        if blocks[-1].kind != "head":
            modules.append(_between(blocks[-1].output_shape[0]))
            operators += [*_around(blocks[-1].output_shape), elementwise("leave", *_sides(blocks[-1].output_shape))]
    return BlockChain(nn.Sequential(*modules), blocks[0].input_shape, tuple(operators))


def _between(channels: int) -> nn.Sequential:
    return nn.Sequential(convolution_and_norm(channels, channels, 1), nn.ReLU())


def _around(shape: Shape) -> tuple[Operator, ...]:
    channels, side = _sides(shape)
    return (convolution(channels, channels, 1, side),)


@lru_cache(maxsize=64)
def _stem(channels: int, width: int, stride: int, height: int, wide: int) -> Block:
    out = (width, _halved(height, stride), _halved(wide, stride))
    operators = (convolution(channels, width, 3, _sides(out)[1], stride=stride, kind="stem"),)
    return Block("stem", (stride,), (channels, height, wide), out, operators)


@lru_cache(maxsize=4096)
def _head(before: Shape, classes: int) -> Block:
    channels, side = _sides(before)
    operators = (elementwise("pool", channels, side), elementwise("linear", channels * classes, 1))
    return Block("head", (), before, (classes, 1, 1), operators)


@lru_cache(maxsize=1 << 16)
def _block(spec: _BlockSpec) -> Block:
    operators = tuple(_OPERATORS[spec.kind](spec))
    return Block("block", (spec,), (spec.before, spec.height, spec.width), spec.output_shape, operators)


def _residual(spec: _BlockSpec) -> list[Operator]:
    _, side = _sides(spec.output_shape)
    found = [
        convolution(spec.before, spec.after, spec.kernel, side, stride=spec.stride),
        elementwise(spec.activation, spec.after, side),
        convolution(spec.after, spec.after, spec.kernel, side),
        *_attention(spec, spec.after, side),
        elementwise("add", spec.after, side),
        # After an addition an activation can't always join the convolution before it.
        elementwise(f"add+{spec.activation}", spec.after, side),
    ]
    if not spec.keeps_shape:
        found.append(convolution(spec.before, spec.after, 1, side, stride=spec.stride))
    return found


def _fused(spec: _BlockSpec) -> list[Operator]:
    middle, (_, side) = spec.before * spec.expansion, _sides(spec.output_shape)
    return [
        convolution(spec.before, middle, spec.kernel, side, stride=spec.stride),
        elementwise(spec.activation, middle, side),
        *_attention(spec, middle, side),
        convolution(middle, spec.after, 1, side),
        *_shortcut(spec, side),
    ]


def _inverted(spec: _BlockSpec) -> list[Operator]:
    middle, (_, side) = spec.before * spec.expansion, _sides(spec.output_shape)
    large = _sides((1, spec.height, spec.width))[1]
    return [
        convolution(spec.before, middle, 1, large),
        elementwise(spec.activation, middle, large),
        convolution(middle, middle, spec.kernel, side, stride=spec.stride, groups=middle),
        elementwise(spec.activation, middle, side),
        *_attention(spec, middle, side),
        convolution(middle, spec.after, 1, side),
        *_shortcut(spec, side),
    ]


_OPERATORS: dict[str, Callable[[_BlockSpec], list[Operator]]] = {
    "residual": _residual,
    "fused": _fused,
    "inverted": _inverted,
}


def _attention(spec: _BlockSpec, channels: int, side: float) -> list[Operator]:
    return [elementwise("attention", channels, side)] if spec.attention else []


def _shortcut(spec: _BlockSpec, side: float) -> list[Operator]:
    return [elementwise("add", spec.after, side)] if spec.keeps_shape else []


def _built_block(block: Block) -> nn.Module:
    spec = cast("_BlockSpec", block.settings[0])
    settings = BlockSettings(
        before=spec.before,
        after=spec.after,
        kernel=spec.kernel,
        expansion=spec.expansion,
        stride=spec.stride,
        activation=lambda channels: activations.create(spec.activation, channels),
        attention=SqueezeExcitation if spec.attention else lambda _: nn.Identity(),
        keeps_shape=spec.keeps_shape,
    )
    return KINDS[spec.kind](settings)


def _built_stem(block: Block) -> nn.Module:
    (stride,) = block.settings
    return nn.Sequential(convolution_and_norm(block.input_shape[0], block.output_shape[0], 3, stride), nn.ReLU())


def _built_head(block: Block) -> nn.Module:
    linear = nn.Linear(block.input_shape[0], block.output_shape[0])
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


_BUILDERS: dict[str, Callable[[Block], nn.Module]] = {
    "stem": _built_stem,
    "block": _built_block,
    "head": _built_head,
}


def _sides(shape: Shape) -> tuple[int, float]:
    """Channels, and the side of a square with as many positions."""
    channels, height, width = shape
    return channels, float(height * width) ** 0.5


def _halved(size: int, stride: int) -> int:
    return -(-size // stride)
