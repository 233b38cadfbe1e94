"""The reference networks: fitted to an image's size and channels, and exported as they are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.checks import parity
from export.exporter.onnx_export import export_model
from pipeline.references.fitting import halvings
from pipeline.registry import load
from pipeline.tables import REFERENCES

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (4, 8, 28)]
CLASSES = 7


def network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = load("reference", name, REFERENCES)(shape, CLASSES)
    return built


def maps(net: nn.Module, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Height and width of what each convolution on the images' way gives, gates aside."""
    found: list[tuple[int, int]] = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and not name.endswith(("fc1", "fc2")):
            module.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[2:])))
    with torch.inference_mode():
        assert net.eval()(torch.zeros(2, *shape)).shape == (2, CLASSES)
    return found


def lived_in(net: nn.Module) -> nn.Module:
    """As after a training: no bias is zero, no batch norm the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)  # type: ignore[union-attr]
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 0.2 + 0.1)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return net.eval()


class TestFitting:
    @pytest.mark.parametrize(
        ("side", "most", "least_map", "kept"),
        [(224, 5, 4, 5), (64, 5, 4, 4), (32, 5, 4, 3), (28, 5, 4, 3), (16, 5, 4, 2), (8, 5, 4, 2), (32, 4, 8, 2)],
    )
    def test_halvings_by_hand(self, side: int, most: int, least_map: int, kept: int) -> None:
        assert halvings(side, side, most, least_map) == kept

    def test_the_shorter_side_decides(self) -> None:
        assert halvings(8, 224, 5, 4) == halvings(224, 8, 5, 4) == 2

    def test_an_image_of_one_pixel_bears_none(self) -> None:
        assert halvings(1, 1, 5, 4) == 0

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("name", list(REFERENCES))
    def test_the_last_map_is_no_single_pixel(self, name: str, shape: tuple[int, int, int]) -> None:
        first, *_, last = maps(network(name, shape), shape)
        assert min(last) >= 2
        if min(shape[1:]) <= 32:
            assert first == shape[1:]  # the stem halves nothing

    @pytest.mark.parametrize("name", [name for name in REFERENCES if name != "resnet8"])
    def test_at_imagenets_size_nothing_is_changed(self, name: str) -> None:
        from pipeline.shims import import_torchvision

        theirs = getattr(import_torchvision().models, name)(weights=None, num_classes=CLASSES)
        assert layers(network(name, (3, 224, 224))) == layers(theirs)

    def test_resnet8_has_the_published_size(self) -> None:
        """MLPerf Tiny's has 78,186 trainable parameters, of which 240 are biases in front of a batch norm."""
        torch.manual_seed(0)
        net = load("reference", "resnet8", REFERENCES)((3, 32, 32), 10)
        assert sum(parameter.numel() for parameter in net.parameters()) == 78_186 - 240

    def test_batch_norm_forgets_as_fast_as_the_candidates(self) -> None:
        norms = [m for m in network("mobilenet_v3_small", (1, 8, 8)).modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.momentum for norm in norms} == {nn.BatchNorm2d(1).momentum}


def layers(net: nn.Module) -> list[tuple[str, str]]:
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.Linear)
    return [(name, str(module)) for name, module in net.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize(("name", "shape"), list(zip(REFERENCES, [(1, 8, 8), *SHAPES[:4]], strict=True)), ids=str)
def test_exported_it_is_the_same_network(name: str, shape: tuple[int, int, int]) -> None:
    net = lived_in(network(name, shape))
    images: Any = np.random.default_rng(0).standard_normal((16, *shape)).astype(np.float32)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(images)).numpy()
    assert wanted.std() > 0
    content = export_model(net, torch.zeros(2, *shape)).SerializeToString()
    check = parity(content, images, wanted, atol=0.0, rtol=1e-5)
    assert check.ok, check.detail
