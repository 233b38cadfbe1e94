"""The network of the space `convnet`: a supernet, or, within NNI's model context, the network of one candidate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from export.activations import table as activations
from pipeline.nni_types import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    Repeat,
    choice,
    current_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from pipeline.spaces.base import Value

_SE_REDUCTION = 4
_NO_DOT = "/"


@dataclass(frozen=True)
class StagePlan:
    """The fixed part of a stage: its stride and the widths to choose from."""

    stride: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The fixed part of the network, derived from input size and options."""

    channels: int
    classes: int
    stem_width: int
    stem_stride: int
    stages: tuple[StagePlan, ...]


class ConvNet(ModelSpace):  # type: ignore[misc]  # NNI has no types
    """Stem, stages, pooling and a linear head.

    Args:
        plan: the fixed part.
        values: label → values to choose from. Outside of NNI's model context the network is a supernet.

    Shapes: images (N, channels, H, W) → logits (N, classes).
    """

    def __init__(self, plan: Plan, values: Mapping[str, tuple[Value, ...]]) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution_and_norm(plan.channels, plan.stem_width, 3, plan.stem_stride), nn.ReLU())
        before: Any = plan.stem_width
        stages = []
        for n, stage in enumerate(plan.stages):
            width = choice(f"stage{n}_width", list(values[f"stage{n}_width"]))
            make = _BlockFactory(n, stage.stride, before, width, values)
            stages.append(Repeat(make, choice(f"stage{n}_depth", list(values[f"stage{n}_depth"]))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = MutableLinear(before, plan.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        features = self.stages(self.stem(images))
        return cast("Tensor", self.head(self.flatten(self.pool(features))))


@dataclass(frozen=True)
class _BlockFactory:
    """Makes the blocks of a stage by index; the first one changes width and stride."""

    stage: int
    stride: int
    before: Any
    width: Any
    values: Mapping[str, tuple[Value, ...]]

    def __call__(self, index: int) -> nn.Module:
        label = f"stage{self.stage}_block{index}"
        settings = BlockSettings(
            before=self.before if index == 0 else self.width,
            after=self.width,
            kernel=choice(f"{label}_kernel", list(self.values[f"{label}_kernel"])),
            expansion=choice(f"{label}_expansion", list(self.values[f"{label}_expansion"])),
            stride=self.stride if index == 0 else 1,
            keeps_shape=index > 0,
            activation=lambda channels: self._activation(label, channels),
            attention=lambda channels: self._attention(label, channels),
        )
        kinds = {str(kind): KINDS[str(kind)] for kind in self.values[f"{label}_kind"]}
        return layer(f"{label}_kind", {name: _bind(block, settings) for name, block in kinds.items()})

    def _activation(self, label: str, channels: Any) -> nn.Module:
        scope = activation_label(label, self.values)
        makers = {str(n): _bind(partial(activations.create, str(n)), largest(channels)) for n in self.values[scope]}
        return layer(scope, makers)

    def _attention(self, label: str, channels: Any) -> nn.Module:
        makers = {"off": nn.Identity, "on": _bind(SqueezeExcitation, channels)}
        return layer(f"{label}_se", {str(value): makers[str(value)] for value in self.values[f"{label}_se"]})


def activation_label(block: str, labels: Container[str]) -> str:
    """The label that decides the activation of a block, whose own label is `stage<n>_block<b>`.

    Args:
        block: the block's label.
        labels: of the space or of an architecture: one of block, stage and network decides activations.
    """
    scopes = (f"{block}_activation", f"{block.partition('_')[0]}_activation", "activation")
    return next(label for label in scopes if label in labels)


def _bind(function: Callable[[Any], nn.Module], argument: Any) -> Callable[[], nn.Module]:
    return lambda: function(argument)


def layer(label: str, makers: Mapping[str, Callable[[], nn.Module]]) -> nn.Module:
    """NNI's LayerChoice of modules, or, within a model context, the chosen module alone."""
    sample = current_model()
    if sample is not None:
        return makers[sample[label]]()
    return cast("nn.Module", LayerChoice({without_dots(key): make() for key, make in makers.items()}, label=label))


def without_dots(name: str) -> str:
    """A dotted path as a submodule of NNI's supernet may be named: `/` in place of dots."""
    return name.replace(".", _NO_DOT)


def with_dots(value: Any) -> Any:
    """The name that `without_dots` replaced; values other than texts stay as they are."""
    return value.replace(_NO_DOT, ".") if isinstance(value, str) else value


@dataclass(frozen=True)
class BlockSettings:
    """Settings of a block; widths, kernel and expansion are numbers, or NNI's choices of numbers.

    Attributes:
        before: channels of the input.
        after: channels of the output.
        activation: channels → a module.
        attention: channels → a module.
        keeps_shape: whether an identity shortcut fits; a function of the structure, so that supernet and network agree.
    """

    before: Any
    after: Any
    kernel: Any
    expansion: Any
    stride: int
    activation: Callable[[Any], nn.Module]
    attention: Callable[[Any], nn.Module]
    keeps_shape: bool


class ResidualBlock(nn.Module):
    """Two dense k×k convolutions, added to the input (projected where the shape changes)."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        s = settings
        self.conv1 = convolution_and_norm(s.before, s.after, s.kernel, s.stride)
        self.activation1 = s.activation(s.after)
        self.conv2 = convolution_and_norm(s.after, s.after, s.kernel)
        self.attention = s.attention(s.after)
        self.shortcut = nn.Identity() if s.keeps_shape else convolution_and_norm(s.before, s.after, 1, s.stride)
        self.activation2 = s.activation(s.after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H / stride, W / stride)."""
        y = self.attention(self.conv2(self.activation1(self.conv1(x))))
        return cast("Tensor", self.activation2(y + self.shortcut(x)))


class FusedBlock(nn.Module):
    """A dense k×k convolution that expands, then a 1×1 that projects without activation."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        s = settings
        middle = s.before * s.expansion
        self.expand = convolution_and_norm(s.before, middle, s.kernel, s.stride)
        self.activation = s.activation(middle)
        self.attention = s.attention(middle)
        self.project = convolution_and_norm(middle, s.after, 1)
        self.keeps_shape = s.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H / stride, W / stride)."""
        y = cast("Tensor", self.project(self.attention(self.activation(self.expand(x)))))
        return x + y if self.keeps_shape else y


class InvertedBlock(nn.Module):
    """1×1 expand, k×k depthwise, 1×1 project without activation."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        s = settings
        middle = s.before * s.expansion
        self.expand = convolution_and_norm(s.before, middle, 1)
        self.activation1 = s.activation(middle)
        self.depthwise = convolution_and_norm(middle, middle, s.kernel, s.stride, groups=middle)
        self.activation2 = s.activation(middle)
        self.attention = s.attention(middle)
        self.project = convolution_and_norm(middle, s.after, 1)
        self.keeps_shape = s.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H / stride, W / stride)."""
        y = self.activation2(self.depthwise(self.activation1(self.expand(x))))
        y = cast("Tensor", self.project(self.attention(y)))
        return x + y if self.keeps_shape else y


class SqueezeExcitation(nn.Module):
    """Scales channels by a gate that sees their means (Hu et al., Squeeze-and-excitation networks, 2018)."""

    def __init__(self, channels: Any) -> None:
        super().__init__()
        reduced = channels // _SE_REDUCTION
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = MutableConv2d(channels, reduced, 1)
        self.activation = nn.ReLU()
        self.expand = MutableConv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → the same."""
        return cast("Tensor", x * self.gate(self.expand(self.activation(self.reduce(self.pool(x))))))


def largest(channels: Any) -> int:
    """The largest number of channels that a number, or NNI's expression of choices, can have."""
    return channels if isinstance(channels, int) else max(channels.grid())


KINDS: dict[str, Callable[[BlockSettings], nn.Module]] = {
    "residual": ResidualBlock,
    "fused": FusedBlock,
    "inverted": InvertedBlock,
}


def convolution_and_norm(before: Any, after: Any, kernel: Any, stride: int = 1, groups: Any = 1) -> nn.Sequential:
    """A convolution without bias, padded to keep the map's size but for the stride, and batch norm."""
    convolution = MutableConv2d(before, after, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, MutableBatchNorm2d(after))


def initialised(network: nn.Module) -> nn.Module:
    """The network with its convolutions' weights drawn anew (He et al., Delving deep into rectifiers, 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
