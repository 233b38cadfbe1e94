"""A data set on the device that trains, its batches, and the accuracy of a network on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from pipeline.evaluators.augmentation import shifted_and_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet, Split

_EVALUATION_BATCH = 128
"""Images at a time, at most: the maps of so few stay in a CPU's caches, 512 took up to twice the time."""


class DeviceData:
    """A data set as tensors on the training device (CUDA where torch has it).

    Images stay uint8, (N, C, H, W), resized once; `network_input` normalises a batch as deployment does. As floats
    they would take four times the memory, and normalising a batch takes less than a thousandth of a step.
    """

    def __init__(self, data: DataSet) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._preprocessing = data.preprocessing
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (data.preprocessing.mean, data.preprocessing.std)
        )
        self.images, self.labels = self.tensors(data.train)
        self.validation = self.tensors(data.validation)
        self.mirrored = data.train.images.shape[3] == 3  # photographs may be mirrored, digits and grey shapes not

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), uint8, and labels (N,) of a split on the device."""
        # A copy, because with one channel a mere view would have strides that torch takes for channels-last; its
        # convolutions were seen to overwrite memory on such inputs.
        images = self._preprocessing.resize(split.images).transpose(0, 3, 1, 2).copy(order="C")
        return torch.from_numpy(images).to(self.device), torch.from_numpy(split.labels).to(self.device)

    def network_input(self, images: Tensor) -> Tensor:
        """Normalise images (N, C, H, W), uint8, to float32 of that shape, as `Preprocessing.apply` does."""
        return (images.float() * self._preprocessing.scale - self._mean) / self._std

    def batches(self, recipe: TrainOptions) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images in a new order, as inputs of the network (B, C, H, W) and labels (B,).

        Batches are of equal size, give or take an image: one of a single image would break batch norm.
        """
        order = torch.randperm(len(self.labels), device=self.device)
        for index in order.tensor_split(self.batch_count(recipe)):
            images = self.images.index_select(0, index)
            if recipe.augment == "light":
                images = shifted_and_mirrored(images, mirrored=self.mirrored)
            yield self.network_input(images), self.labels.index_select(0, index)

    def batch_count(self, recipe: TrainOptions) -> int:
        """Number of batches of an epoch."""
        return max(1, len(self.labels) // recipe.batch_size)

    def accuracy(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Share of images (uint8) whose largest logit is the label's, 0 to 1."""
        model.eval()
        with torch.inference_mode():
            # Of equal size, give or take an image: for each size oneDNN has to make its kernels.
            batches = torch.tensor_split(images, math.ceil(len(images) / _EVALUATION_BATCH))
            predicted = [model(self.network_input(batch)).argmax(1) for batch in batches]
        return float((torch.cat(predicted) == labels).double().mean())
