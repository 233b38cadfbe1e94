"""The table of zero-cost scores, and their computation on a fixed minibatch without a change of the network."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import EvaluatorError
from pipeline.evaluators.zero_cost.codes import naswot
from pipeline.evaluators.zero_cost.flow import grad_norm, jacob_cov, synflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.data import DataSet

_SEED = 0


@dataclass(frozen=True)
class Score:
    """One row of the table; the larger the score, the better the network is expected to become.

    Attributes:
        compute: (network that it may change, images (N, C, H, W), labels (N,)) → the score.
        middle: of usual networks, about, after `unit`.
        spread: of usual networks around it, about.
        unit: (score, N) → a value that is spread evenly; a function that never falls.
        description: in one line.
    """

    compute: Callable[[nn.Module, Tensor, Tensor], float]
    middle: float
    spread: float
    unit: Callable[[float, int], float]
    description: str

    def share(self, value: float, images: int) -> float:
        """The score of N images, mapped to 0 … 1 as ½ + z / (2 + 2 |z|), where z = (unit − middle) / spread.

        The order of networks stays; middle and spread only make the number readable.
        """
        z = (self.unit(value, images) - self.middle) / self.spread
        return 0.5 + z / (2 + 2 * abs(z))


def params(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The number of parameters; a layer that is used twice counts once."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


def macs(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Multiply-accumulates of convolutions and linear layers for one image, as they are run."""
    total = 0

    def leave(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()

    counted = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(leave) for module in counted]
    try:
        with torch.no_grad():
            network.eval()(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return float(total)


def _log10(value: float, images: int) -> float:
    return math.log10(max(value, 1e-300))


def _as_it_is(value: float, images: int) -> float:
    return value


def _per_image(value: float, images: int) -> float:
    return value / images


def _negative_log10(value: float, images: int) -> float:
    return -math.log10(max(-value / images, 1e-300))  # jacob_cov is at most about −images


SCORES = {
    "params": Score(params, 6.0, 1.0, _log10, "number of parameters"),
    "macs": Score(macs, 7.5, 1.0, _log10, "multiply-accumulates"),
    "synflow": Score(synflow, 60.0, 40.0, _as_it_is, "logarithm of the synaptic flow (Tanaka et al. 2020)"),
    "naswot": Score(naswot, 9.0, 2.0, _per_image, "how differently images are coded (Mellor et al. 2021)"),
    "jacob_cov": Score(jacob_cov, -0.5, 0.5, _negative_log10, "how little input gradients correlate (Mellor 2020)"),
    "grad_norm": Score(grad_norm, 0.5, 1.0, _log10, "norms of the weights' gradients (Abdelfattah et al. 2021)"),
}


def score_of(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Compute one score of a network, which stays unchanged.

    Args:
        name: of `SCORES`.
        network: freshly initialised, on the images' device.
        images: (N, C, H, W), preprocessed, N ≥ 2.
        labels: (N,).

    Returns:
        A finite number; the same for the same weights and images, and number of torch's threads.

    Raises:
        EvaluatorError: the score is infinite or no number.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)  # a dropout draws
        value = SCORES[name].compute(copy.deepcopy(network), images, labels)
    if not math.isfinite(value):
        raise EvaluatorError(f"{name} of this network is {value}")
    return value


def minibatch(data: DataSet, count: int) -> tuple[Tensor, Tensor]:
    """Training images, chosen by a fixed seed, as network inputs, and their labels; on the CPU.

    Args:
        data: of the search.
        count: number of images, or all of a smaller set.

    Returns:
        float32 (count, C, H, W) and int64 (count,).
    """
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(data.train))[:count])
    images = data.preprocessing.apply(data.train.images[rows])
    return torch.from_numpy(images), torch.from_numpy(data.train.labels[rows])
