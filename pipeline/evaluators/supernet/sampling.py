"""Networks to train next: over the whole range of costs.

Networks drawn uniformly have middling costs, because a cost is a sum over many choices: the smallest and the largest,
which a search under limits needs most, would hardly be trained. Here a cost is drawn first, and then a network near it.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.evaluators.training import one_torch_thread
from pipeline.evaluators.zero_cost.scores import macs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value

_COUNTED = 192
"""Networks whose costs are counted; a linear model on them knows the others'."""
_STEEPEST = 3.0
_TRIES = 48
_RIDGE = 1e-2


class UniformSampling:
    """Draws each value of each choice equally often. A draw depends on its number alone, so a training can be resumed.

    Args:
        space: of the networks.
        seed: of the draws.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def draw(self, number: int) -> Architecture:
        """The architecture of a number."""
        return _drawn(self._space, _source(self._seed, number), 0.0)


class CostSampling:
    """Draws a network near a cost, all orders of magnitude of which are equally likely between smallest and largest.

    The cost is the number of multiply-accumulates. A draw depends on its number alone, so a training can be resumed.

    Args:
        space: of the networks.
        input_shape: (C, H, W).
        seed: of the draws.
    """

    def __init__(self, space: SearchSpace, input_shape: tuple[int, int, int], seed: int) -> None:
        self._space, self._seed = space, seed
        self._columns = {
            (choice.label, value): number
            for number, (choice, value) in enumerate((c, v) for c in space.choices for v in c.values)
        }
        source = _source(seed, -1)
        known = [_drawn(space, source, source.uniform(-_STEEPEST, _STEEPEST)) for _ in range(_COUNTED)]
        images = torch.zeros(1, *input_shape)
        with torch.random.fork_rng(devices=[]), one_torch_thread():  # so small that threads only wait
            costs = [macs(space.build(each), images, images) for each in known]
        logarithms = np.log(np.maximum(costs, 1.0))
        self._range = float(logarithms.min()), float(logarithms.max())
        self._weights, self._middle = _fitted(self._rows(known), logarithms)

    def draw(self, number: int) -> Architecture:
        """The architecture of a number."""
        source = _source(self._seed, number)
        wanted = source.uniform(*self._range)
        tried = [_drawn(self._space, source, source.uniform(-_STEEPEST, _STEEPEST)) for _ in range(_TRIES)]
        off = np.abs(self._rows(tried) @ self._weights + self._middle - wanted)
        return tried[int(off.argmin())]

    def _rows(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """One-hot codes of the active choices, (architectures, values of all choices)."""
        rows = np.zeros((len(architectures), len(self._columns)))
        for row, architecture in zip(rows, architectures, strict=True):
            row[[self._columns[label, value] for label, value in architecture.items()]] = 1.0
        return rows


def quantities(choice: Choice) -> list[float] | None:
    """The values of a choice of quantities, in their order; None for one of names."""
    numbers = [float(v) for v in choice.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return numbers if len(numbers) == len(choice.values) else None


def _source(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed} {number}")  # noqa: S311 - a sample, no secret


def _drawn(space: SearchSpace, source: random.Random, steepness: float) -> Architecture:
    """A random architecture: the larger `steepness`, the likelier large quantities are; 0 is uniform."""
    sample: dict[str, Value] = {}
    for choice in space.choices:
        ranks = quantities(choice)
        if steepness == 0 or ranks is None or len(ranks) == 1:
            sample[choice.label] = source.choice(choice.values)
            continue
        order = np.argsort(np.argsort(ranks)) / (len(ranks) - 1)
        weights = [math.exp(steepness * float(share)) for share in order]
        sample[choice.label] = source.choices(choice.values, weights)[0]
    return space.canonical(sample)


def _fitted(rows: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Weights and constant of a ridge regression."""
    middle = float(values.mean())
    means = rows.mean(axis=0)
    centred = rows - means
    gram = centred.T @ centred + _RIDGE * len(rows) * np.eye(rows.shape[1])
    weights: npt.NDArray[np.float64] = np.linalg.solve(gram, centred.T @ (values - middle))
    return weights, middle - float(means @ weights)
