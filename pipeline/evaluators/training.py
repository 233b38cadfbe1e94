"""The training loop of candidates, winner and reference points."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.run import TrainOptions
    from pipeline.data import DataSet, Split
    from pipeline.trials.result import Progress

_WARM_UP_SHARE = 0.1
_EVALUATION_BATCH = 512


class DivergedError(HwnasError):
    """A training whose loss became infinite or no number."""


@dataclass(frozen=True)
class TrainingResult:
    """Validation accuracies of one training, 0 to 1.

    Attributes:
        last: after the last epoch.
        best: of the weights that the network has now.
        epochs: number of epochs trained.
    """

    last: float
    best: float
    epochs: int


class DeviceData:
    """A data set as tensors on the training device (CUDA where torch has it).

    Images stay uint8, (N, C, H, W), resized once; `network_input` normalises a batch as deployment does.
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

    def accuracy(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Share of images (uint8) whose largest logit is the label's, 0 to 1."""
        model.eval()
        with torch.inference_mode():
            batches = torch.split(images, _EVALUATION_BATCH)
            predicted = [model(self.network_input(batch)).argmax(1) for batch in batches]
        return float((torch.cat(predicted) == labels).double().mean())


def train(
    model: nn.Module,
    data: DeviceData,
    recipe: TrainOptions,
    *,
    epochs: int,
    patience: int | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network in place, with a one-cycle cosine learning rate after a short warm-up.

    Args:
        model: moved to the data's device, and left there.
        data: training and validation images.
        recipe: the config's section.
        epochs: passes over the training images, at most.
        patience: stop after this many epochs without a better validation accuracy, and keep the best weights
            instead of the last; None trains all epochs and keeps the last.
        progress: called after every epoch; True ends the training.

    Raises:
        DivergedError: the loss became infinite or no number.
    """
    model.to(data.device)
    batches = max(1, len(data.labels) // recipe.batch_size)
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _one_cycle(epochs * batches))
    best, best_state, best_epoch, accuracy, epoch = -1.0, None, 0, 0.0, 0
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in _batches(data, recipe, batches):
            loss = F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
            if not math.isfinite(loss.item()):
                raise DivergedError(f"the loss became {loss.item()} in epoch {epoch}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        if patience is not None or progress is not None or epoch == epochs:
            accuracy = data.accuracy(model, *data.validation)
        enough = progress is not None and progress(epoch, epochs, accuracy)
        if patience is not None and accuracy > best:
            best, best_epoch, best_state = accuracy, epoch, copy.deepcopy(model.state_dict())
        if enough or (patience is not None and epoch - best_epoch >= patience):
            break
    if best_state is not None:
        model.load_state_dict(best_state)
    return TrainingResult(last=accuracy, best=best if best_state is not None else accuracy, epochs=epoch)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch compute in one thread: a result must not depend on how many share a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _optimizer(model: nn.Module, recipe: TrainOptions) -> torch.optim.Optimizer:
    """The recipe's optimizer, with weight decay on the weights of convolutions and linear layers only."""
    decayed = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    chosen = {id(weight) for weight in decayed}
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in chosen], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


class _one_cycle:  # noqa: N801 - reads as a function
    """Learning-rate factor of a step: linear warm-up, then a cosine to 0."""

    def __init__(self, steps: int) -> None:
        self._steps, self._warm_up = steps, max(1, round(steps * _WARM_UP_SHARE))

    def __call__(self, step: int) -> float:
        if step < self._warm_up:
            return (step + 1) / self._warm_up
        done = (step - self._warm_up) / max(1, self._steps - self._warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _batches(data: DeviceData, recipe: TrainOptions, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(data.labels), device=data.device)
    # Equal parts: a batch of a single image would break batch norm.
    for index in order.tensor_split(count):
        images = data.images[index]
        shown = _augmented(images, mirrored=data.mirrored) if recipe.augment == "light" else images
        yield data.network_input(shown), data.labels[index]


def _augmented(images: Tensor, *, mirrored: bool) -> Tensor:
    """Images (N, C, H, W) shifted by up to an eighth both ways, filled with black; with `mirrored` half of the batches
    are flipped.
    """
    _, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    down, right = (int(v) for v in torch.randint(-reach, reach + 1, (2,)))
    shifted = torch.roll(images, (down, right), (2, 3))
    if down:
        shifted[:, :, slice(0, down) if down > 0 else slice(down, None), :] = 0
    if right:
        shifted[:, :, :, slice(0, right) if right > 0 else slice(right, None)] = 0
    return shifted.flip(3) if mirrored and bool(torch.rand(()) < 0.5) else shifted
