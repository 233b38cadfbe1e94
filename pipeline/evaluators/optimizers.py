"""The recipe's optimizer and its learning rate, step by step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from pipeline.config.run import TrainOptions

_WARM_UP_SHARE = 0.1


class OneCycle:
    """Learning-rate factor of a step: linear warm-up, then a cosine to 0.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._warm_up = steps, max(1, round(steps * _WARM_UP_SHARE))

    def factor(self, step: int) -> float:
        """The factor of a step, counted from 0."""
        if step < self._warm_up:
            return (step + 1) / self._warm_up
        done = (step - self._warm_up) / max(1, self._steps - self._warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class ScheduledOptimizer:
    """The recipe's optimizer, whose learning rate follows `OneCycle`.

    Args:
        model: on its device.
        recipe: the config's section.
        steps: of the whole training.
    """

    def __init__(self, model: nn.Module, recipe: TrainOptions, steps: int) -> None:
        self._optimizer = make_optimizer(model, recipe)
        self._schedule, self._highest, self._step = OneCycle(steps), recipe.learning_rate, 0

    def step(self) -> None:
        """Change the weights by their gradients, and drop these."""
        rate = self._highest * self._schedule.factor(self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1


def make_optimizer(model: nn.Module, recipe: TrainOptions) -> torch.optim.Optimizer:
    """The recipe's optimizer, with weight decay on the weights of convolutions and linear layers only."""
    decayed = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    chosen = {id(weight) for weight in decayed}
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if id(p) not in chosen], "weight_decay": 0.0},
    ]
    # One kernel for all of a group's parameters; a network of the user's own may have some that it doesn't take.
    fused = all(parameter.is_floating_point() for parameter in model.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)
