import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.preprocessing import Preprocessing
from pipeline.config.data import DigitsOptions
from pipeline.config.run import TrainOptions
from pipeline.data import load_data
from pipeline.evaluators.training import DeviceData, DivergedError, _augmented, _batches, _one_cycle, _optimizer, train


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData(load_data(DigitsOptions(name="digits")))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


FAST = TrainOptions(learning_rate=0.01, batch_size=64)


def test_learns_digits(data: DeviceData) -> None:
    torch.manual_seed(0)
    result = train(network(), data, FAST, epochs=8)
    assert result.last > 0.9
    assert result.best == result.last
    assert result.epochs == 8


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_is_deterministic_under_a_seed(data: DeviceData, optimizer: str) -> None:
    recipe = TrainOptions(optimizer=optimizer, learning_rate=0.01, batch_size=64)  # type: ignore[arg-type]
    weights = []
    for seed in (1, 1, 2):
        model = network(seed)
        train(model, data, recipe, epochs=1)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_listening_to_progress_changes_nothing(data: DeviceData) -> None:
    heard: list[tuple[int, int, float]] = []
    results = []
    for progress in (None, lambda *told: heard.append(told)):
        model = network(3)
        results.append(train(model, data, FAST, epochs=2, progress=progress))
    assert results[0] == results[1]
    assert [told[:2] for told in heard] == [(1, 2), (2, 2)]
    assert heard[-1][2] == results[1].last


def test_patience_stops_and_keeps_the_best_weights(data: DeviceData) -> None:
    heard: list[float] = []
    model = network(0)
    recipe = TrainOptions(
        learning_rate=0.3, batch_size=64, optimizer="sgd"
    )  # restless, so that the best is not the last
    result = train(model, data, recipe, epochs=30, patience=2, progress=lambda _, __, accuracy: heard.append(accuracy))
    assert result.best == max(heard)
    assert data.accuracy(model, *data.validation) == result.best
    assert result.last == heard[-1]
    assert result.epochs == len(heard)
    if result.epochs < 30:
        assert max(heard[:-2]) >= max(heard[-2:])


def test_without_improvement_patience_ends_early(data: DeviceData) -> None:
    recipe = TrainOptions(learning_rate=1e-12, batch_size=64)
    result = train(network(), data, recipe, epochs=30, patience=3)
    assert result.epochs < 30


def test_divergence_is_told(data: DeviceData) -> None:
    with pytest.raises(DivergedError, match="epoch 1"):
        train(network(), data, TrainOptions(learning_rate=1e30, optimizer="sgd", batch_size=64), epochs=2)


def test_only_weights_of_convolutions_and_linear_layers_decay() -> None:
    model = network()
    decayed, rest = _optimizer(model, TrainOptions(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[5].weight)}  # type: ignore[index]
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_every_image_is_seen_once_an_epoch(data: DeviceData) -> None:
    recipe = TrainOptions(augment="none", batch_size=128)
    batches = list(_batches(data, recipe, 8))
    sizes = [len(labels) for _, labels in batches]
    assert sum(sizes) == 1077
    assert max(sizes) - min(sizes) <= 1
    seen = torch.cat([images.flatten(1) for images, _ in batches])
    every = data.network_input(data.images).flatten(1)
    assert torch.equal(seen.sort(0).values, every.sort(0).values)


def test_a_batch_larger_than_the_data_is_one_batch(data: DeviceData) -> None:
    assert train(network(), data, TrainOptions(batch_size=5000), epochs=1).epochs == 1


def test_shifted_images_are_padded_with_black() -> None:
    white = torch.full((5, 1, 8, 8), 9, dtype=torch.uint8)
    torch.manual_seed(0)
    shapes = set()
    for _ in range(60):
        shifted = _augmented(white, mirrored=False)
        assert set(shifted.unique().tolist()) <= {9, 0}
        rows, columns = (int((shifted[0, 0] == 0).all(dim=axis).sum()) for axis in (1, 0))
        shapes.add((rows, columns))
        assert (shifted == shifted[:1]).all()
    assert shapes == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert torch.all(white == 9)  # the data itself isn't changed


def test_a_shift_moves_the_image() -> None:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    images[0, 0, 4, 4] = 5
    torch.manual_seed(0)
    shifted = (_augmented(images, mirrored=False) for _ in range(200))
    places = {tuple(int(v) for v in (image[0, 0] == 5).nonzero()[0]) for image in shifted}
    assert places == {(4 + down, 4 + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_photographs_are_mirrored_half_the_time() -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, :, :, :2] = 5
    torch.manual_seed(0)
    mirrored = sum(bool((_augmented(image, mirrored=True)[..., 5:] == 5).any()) for _ in range(200))
    assert 60 < mirrored < 140
    assert not any(bool((_augmented(image, mirrored=False)[..., 5:] == 5).any()) for _ in range(50))


def test_grey_images_have_the_strides_of_nchw(data: DeviceData) -> None:
    """With those of a view torch takes one channel for channels-last, and its kernels overwrote memory."""
    assert data.images.stride() == data.network_input(data.images).stride() == (64, 64, 8, 1)
    digits = load_data(DigitsOptions(name="digits"))
    assert digits.preprocessing.apply(digits.train.images[:2]).strides == (256, 256, 32, 4)


def test_only_colour_images_are_mirrored(data: DeviceData) -> None:
    digits = load_data(DigitsOptions(name="digits"))
    colour = [dataclasses.replace(s, images=s.images.repeat(3, axis=3)) for s in (digits.train, digits.validation)]
    record = Preprocessing(channels=3, height=8, width=8, scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    photographs = DeviceData(dataclasses.replace(digits, train=colour[0], validation=colour[1], preprocessing=record))
    assert photographs.mirrored
    assert not data.mirrored


def test_a_batch_is_normalised_as_in_deployment(data: DeviceData) -> None:
    digits = load_data(DigitsOptions(name="digits"))
    deployed = digits.preprocessing.apply(digits.train.images[:50])
    np.testing.assert_allclose(data.network_input(data.images[:50]).numpy(), deployed, atol=1e-6)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [_one_cycle(100)(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1.0
    assert factors[100] == pytest.approx(0.0)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert all(np.isfinite(_one_cycle(steps)(step)) for steps in (1, 2, 3) for step in range(steps + 1))


def test_accuracy_is_the_share_of_right_answers(data: DeviceData) -> None:
    logits = torch.eye(4)
    shades = data.network_input(torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)).flatten()

    class ByShade(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return logits[torch.searchsorted(shades, images.flatten())]

    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1).repeat(300, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 0]).repeat(300)
    assert data.accuracy(ByShade(), images, labels) == 0.75
