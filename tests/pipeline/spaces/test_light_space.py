"""The light form of NNI's model space: the same models from the same seed as NNI's own."""

from typing import Any

import numpy as np
import pytest

from pipeline.config.space import ConvNetOptions, NasBench201Options
from pipeline.nni_types import ModelSpace, ModelStatus, SimplifiedModelSpace, choice
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.light_space import LightModelSpace
from pipeline.spaces.nasbench201 import NasBench201Space

SPACES: dict[str, Any] = {
    "convnet": ConvNetSpace(ConvNetOptions(name="convnet", stages=3), (1, 8, 8), 10),
    "nasbench201": NasBench201Space(NasBench201Options(name="nasbench201", cells=1), (3, 32, 32), 10),
}


def both(name: str) -> tuple[Any, Any]:
    model_space = SPACES[name].model_space()
    return SimplifiedModelSpace.from_model(model_space), LightModelSpace.from_model(model_space)


@pytest.mark.parametrize("name", list(SPACES))
def test_random_models_are_the_same(name: str) -> None:
    theirs, ours = both(name)
    first, second = np.random.RandomState(3), np.random.RandomState(3)
    for _ in range(50):
        wanted, found = theirs.random(random_state=first), ours.random(random_state=second)
        assert found.sample == wanted.sample
        assert list(found.sample) == list(wanted.sample)
    assert first.random_sample() == second.random_sample()  # as much was drawn


def test_given_values_are_kept() -> None:
    theirs, ours = both("nasbench201")
    label = next(iter(ours.simplify()))
    value = ours.simplify()[label].values[-1]
    wanted = theirs.random(memo={label: value}, random_state=np.random.RandomState(0))
    assert ours.random(memo={label: value}, random_state=np.random.RandomState(0)).sample == wanted.sample


def test_a_frozen_model_shares_no_state() -> None:
    _, space = both("nasbench201")
    memo: dict[str, Any] = {}
    model = space.random(memo=memo, random_state=np.random.RandomState(0))
    assert (model.status, space.status) == (ModelStatus.Frozen, ModelStatus.Initialized)
    assert model.sample == memo
    assert model.metrics is not space.metrics
    memo.clear()
    assert model.sample
    with pytest.raises(RuntimeError, match="frozen"):
        model.freeze(model.sample)
    with pytest.raises(ValueError, match="not found"):
        space.freeze({**model.sample, next(iter(model.sample)): "no such operation"})


class Weighted(ModelSpace):  # type: ignore[misc]  # NNI has no types
    """A choice that NNI draws by weights."""

    def __init__(self) -> None:
        super().__init__()
        drawn = choice("a", [1, 2, 3])
        drawn.weights = [0.7, 0.2, 0.1]
        self.add_mutable(drawn)
        self.add_mutable(choice("b", list(range(7))))


def test_weights_are_kept() -> None:
    model_space = Weighted()
    theirs, ours = SimplifiedModelSpace.from_model(model_space), LightModelSpace.from_model(model_space)
    first, second = np.random.RandomState(1), np.random.RandomState(1)
    wanted = [theirs.random(random_state=first).sample for _ in range(300)]
    assert [ours.random(random_state=second).sample for _ in range(300)] == wanted
    assert sum(sample["a"] == 1 for sample in wanted) > 150
