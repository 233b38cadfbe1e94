"""The space `convnet`: stages of convolutional blocks for 8×8 to 224×224 images.

Each stage chooses its depth and width, each block its kind, kernel, expansion and squeeze-excitation, and the
activation is chosen for the network, a stage or a block. The kinds:

- `residual`: two dense k×k convolutions and a shortcut (He et al., Deep residual learning, 2016),
- `fused`: a dense k×k convolution that expands, then a 1×1 that projects (Gupta & Tan, EfficientNet-EdgeTPU, 2019),
- `inverted`: 1×1 expand, k×k depthwise, 1×1 project (Sandler et al., MobileNetV2, 2018).

The dense kinds are there because on a CPU a dense 3×3 often beats the depthwise block that has fewer operations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from pipeline.config.space import DEVICE_STEP
from pipeline.nni_types import ModelSpace, model_context
from pipeline.spaces import convnet_chains
from pipeline.spaces.activation_names import resolve_activation
from pipeline.spaces.base import ArchitectureError, Block, BlockChain, Choice, SearchSpace, Value
from pipeline.spaces.convnet_net import ConvNet, Plan, StagePlan, initialised, with_dots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from torch import nn

    from pipeline.config.space import ConvNetOptions
    from pipeline.spaces.base import Architecture

_EXPANDING = ("fused", "inverted")
_LAST_MAP = 6  # the last feature map is about this wide: smaller ones lose accuracy and waste a CPU's vectors
_SE_NAMES = {False: "off", True: "on"}


class ConvNetSpace(SearchSpace):
    """The space `convnet`. Options: `pipeline.config.space.ConvNetOptions`."""

    def __init__(self, options: BaseModel, input_shape: tuple[int, int, int], classes: int) -> None:
        section = cast("ConvNetOptions", options)
        # A wrong activation has to be an error before the search begins.
        names = tuple(dict.fromkeys(resolve_activation(name) for name in section.activations))
        if section.width_step == DEVICE_STEP:
            raise ArchitectureError(
                f"width_step {DEVICE_STEP!r} is timed where `hwnas search` or `hwnas calibrate` begins; valid here: a"
                " number"
            )
        self._input_shape = input_shape
        self.plan = _plan(section, input_shape, classes)
        self.choices = _choices(section, names, self.plan)

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths that a stage may have, and the stem's, narrowest first."""
        return tuple(sorted({self.plan.stem_width, *(width for stage in self.plan.stages for width in stage.widths)}))

    def canonical(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture of an NNI sample, with the dots of custom activations' names that NNI can't have."""
        return super().canonical({label: with_dots(value) for label, value in sample.items()})

    def model_space(self) -> ModelSpace:
        """The space as NNI sees it: a supernet, for multi-trial and one-shot strategies alike."""
        return ConvNet(self.plan, {c.label: c.values for c in self.choices})

    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        """Build the network of an architecture; only the chosen alternatives are instantiated."""
        with model_context(self.complete(architecture)):
            network = ConvNet(self.plan, {c.label: c.values for c in self.choices})
        return initialised(network)

    def blocks(self, architecture: Mapping[str, Value]) -> tuple[Block, ...]:
        """Stem, blocks of the stages, and head."""
        return convnet_chains.blocks_of(self.plan, architecture, self._input_shape)

    def chain(self, blocks: Sequence[Block]) -> BlockChain:
        return convnet_chains.chain_of(blocks)


def _plan(options: ConvNetOptions, input_shape: tuple[int, int, int], classes: int) -> Plan:
    channels, height, width = input_shape
    step = int(options.width_step)
    size = min(height, width)
    count = options.stages or (3 if size < 64 else 4)
    halvings = max(1, round(math.log2(size / _LAST_MAP)))
    # Later stages halve first; what is left falls to the stem and the first stage.
    late = min(halvings, count - 1)
    early = halvings - late
    strides = [2 if early > 1 else 1] + [2 if n < late else 1 for n in range(count - 1)]
    stages = tuple(
        StagePlan(stride, tuple(sorted({_width(options.width * 2**n * m, step) for m in options.width_multipliers})))
        for n, stride in enumerate(strides)
    )
    return Plan(channels, classes, _width(options.width, step), 2 if early > 0 else 1, stages)


def _width(wanted: float, step: int) -> int:
    """Round channels to multiples of a step; a device whose blocks are of so many channels pads to them anyway."""
    return max(step, step * round(wanted / step))


def _choices(options: ConvNetOptions, names: tuple[str, ...], plan: Plan) -> tuple[Choice, ...]:
    depths = tuple(sorted(options.depths))
    choices = [Choice("activation", names)] if options.activation_scope == "network" else []
    for n, stage in enumerate(plan.stages):
        choices += [Choice(f"stage{n}_depth", depths), Choice(f"stage{n}_width", stage.widths)]
        if options.activation_scope == "stage":
            choices.append(Choice(f"stage{n}_activation", names))
        for b in range(max(depths)):
            label = f"stage{n}_block{b}"
            present = ((f"stage{n}_depth", tuple(d for d in depths if d > b)),)
            expanding = (*present, (f"{label}_kind", _EXPANDING))
            choices += [
                Choice(f"{label}_kind", tuple(options.blocks), present),
                Choice(f"{label}_kernel", tuple(options.kernels), present),
                Choice(f"{label}_expansion", tuple(options.expansions), expanding),
                Choice(f"{label}_se", tuple(_SE_NAMES[on] for on in options.squeeze_excitation), present),
            ]
            if options.activation_scope == "block":
                choices.append(Choice(f"{label}_activation", names, present))
    return tuple(choices)
