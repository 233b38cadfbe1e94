"""The order in which maps and weights lie in memory while a network trains.

oneDNN's kernels for channels-last are the faster ones, above all for the gradients of depthwise convolutions, and batch
norm and activations gain, too (docs/training.md has the figures). Which layout a network gets is a matter of its
layers alone, never of a clock: results differ in their last bits between the layouts, and a trial has to be repeatable.
"""

from __future__ import annotations

import copy
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_KNOWN = ("torch", "pipeline")
_LOG = logging.getLogger(__name__)


@contextmanager
def fast_layout(model: nn.Module, sample: Tensor) -> Iterator[bool]:
    """Lay out a network channels-last where that is faster; afterwards its weights lie as before.

    Args:
        model: on its device; changed in place, in its layout alone.
        sample: a few inputs (N, C, H, W), with which it is tried whether the network can do with that layout.

    Yields:
        Whether the network is channels-last.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not (_gains(convolutions, sample) and (_is_known(model) or _bears_it(model, sample))):
        yield False
        return
    with channels_last(model):
        yield True


def _gains(convolutions: list[nn.Conv2d], sample: Tensor) -> bool:
    """Whether the layout is known to be faster, and safe.

    A map with one channel has the strides of either layout, and torch's convolutions were seen to overwrite memory on
    one that lies as a view of channels-last does. So there must be none but the images.
    """
    return (
        sample.device.type == "cpu"
        and any(convolution.weight.shape[1] > 1 for convolution in convolutions)
        and all(convolution.out_channels > 1 for convolution in convolutions)
    )


def _is_known(model: nn.Module) -> bool:
    """Whether all modules are torch's or this project's, which bear any layout; a trial takes some 20 ms."""
    return all(type(module).__module__.partition(".")[0] in _KNOWN for module in model.modules())


def _bears_it(model: nn.Module, sample: Tensor) -> bool:
    """Whether a step of a copy works: a network of the user's own may `view` its maps, which takes one layout alone."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            tried = copy.deepcopy(model).train()
            with channels_last(tried):
                tried(sample).sum().backward()
    except Exception as error:  # whatever a third party's network raises
        _LOG.debug("trained with contiguous maps, since with channels-last it raises: %s", error)
        return False
    return True


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Lay out a network channels-last without asking whether it gains, or bears it; afterwards it lies as before."""
    hooks = []
    try:
        for module in model.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if module.weight.shape[1] > 1:  # the convolution lays out its inputs by its weights
                _lay_out(module, torch.channels_last)
            elif module.in_channels == 1:
                hooks += [module.register_forward_pre_hook(_contiguous), module.register_forward_hook(_then_last)]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                _lay_out(module, torch.contiguous_format)


def _lay_out(module: nn.Conv2d, layout: torch.memory_format) -> None:
    for parameter in module.parameters(recurse=False):  # a parametrised weight is none, and stays
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with one channel, with the strides of (N, C, H, W) and no others."""
    (images,) = inputs
    height, width = images.shape[-2:]
    plain = images.stride()[-3:] == (height * width, width, 1)
    return inputs if plain else (images.clone(memory_format=torch.contiguous_format),)


def _then_last(_: nn.Module, __: tuple[Any, ...], maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)
