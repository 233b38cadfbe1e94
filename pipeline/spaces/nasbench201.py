"""The space `nasbench201`: cells of four nodes, five operators on each of the six edges (Dong & Yang, ICLR 2020).

15,625 architectures, which published tables know by a string. With several activations to choose from there are as many
times more, and those aren't in tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipeline.nni_types import ModelSpace, model_context
from pipeline.spaces.activation_names import resolve_activation
from pipeline.spaces.base import ArchitectureError, Choice, SearchSpace, Value
from pipeline.spaces.convnet_net import initialised, with_dots
from pipeline.spaces.nasbench201_features import OPERATORS, cell_key
from pipeline.spaces.nasbench201_net import LABELS, NasBench201Net, Plan
from pipeline.spaces.nasbench201_paths import SQRT_2, path_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from pydantic import BaseModel
    from torch import nn

    from pipeline.config.space import NasBench201Options
    from pipeline.spaces.base import Architecture

_ACTIVATION = "activation"
_PUBLISHED_ACTIVATION = "relu"


class NasBench201Space(SearchSpace):
    """The space `nasbench201`. Options: `pipeline.config.space.NasBench201Options`."""

    def __init__(self, options: BaseModel, input_shape: tuple[int, int, int], classes: int) -> None:
        section = cast("NasBench201Options", options)
        names = tuple(dict.fromkeys(resolve_activation(name) for name in section.activations))
        if any(side % 4 for side in input_shape[1:]):
            raise ArchitectureError(
                f"nasbench201 halves the map twice: images of {input_shape[1]}×{input_shape[2]} pixels can't be; valid:"
                " sides that are multiples of 4 (data.image_size)"
            )
        self.plan = Plan(input_shape[0], classes, section.width, section.cells, names)
        edges = tuple(Choice(label, OPERATORS) for label in LABELS)
        self.choices = (*edges, Choice(_ACTIVATION, names)) if len(names) > 1 else edges

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the three stages, each twice the one before."""
        return tuple(self.plan.width * 2**stage for stage in range(3))

    def canonical(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture of an NNI sample, with the dots of custom activations' names that NNI can't have."""
        return super().canonical({label: with_dots(value) for label, value in sample.items()})

    def model_space(self) -> ModelSpace:
        """The space as NNI sees it: a supernet, for multi-trial and one-shot strategies alike."""
        return NasBench201Net(self.plan)

    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        """Build the network of an architecture; only the chosen alternatives are instantiated."""
        with model_context(self.complete(architecture)):
            network = NasBench201Net(self.plan)
        return initialised(network)

    def key(self, architecture: Mapping[str, Value]) -> str:
        """The key of a cell in published tables.

        Raises:
            ArchitectureError: the network has another activation than the published ones.
        """
        activation = architecture.get(_ACTIVATION, self.plan.activations[0])
        if activation != _PUBLISHED_ACTIVATION:
            raise ArchitectureError(
                f"tables of NAS-Bench-201 know networks with {_PUBLISHED_ACTIVATION} alone, not {activation!r};"
                f" valid: activations: [{_PUBLISHED_ACTIVATION}]"
            )
        return cell_key([str(architecture[label]) for label in LABELS])

    def features(self, architectures: Sequence[Mapping[str, Value]]) -> tuple[npt.NDArray[np.floating], ...]:
        """Features of the paths (`nasbench201_paths`), and the activation where there are several."""
        index = {name: number for number, name in enumerate(OPERATORS)}
        cells = np.array([[index[str(each[label])] for label in LABELS] for each in architectures], dtype=int)
        groups: tuple[npt.NDArray[np.floating], ...] = path_features(cells)
        names = self.plan.activations
        if len(names) == 1:
            return groups
        return *groups, np.array([[each[_ACTIVATION] == name for name in names] for each in architectures]) / SQRT_2
