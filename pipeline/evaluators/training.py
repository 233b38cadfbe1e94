"""The training loop of candidates, winner and reference points."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import HwnasError
from pipeline.evaluators.convolution_forms import fast_convolutions, may_use_bf16
from pipeline.evaluators.memory_layout import fast_layout
from pipeline.evaluators.optimizers import ScheduledOptimizer
from pipeline.memory_settings import kept_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pipeline.config.run import TrainOptions
    from pipeline.evaluators.device_data import DeviceData
    from pipeline.trials.result import Progress

_STEPS_BETWEEN_LOOKS = 32


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
    bf16 = may_use_bf16(recipe, data.device)
    with (
        kept_memory(),
        fast_layout(model, data.network_input(data.images[:2])),
        fast_convolutions(model, bf16=bf16),
    ):
        return _train(model, data, recipe, epochs, patience, progress)


def _train(
    model: nn.Module,
    data: DeviceData,
    recipe: TrainOptions,
    epochs: int,
    patience: int | None,
    progress: Progress | None,
) -> TrainingResult:
    optimizer = ScheduledOptimizer(model, recipe, epochs * data.batch_count(recipe))
    best, best_state, best_epoch, accuracy, epoch = -1.0, None, 0, 0.0, 0
    for epoch in range(1, epochs + 1):
        _train_epoch(model, data, recipe, optimizer, epoch)
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


def _train_epoch(
    model: nn.Module, data: DeviceData, recipe: TrainOptions, optimizer: ScheduledOptimizer, epoch: int
) -> None:
    model.train()
    watch = LossWatch(1 if data.device.type == "cpu" else _STEPS_BETWEEN_LOOKS, epoch)
    for images, labels in data.batches(recipe):
        loss = F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
        watch.see(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    watch.look()


class LossWatch:
    """Notices, within some steps and before the epoch ends, that a loss is infinite or no number.

    A look makes the program wait for a GPU. On a CPU nothing is waited for, so each step is looked at.

    Args:
        every: steps from look to look.
        epoch: counted from 1, for the message.
    """

    def __init__(self, every: int, epoch: int) -> None:
        self._every, self._epoch = every, epoch
        self._unseen: list[Tensor] = []

    def see(self, loss: Tensor) -> None:
        """Take a step's loss, detached.

        Raises:
            DivergedError: it is time to look, and a loss is infinite or no number.
        """
        self._unseen.append(loss)
        if len(self._unseen) == self._every:
            self.look()

    def look(self) -> None:
        """Look at the losses since the last look.

        Raises:
            DivergedError: one is infinite or no number.
        """
        losses = torch.stack(self._unseen).tolist() if self._unseen else []
        self._unseen.clear()
        for loss in losses:
            if not math.isfinite(loss):
                raise DivergedError(f"the loss became {loss} in epoch {self._epoch}")


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch compute in one thread: a result must not depend on how many share a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
