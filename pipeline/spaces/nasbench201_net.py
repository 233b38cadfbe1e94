"""The network of the space `nasbench201`: a supernet, or, within NNI's model context, that of one candidate."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from export.activations import table as activations
from pipeline.nni_types import ModelSpace
from pipeline.spaces.convnet_net import layer
from pipeline.spaces.nasbench201_features import EDGES, OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STACKS = 3
_NODES = 4
LABELS = tuple(f"edge_{source}_{destination}" for source, destination in EDGES)
"""The choice of each edge's operator, in the order of the architecture's string."""


@dataclass(frozen=True)
class Plan:
    """The fixed part of the network.

    Attributes:
        channels: of the images.
        width: channels of the first stack; each further one has twice as many.
        cells: in each stack.
        activations: to choose from; a single one makes no choice.
    """

    channels: int
    classes: int
    width: int
    cells: int
    activations: tuple[str, ...]


class NasBench201Net(ModelSpace):  # type: ignore[misc]  # NNI has no types
    """Stem, three stacks of cells with residual blocks between them that halve the map, and a linear head.

    The skeleton of Dong & Yang, NAS-Bench-201 (ICLR 2020). Outside of NNI's model context the result is a supernet.

    Shapes: images (N, channels, H, W) → logits (N, classes).
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        activate = partial(_activation, plan.activations)
        self.stem = nn.Sequential(
            nn.Conv2d(plan.channels, plan.width, 3, padding=1, bias=False), nn.BatchNorm2d(plan.width)
        )
        parts: list[nn.Module] = []
        width = plan.width
        for stack in range(_STACKS):
            if stack:
                parts.append(Reduction(width, 2 * width, activate))
                width *= 2
            parts += [Cell(width, activate) for _ in range(plan.cells)]
        self.parts = nn.Sequential(*parts)
        self.norm = nn.BatchNorm2d(width)
        self.activation = activate(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(width, plan.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        features = self.activation(self.norm(self.parts(self.stem(images))))
        return cast("Tensor", self.head(self.flatten(self.pool(features))))


class Cell(nn.Module):
    """Four nodes, each the sum of its edges' operators on earlier nodes; the last node is the output.

    Operators that can't reach the output are not run. They have weights all the same, as in the published networks.

    Attributes:
        edges_run: indices of the edges that are run.
        nodes_needed: indices of the nodes that they read, and of the output.
    """

    def __init__(self, channels: int, activate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        makers = {name: partial(make, channels, activate) for name, make in _OPERATORS.items()}
        self.edges = nn.ModuleList(layer(label, makers) for label in LABELS)
        self.zero = Zero()
        self.edges_run, self.nodes_needed = _reaching_the_output([not isinstance(edge, Zero) for edge in self.edges])

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → the same."""
        nodes: list[Any] = [x]
        for node in range(1, _NODES):
            into = [(edge, source) for edge, (source, to) in enumerate(EDGES) if to == node and edge in self.edges_run]
            summands = [self.edges[edge](nodes[source]) for edge, source in into]
            if not summands and node in self.nodes_needed:
                summands = [self.zero(x)]
            nodes.append(reduce(operator.add, summands) if summands else None)
        return cast("Tensor", nodes[-1])


class Reduction(nn.Module):
    """A residual block that halves the map: two 3×3 convolutions beside mean pooling and a 1×1 convolution."""

    def __init__(self, before: int, after: int, activate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = _convolution(before, after, 3, activate, stride=2)
        self.conv2 = _convolution(after, after, 3, activate)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H / 2, W / 2); H and W are even."""
        return cast("Tensor", self.shortcut(x) + self.conv2(self.conv1(x)))


class Zero(nn.Module):
    """The operator `none`: zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same."""
        return x * 0.0


def _reaching_the_output(present: list[bool]) -> tuple[frozenset[int], frozenset[int]]:
    """The present edges that lead to the last node, and the nodes that they leave, with the last one itself."""
    edges: set[int] = set()
    nodes = {_NODES - 1}
    for edge in reversed(range(len(EDGES))):  # an edge's destination is done before its source is asked for
        source, destination = EDGES[edge]
        if present[edge] and destination in nodes:
            edges.add(edge)
            nodes.add(source)
    return frozenset(edges), frozenset(nodes)


def _activation(names: tuple[str, ...], channels: int) -> nn.Module:
    makers: Mapping[str, Callable[[], nn.Module]] = {
        name: partial(activations.create, name, channels) for name in names
    }
    return layer("activation", makers) if len(names) > 1 else activations.create(names[0], channels)


def _convolution(
    before: int, after: int, kernel: int, activate: Callable[[int], nn.Module], stride: int = 1
) -> nn.Sequential:
    """Activation, convolution, batch norm."""
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(activate(before), convolution, nn.BatchNorm2d(after))


_OPERATORS: dict[str, Callable[[int, Callable[[int], nn.Module]], nn.Module]] = dict(
    zip(
        OPERATORS,
        (
            lambda channels, activate: Zero(),
            lambda channels, activate: nn.Identity(),
            lambda channels, activate: _convolution(channels, channels, 1, activate),
            lambda channels, activate: _convolution(channels, channels, 3, activate),
            lambda channels, activate: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        ),
        strict=True,
    )
)
