"""torchvision's networks for other images than ImageNet's: any number of channels, and small ones.

Nothing is downloaded: the weights are initial ones. Changed are the first convolution's input channels, the halvings
that are too many for small images (see `fitting.halvings`), and a momentum of batch norm that was chosen for ImageNet's
hundreds of thousands of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from pipeline.references.fitting import halvings
from pipeline.shims import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Sequence

    Halvings = tuple[tuple[str, ...], ...]

_LEAST_MAP = 4
_MOMENTUM = 0.1  # torch's own, and that of the search's candidates


def mobilenet_v3_small(input_shape: Sequence[int], classes: int) -> nn.Module:
    """MobileNetV3-Small (Howard et al., Searching for MobileNetV3, ICCV 2019)."""
    places = (
        ("features.0.0",),
        ("features.1.block.0.0",),
        ("features.2.block.1.0",),
        ("features.4.block.1.0",),
        ("features.9.block.1.0",),
    )
    return _fitted("mobilenet_v3_small", input_shape, classes, places)


def shufflenet_v2_x0_5(input_shape: Sequence[int], classes: int) -> nn.Module:
    """ShuffleNetV2 (Ma et al., ShuffleNet V2, ECCV 2018) at half width."""
    stages = (tuple(f"stage{n}.0.{place}" for place in ("branch1.0", "branch2.3")) for n in (2, 3, 4))
    return _fitted("shufflenet_v2_x0_5", input_shape, classes, (("conv1.0",), ("maxpool",), *stages))


def squeezenet1_1(input_shape: Sequence[int], classes: int) -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al., SqueezeNet, 2016), which has no batch norm."""
    places = (("features.0",), ("features.2",), ("features.5",), ("features.8",))
    return _fitted("squeezenet1_1", input_shape, classes, places)


def resnet18(input_shape: Sequence[int], classes: int) -> nn.Module:
    """ResNet-18 (He et al., Deep residual learning for image recognition, CVPR 2016)."""
    stages = (tuple(f"layer{n}.0.{place}" for place in ("conv1", "downsample.0")) for n in (2, 3, 4))
    return _fitted("resnet18", input_shape, classes, (("conv1",), ("maxpool",), *stages))


def _fitted(name: str, input_shape: Sequence[int], classes: int, places: Halvings) -> nn.Module:
    """The network without the halvings that are too many for the images.

    Args:
        name: torchvision's.
        input_shape: (C, H, W).
        classes: number of logits.
        places: the network's halvings in their order, the stem's convolution first: the modules that halve together.
    """
    channels, height, width = input_shape
    models: Any = import_torchvision().models
    network = cast("nn.Module", getattr(models, name)(weights=None, num_classes=classes))
    dropped = places[: len(places) - halvings(height, width, len(places), _LEAST_MAP)]
    _replace_stem(network, places[0][0], channels, halves=places[0] not in dropped)
    for place in (place for together in dropped[1:] for place in together):
        module = network.get_submodule(place)
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:
            network.set_submodule(place, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    return network


def _replace_stem(network: nn.Module, place: str, channels: int, *, halves: bool) -> None:
    """Replace the first convolution by one for these channels; without `halves` it is 3×3 and keeps the map's size."""
    old = cast("nn.Conv2d", network.get_submodule(place))
    if halves and old.in_channels == channels:
        return
    kernel, stride, padding = (old.kernel_size[0], 2, int(old.padding[0])) if halves else (3, 1, 1)
    new = nn.Conv2d(channels, old.out_channels, kernel, stride, padding, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    network.set_submodule(place, new)
