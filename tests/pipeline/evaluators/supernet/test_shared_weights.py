"""All networks of a space have slices of one set of weights: what one learns the others have."""

import random

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pipeline.config.space import ConvNetOptions, NasBench201Options
from pipeline.evaluators.supernet.shared_weights import SharedWeights, SharedWeightsError
from pipeline.spaces.base import Architecture, SearchSpace
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.nasbench201 import NasBench201Space

_SHAPE = (1, 8, 8)


def convnet(**options: object) -> SearchSpace:
    values = {"width": 8, "width_multipliers": [1.0, 2.0], "depths": [1, 2], "stages": 2, **options}
    return ConvNetSpace(ConvNetOptions.model_validate({"name": "convnet", **values}), _SHAPE, 10)


def nasbench201() -> SearchSpace:
    return NasBench201Space(NasBench201Options(name="nasbench201", width=4), _SHAPE, 10)


def architectures(space: SearchSpace, count: int) -> list[Architecture]:
    draws = random.Random(0)
    return [space.at(draws.randrange(space.size())) for _ in range(count)]


@pytest.fixture(scope="module", params=[convnet, nasbench201])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    made = request.param()
    assert isinstance(made, SearchSpace)
    return made


@pytest.fixture(scope="module")
def shared(space: SearchSpace) -> SharedWeights:
    torch.manual_seed(0)
    return SharedWeights.of(space)


def test_every_network_finds_its_slices(space: SearchSpace, shared: SharedWeights) -> None:
    for architecture in architectures(space, 60):
        network = space.build(architecture)
        slices = shared.slices(network)
        assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {
            name: tuple(values.shape) for name, values in slices.items()
        }


def test_a_network_with_copied_weights_says_what_its_slices_say(space: SearchSpace, shared: SharedWeights) -> None:
    torch.manual_seed(1)
    images = torch.randn(4, *_SHAPE)
    for architecture in architectures(space, 5):
        network = space.build(architecture).eval()
        cut = functional_call(network, shared.slices(network), (images,))
        assert not torch.equal(cut, network(images))
        shared.copy_into(network)
        torch.testing.assert_close(network(images), cut)


def test_gradients_reach_the_slices_and_nothing_else() -> None:
    space = convnet()
    shared = SharedWeights.of(space)
    small = {choice.label: choice.values[0] for choice in space.choices}
    network = space.build(space.canonical({**small, "stage0_block0_kind": "residual"}))
    slices = shared.slices(network)
    loss = functional_call(network, slices, (torch.randn(4, *_SHAPE),)).square().sum()
    gradients = torch.autograd.grad(loss, list(slices.values()), allow_unused=True)
    shared.add_gradients(network, dict(zip(slices, gradients, strict=True)))
    place = "stages:Sequential.0:Sequential.0:ResidualBlock.conv1:Sequential.0:Conv2d.weight"
    gradient = shared.parameters[place].grad
    assert gradient is not None
    assert tuple(gradient.shape) == (16, 8, 5, 5)
    assert bool((gradient[:8, :, 1:4, 1:4] != 0).any()), "a width of 8 and a kernel of 3"
    outside = gradient.clone()
    outside[:8, :, 1:4, 1:4] = 0
    assert not bool(outside.any())
    untouched = [p for name, p in shared.parameters.items() if "InvertedBlock" in name]
    assert untouched
    assert all(p.grad is None for p in untouched)


def test_kinds_of_block_share_nothing() -> None:
    space = convnet()
    shared = SharedWeights.of(space)
    names = {place.split(":")[3].split(".")[0] for place in shared.parameters if place.startswith("stages")}
    assert names == {"ResidualBlock", "FusedBlock", "InvertedBlock"}


def test_a_network_of_another_space_is_refused() -> None:
    shared = SharedWeights.of(convnet())
    wide = convnet(width=32)
    with pytest.raises(SharedWeightsError, match="the network needs"):
        shared.slices(wide.build(architectures(wide, 1)[0]))
    with pytest.raises(SharedWeightsError, match=r"have none at 0:Linear\.weight"):
        shared.copy_into(nn.Sequential(nn.Linear(2, 2)))
