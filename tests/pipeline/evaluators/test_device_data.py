import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from export.preprocessing import Preprocessing
from pipeline.config.data import DigitsOptions
from pipeline.config.run import TrainOptions
from pipeline.data import load_data
from pipeline.evaluators.device_data import DeviceData


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData(load_data(DigitsOptions(name="digits")))


def test_every_image_is_seen_once_an_epoch(data: DeviceData) -> None:
    recipe = TrainOptions(augment="none", batch_size=128)
    batches = list(data.batches(recipe))
    assert len(batches) == data.batch_count(recipe) == 8
    sizes = [len(labels) for _, labels in batches]
    assert sum(sizes) == 1077
    assert max(sizes) - min(sizes) <= 1
    seen = torch.cat([images.flatten(1) for images, _ in batches])
    every = data.network_input(data.images).flatten(1)
    assert torch.equal(seen.sort(0).values, every.sort(0).values)


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


def test_accuracy_is_the_share_of_right_answers(data: DeviceData) -> None:
    logits = torch.eye(4)
    shades = data.network_input(torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)).flatten()

    class ByShade(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return logits[torch.searchsorted(shades, images.flatten())]

    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1).repeat(300, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 0]).repeat(300)
    assert data.accuracy(ByShade(), images, labels) == 0.75


def test_accuracy_is_that_of_all_images_at_once(data: DeviceData) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).train()
    model(data.network_input(data.images))  # statistics of its own
    images, labels = data.validation
    found = data.accuracy(model, images, labels)
    with torch.no_grad():
        right = model.eval()(data.network_input(images)).argmax(1) == labels
    assert 0.0 < found == float(right.double().mean()) < 1.0


@pytest.mark.parametrize("augment", ["none", "light"])
def test_batches_of_grey_images_have_the_strides_of_nchw(data: DeviceData, augment: str) -> None:
    recipe = TrainOptions(augment=augment, batch_size=100)  # type: ignore[arg-type]
    for images, _ in data.batches(recipe):
        assert images.stride() == (64, 64, 8, 1)
