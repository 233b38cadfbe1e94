"""Training of shared weights: in each step the largest network, the smallest, and some between learn the same images.

The sandwich rule and the distillation from the largest network are those of Yu & Huang, Universally slimmable networks,
2019. The networks' batch norms use the batch's statistics; a network that is taken out later needs its own.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pipeline.evaluators.convolution_forms import fast_convolutions, may_use_bf16
from pipeline.evaluators.memory_layout import channels_last, fast_layout
from pipeline.evaluators.optimizers import OneCycle
from pipeline.evaluators.supernet.sampling import CostSampling, UniformSampling, quantities
from pipeline.evaluators.training import LossWatch
from pipeline.memory_settings import kept_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.evaluator import SupernetOptions
    from pipeline.config.run import TrainOptions
    from pipeline.evaluators.device_data import DeviceData
    from pipeline.evaluators.supernet.shared_weights import SharedWeights
    from pipeline.spaces.base import Architecture, SearchSpace, Value

ROLES = ("largest", "smallest", "drawn")
"""The networks of a step: those with all quantities at their largest and smallest, and those that are drawn."""


@dataclass(frozen=True)
class Moments:
    """AdamW's memory of a parameter: the number of its steps, its first and second moments."""

    steps: int
    first: Tensor
    second: Tensor


@dataclass
class SupernetState:
    """Progress of a training: all that `SupernetTrainer.run` goes on from, beside the shared weights.

    Attributes:
        epoch: epochs that are done.
        losses: for each of them the mean loss of each role, in the order of `ROLES`.
        moments: of the optimizer, for each place.
    """

    epoch: int = 0
    losses: list[tuple[float, ...]] = field(default_factory=list)
    moments: dict[str, Moments] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pass:
    """Forward and backward of one network: its role, the network, its loss, the gradients of its slices."""

    role: str
    network: nn.Module
    loss: Tensor
    gradients: dict[str, Tensor | None]


class SupernetTrainer:
    """Trains the shared weights of a space.

    Args:
        space: of the networks.
        shared: their weights on the data's device, trained in place.
        data: training images.
        recipe: the config's section; its batch size, learning rate, weight decay and augmentation count.
        options: the config's section `evaluator`.
        seed: of everything random; an epoch depends on it and on its number alone.
    """

    def __init__(
        self,
        space: SearchSpace,
        shared: SharedWeights,
        data: DeviceData,
        recipe: TrainOptions,
        options: SupernetOptions,
        seed: int,
    ) -> None:
        self._space, self._shared, self._data = space, shared, data
        self._recipe, self._options, self._seed = recipe, options, seed
        self._batches = data.batch_count(recipe)
        shape = tuple(data.images.shape[1:])
        self._drawn = (
            CostSampling(space, (shape[0], shape[1], shape[2]), seed)
            if options.sampling == "cost"
            else UniformSampling(space, seed)
        )
        self._names = UniformSampling(space, seed)
        self._sized = any(quantities(choice) is not None for choice in space.choices)
        self._bf16 = may_use_bf16(recipe, data.device)
        largest = space.build(self._extreme(max, 0)).to(data.device)
        with fast_layout(largest, data.network_input(data.images[:2])) as last:
            self._channels_last = last

    def run(self, state: SupernetState, after_epoch: Callable[[SupernetState], None]) -> None:
        """Train from a state to the end.

        Args:
            state: brought up to date after each epoch.
            after_epoch: called with it.

        Raises:
            DivergedError: a loss became infinite or no number.
        """
        optimizer = _optimizer(self._shared, self._recipe, state)
        schedule = OneCycle(self._options.epochs * self._batches)
        with kept_memory():
            for epoch in range(state.epoch, self._options.epochs):
                torch.manual_seed(_epoch_seed(self._seed, epoch))
                sums = dict.fromkeys(ROLES, 0.0)
                for number, (images, labels) in enumerate(self._data.batches(self._recipe)):
                    step = epoch * self._batches + number
                    for group in optimizer.param_groups:
                        group["lr"] = self._recipe.learning_rate * schedule.factor(step)
                    for role, loss in self._learn(step, images, labels, epoch + 1):
                        sums[role] += loss / self._batches
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                state.epoch = epoch + 1
                state.losses.append(tuple(sums[role] for role in ROLES))
                state.moments = _moments(optimizer, self._shared)
                after_epoch(state)

    def _learn(self, step: int, images: Tensor, labels: Tensor, epoch: int) -> list[tuple[str, float]]:
        """Add up the gradients of one step's networks; gives each one's role and its share of the role's mean loss.

        The largest network learns in a thread of its own: it takes as long as the others together, which only wait for
        what it says.
        """
        jobs = [
            (role, self._space.build(architecture).to(self._data.device)) for role, architecture in self._networks(step)
        ]
        first = [job for job in jobs if job[0] == "largest"]
        rest = [job for job in jobs if job[0] != "largest"]
        with ThreadPoolExecutor(1) as pool:
            said: Future[Tensor] = Future()
            largest = pool.submit(self._passed, first, images, labels, said) if first else None
            targets = said.result() if first and self._options.distill else labels
            passes = self._passed(rest, images, targets)
            passes = [*(largest.result() if largest is not None else []), *passes]
        watch, counts = LossWatch(1, epoch), Counter(each.role for each in passes)
        for each in passes:
            watch.see(each.loss)
            self._shared.add_gradients(each.network, each.gradients)
        return [(each.role, float(each.loss) / counts[each.role]) for each in passes]

    def _passed(
        self, jobs: list[tuple[str, nn.Module]], images: Tensor, targets: Tensor, said: Future[Tensor] | None = None
    ) -> list[_Pass]:
        """Forward and backward of some networks; `said` gets the shares of the classes that the first one says."""
        passes = []
        try:
            for role, network in jobs:
                slices = self._shared.slices(network)
                logits = self._logits(network, slices, images)
                if said is not None and not said.done():
                    said.set_result(logits.detach().softmax(1))
                smoothing = 0.0 if targets.is_floating_point() else self._recipe.label_smoothing
                loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
                found = torch.autograd.grad(loss, list(slices.values()), allow_unused=True)
                passes.append(_Pass(role, network, loss.detach(), dict(zip(slices, found, strict=True))))
        except BaseException as error:
            if said is not None and not said.done():
                said.set_exception(error)
            raise
        return passes

    def _networks(self, step: int) -> list[tuple[str, Architecture]]:
        count = self._options.networks + (0 if self._sized else 2)
        drawn = [("drawn", self._drawn.draw(step * count + number)) for number in range(count)]
        if not self._sized:
            return drawn
        return [("largest", self._extreme(max, step)), ("smallest", self._extreme(min, step)), *drawn]

    def _extreme(self, of: Callable[[list[float]], float], number: int) -> Architecture:
        """All quantities at their largest or smallest; names as they are drawn."""
        names = self._space.complete(self._names.draw(number))
        return self._space.canonical({**names, **extreme(self._space, of)})

    def _logits(self, network: nn.Module, slices: dict[str, Tensor], images: Tensor) -> Tensor:
        with ExitStack() as stack:
            if self._channels_last:
                stack.enter_context(channels_last(network))
            stack.enter_context(fast_convolutions(network, bf16=self._bf16))
            logits: Tensor = functional_call(network, slices, (images,))
        return logits


def extreme(space: SearchSpace, of: Callable[[list[float]], float]) -> dict[str, Value]:
    """Label of each choice of quantities → its largest or smallest value."""
    found = {}
    for choice in space.choices:
        if (numbers := quantities(choice)) is not None:
            found[choice.label] = choice.values[numbers.index(of(numbers))]
    return found


def _optimizer(shared: SharedWeights, recipe: TrainOptions, state: SupernetState) -> torch.optim.AdamW:
    """AdamW over the shared weights, with weight decay on those of convolutions and linear layers, as it was left."""
    parameters = list(shared.parameters.values())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    for place, moments in state.moments.items():
        parameter = shared.parameters[place]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(moments.steps), device=parameter.device),
            "exp_avg": moments.first.to(parameter.device),
            "exp_avg_sq": moments.second.to(parameter.device),
        }
    return optimizer


def _moments(optimizer: torch.optim.AdamW, shared: SharedWeights) -> dict[str, Moments]:
    """The optimizer's memory; a place that no network has used yet has none."""
    return {
        place: Moments(int(memory["step"]), memory["exp_avg"], memory["exp_avg_sq"])
        for place, parameter in shared.parameters.items()
        if (memory := optimizer.state.get(parameter))
    }


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**31
