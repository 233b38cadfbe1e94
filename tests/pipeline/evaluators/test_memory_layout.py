"""A network may train channels-last; its maths, its one-channel inputs and what it is afterwards stay."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.evaluators.memory_layout import fast_layout


def network(channels: int, *more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 12, 3, stride=2),
        *more,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def sample(channels: int, count: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, channels, 12, 12)


class Viewing(nn.Module):
    """Needs maps that lie as (N, C, H, W)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.view(maps.shape[0], -1).view(maps.shape)


def strides(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.stride()) for parameter in model.parameters()]


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_and_gradients_are_the_same_to_rounding(channels: int) -> None:
    found = []
    for fast in (False, True):
        model, images = network(channels), sample(channels)
        if fast:
            with fast_layout(model, images) as last:
                assert last
                model(images).square().sum().backward()
        else:
            model(images).square().sum().backward()
        found.append([model[1].running_var, *(parameter.grad for parameter in model.parameters())])
    for plain, fast_one in zip(*found, strict=True):
        torch.testing.assert_close(fast_one, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_lie_channels_last_and_one_channel_inputs_contiguous(channels: int) -> None:
    model, images = network(channels), sample(channels)
    seen: dict[str, Tensor] = {}

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[type(module).__name__] = output
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            assert inputs[0].stride() == (144, 144, 12, 1)
            assert module.weight.stride() == (9, 9, 3, 1)

    with fast_layout(model, images):
        for module in model.modules():
            module.register_forward_hook(see)
        model(images)
        # With one channel a view of channels-last has other strides: what overwrote memory must not get through.
        model(images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    for name in ("BatchNorm2d", "ReLU", "Conv2d"):
        assert seen[name].is_contiguous(memory_format=torch.channels_last)
        assert not seen[name].is_contiguous()


def test_the_network_is_left_as_it_was() -> None:
    model, images = network(1), sample(1)
    before, weights = strides(model), [parameter.detach().clone() for parameter in model.parameters()]
    statistics, state, parameters = model[1].running_mean.clone(), torch.get_rng_state(), list(model.parameters())
    with fast_layout(model, images) as last:
        assert last
        assert strides(model) != before
    assert strides(model) == before
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), weights, strict=True))
    assert torch.equal(model[1].running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "model",
    [
        network(3, Viewing()),
        network(3, nn.Conv2d(12, 1, 1), nn.Conv2d(1, 12, 1)),  # a map with one channel
        nn.Sequential(nn.Flatten(), nn.Linear(432, 5)),
    ],
    ids=["views its maps", "one channel within", "no convolution"],
)
def test_stays_contiguous_where_it_must(model: nn.Sequential) -> None:
    images, before = sample(3), strides(model)
    with fast_layout(model, images) as last:
        assert not last
        assert strides(model) == before
        model(images).sum().backward()


def test_a_network_that_fails_anyway_fails_with_its_own_words() -> None:
    class Broken(nn.Module):
        def forward(self, maps: Tensor) -> Any:
            raise ValueError("no such layer")

    model = network(3, Broken())
    with fast_layout(model, sample(3)) as last:
        assert not last
        with pytest.raises(ValueError, match="no such layer"):
            model(sample(3))


def test_weights_lie_as_before_after_a_failure() -> None:
    model = network(3)
    before = strides(model)
    with pytest.raises(KeyError), fast_layout(model, sample(3)):
        raise KeyError
    assert strides(model) == before
