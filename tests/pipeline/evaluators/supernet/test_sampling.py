"""Networks to train are drawn over the whole range of costs, the same for the same number."""

import math
import statistics

import pytest
import torch

from pipeline.config.space import ConvNetOptions, NasBench201Options
from pipeline.evaluators.supernet.sampling import CostSampling, UniformSampling
from pipeline.evaluators.zero_cost.scores import macs
from pipeline.spaces.base import SearchSpace
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.nasbench201 import NasBench201Space

_SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    options = {"name": "convnet", "width": 8, "width_multipliers": [1.0, 2.0, 4.0], "depths": [1, 2, 3], "stages": 2}
    return ConvNetSpace(ConvNetOptions.model_validate(options), _SHAPE, 10)


def costs(space: SearchSpace, sampling: CostSampling | UniformSampling) -> list[float]:
    images = torch.zeros(1, *_SHAPE)
    return [math.log(macs(space.build(sampling.draw(number)), images, images)) for number in range(40)]


def test_costs_are_spread_wider_than_uniform_draws_are(space: SearchSpace) -> None:
    uniform = costs(space, UniformSampling(space, 0))
    spread = costs(space, CostSampling(space, _SHAPE, 0))
    assert statistics.stdev(spread) > 1.5 * statistics.stdev(uniform)
    assert min(spread) < min(uniform)
    assert max(spread) > max(uniform)


@pytest.mark.parametrize("kind", ["cost", "uniform"])
def test_a_draw_depends_on_seed_and_number_alone(space: SearchSpace, kind: str) -> None:
    def made(seed: int) -> CostSampling | UniformSampling:
        return CostSampling(space, _SHAPE, seed) if kind == "cost" else UniformSampling(space, seed)

    one, other, third = made(0), made(0), made(1)
    assert [one.draw(7), one.draw(3)] == [other.draw(7), other.draw(3)]
    assert [one.draw(number) for number in range(5)] != [third.draw(number) for number in range(5)]
    assert one.draw(7) == space.canonical(one.draw(7))


def test_a_space_of_names_alone_is_drawn_from_too() -> None:
    space = NasBench201Space(NasBench201Options(name="nasbench201", width=4), _SHAPE, 10)
    drawn = [CostSampling(space, _SHAPE, 0).draw(number) for number in range(3)]
    assert all(each == space.canonical(each) for each in drawn)
