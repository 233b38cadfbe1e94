"""The pieces of the space `convnet`, for its cost model: what each does, and how it is built on its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from export.activations import table as activations
from latency_models.predictors.operators import Operator, constant, convolution, elementwise
from pipeline.nni_types import model_context
from pipeline.spaces.base import Piece, Probe
from pipeline.spaces.convnet_net import KINDS, BlockSettings, SqueezeExcitation, convolution_and_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.spaces.base import Value
    from pipeline.spaces.convnet_net import Plan

_CALL = constant("call")
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class _Block:
    """What a block is made of; all that its time depends on."""

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
    def small(self) -> Shape:
        return self.after, _halved(self.height, self.stride), _halved(self.width, self.stride)


def pieces(plan: Plan, architecture: Mapping[str, Value], input_shape: Shape) -> tuple[Piece, ...]:
    """Stem, blocks and head of one architecture in canonical form."""
    _, height, width = input_shape
    stem = _stem(plan.channels, plan.stem_width, plan.stem_stride, height, width)
    found = [stem]
    for n, stage in enumerate(plan.stages):
        for b in range(int(architecture[f"stage{n}_depth"])):
            label, (before, height, width) = f"stage{n}_block{b}", found[-1].output_shape
            block = _Block(
                kind=str(architecture[f"{label}_kind"]),
                before=before,
                after=int(architecture[f"stage{n}_width"]),
                kernel=int(architecture[f"{label}_kernel"]),
                expansion=int(architecture.get(f"{label}_expansion", 1)),
                stride=stage.stride if b == 0 else 1,
                attention=architecture[f"{label}_se"] == "on",
                activation=str(_activation(architecture, n, label)),
                height=height,
                width=width,
                keeps_shape=b > 0,
            )
            found.append(_block(block))
    return (*found, _head(found[-1].output_shape, plan.classes))


def probe(chain: Sequence[Piece]) -> Probe:
    """The chain as a network: where it has no stem or no head, a 1×1 convolution stands before or after it.

    That way a block lies between two convolutions, as it does in a network, and the layouts of its input and output
    are the same as there.
    """
    modules: list[nn.Module] = []
    operators = [_CALL]
    with model_context({}):
        if chain[0].kind != "stem":
            modules.append(_between(chain[0].input_shape[0]))
            operators += [elementwise("enter", *_sides(chain[0].input_shape)), *_around(chain[0].input_shape)]
        for piece in chain:
            modules.append(_BUILDERS[piece.kind](piece))
            operators += piece.operators
        if chain[-1].kind != "head":
            modules.append(_between(chain[-1].output_shape[0]))
            operators += [*_around(chain[-1].output_shape), elementwise("leave", *_sides(chain[-1].output_shape))]
    return Probe(nn.Sequential(*modules), chain[0].input_shape, tuple(operators))


def _between(channels: int) -> nn.Sequential:
    return nn.Sequential(convolution_and_norm(channels, channels, 1), nn.ReLU())


def _around(shape: Shape) -> tuple[Operator, ...]:
    channels, side = _sides(shape)
    return (convolution(channels, channels, 1, side),)


@lru_cache(maxsize=64)
def _stem(channels: int, width: int, stride: int, height: int, wide: int) -> Piece:
    out = (width, _halved(height, stride), _halved(wide, stride))
    operators = (convolution(channels, width, 3, _sides(out)[1], stride=stride, kind="stem"),)
    return Piece("stem", (stride,), (channels, height, wide), out, operators)


@lru_cache(maxsize=4096)
def _head(before: Shape, classes: int) -> Piece:
    channels, side = _sides(before)
    operators = (elementwise("pool", channels, side), elementwise("linear", channels * classes, 1))
    return Piece("head", (), before, (classes, 1, 1), operators)


@lru_cache(maxsize=1 << 16)
def _block(block: _Block) -> Piece:
    operators = tuple(_OPERATORS[block.kind](block))
    return Piece("block", (block,), (block.before, block.height, block.width), block.small, operators)


def _residual(block: _Block) -> list[Operator]:
    _, side = _sides(block.small)
    found = [
        convolution(block.before, block.after, block.kernel, side, stride=block.stride),
        elementwise(block.activation, block.after, side),
        convolution(block.after, block.after, block.kernel, side),
        *_attention(block, block.after, side),
        elementwise("add", block.after, side),
        # After an addition an activation can't always join the convolution before it.
        elementwise(f"add+{block.activation}", block.after, side),
    ]
    if not block.keeps_shape:
        found.append(convolution(block.before, block.after, 1, side, stride=block.stride))
    return found


def _fused(block: _Block) -> list[Operator]:
    middle, (_, side) = block.before * block.expansion, _sides(block.small)
    return [
        convolution(block.before, middle, block.kernel, side, stride=block.stride),
        elementwise(block.activation, middle, side),
        *_attention(block, middle, side),
        convolution(middle, block.after, 1, side),
        *_shortcut(block, side),
    ]


def _inverted(block: _Block) -> list[Operator]:
    middle, (_, side) = block.before * block.expansion, _sides(block.small)
    large = _sides((1, block.height, block.width))[1]
    return [
        convolution(block.before, middle, 1, large),
        elementwise(block.activation, middle, large),
        convolution(middle, middle, block.kernel, side, stride=block.stride, groups=middle),
        elementwise(block.activation, middle, side),
        *_attention(block, middle, side),
        convolution(middle, block.after, 1, side),
        *_shortcut(block, side),
    ]


_OPERATORS: dict[str, Callable[[_Block], list[Operator]]] = {
    "residual": _residual,
    "fused": _fused,
    "inverted": _inverted,
}


def _attention(block: _Block, channels: int, side: float) -> list[Operator]:
    return [elementwise("attention", channels, side)] if block.attention else []


def _shortcut(block: _Block, side: float) -> list[Operator]:
    return [elementwise("add", block.after, side)] if block.keeps_shape else []


def _built_block(piece: Piece) -> nn.Module:
    block = cast("_Block", piece.settings[0])
    settings = BlockSettings(
        before=block.before,
        after=block.after,
        kernel=block.kernel,
        expansion=block.expansion,
        stride=block.stride,
        activation=lambda channels: activations.create(block.activation, channels),
        attention=SqueezeExcitation if block.attention else lambda _: nn.Identity(),
        keeps_shape=block.keeps_shape,
    )
    return KINDS[block.kind](settings)


def _built_stem(piece: Piece) -> nn.Module:
    (stride,) = piece.settings
    return nn.Sequential(convolution_and_norm(piece.input_shape[0], piece.output_shape[0], 3, stride), nn.ReLU())


def _built_head(piece: Piece) -> nn.Module:
    linear = nn.Linear(piece.input_shape[0], piece.output_shape[0])
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


_BUILDERS: dict[str, Callable[[Piece], nn.Module]] = {
    "stem": _built_stem,
    "block": _built_block,
    "head": _built_head,
}


def _activation(architecture: Mapping[str, Value], stage: int, label: str) -> Any:
    scopes = (f"{label}_activation", f"stage{stage}_activation", "activation")
    return next(architecture[name] for name in scopes if name in architecture)


def _sides(shape: Shape) -> tuple[int, float]:
    """Channels, and the side of a square of as many positions."""
    channels, height, width = shape
    return channels, float(height * width) ** 0.5


def _halved(size: int, stride: int) -> int:
    return -(-size // stride)
