"""Shared weights learn, from where a killed training left them on, and a search ranks by what they know."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.data import DigitsOptions
from pipeline.config.evaluator import SupernetOptions
from pipeline.config.run import TrainOptions
from pipeline.config.space import ConvNetOptions
from pipeline.data import load_data
from pipeline.errors import EvaluatorError
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.supernet.checkpoint import OtherSupernetError, SupernetFileError, load_into, save
from pipeline.evaluators.supernet.evaluator import SupernetEvaluator
from pipeline.evaluators.supernet.shared_weights import SharedWeights
from pipeline.evaluators.supernet.training import ROLES, SupernetState, SupernetTrainer
from pipeline.spaces.base import SearchSpace
from pipeline.spaces.convnet import ConvNetSpace

_EPOCHS = 4
_OPTIONS = SupernetOptions(name="supernet", epochs=_EPOCHS, networks=1)
_RECIPE = TrainOptions(batch_size=64, learning_rate=0.006)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    options = {"name": "convnet", "width": 8, "width_multipliers": [1.0, 2.0], "depths": [1, 2], "stages": 2}
    return ConvNetSpace(ConvNetOptions.model_validate(options | {"kernels": [3], "blocks": ["fused"]}), (1, 8, 8), 10)


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData(load_data(DigitsOptions(name="digits")))


def fresh(space: SearchSpace) -> SharedWeights:
    torch.manual_seed(0)
    return SharedWeights.of(space)


class Killed(Exception):
    pass


def trained(
    space: SearchSpace, data: DeviceData, folder: Path, kill_after: int | None = None
) -> tuple[SharedWeights, SupernetState]:
    """Train on from the folder's file, if there is one; with `kill_after` epochs the training is left."""
    shared, path = fresh(space), folder / "supernet.safetensors"
    state = load_into(path, shared, "recipe") if path.exists() else SupernetState()

    def after(now: SupernetState) -> None:
        save(path, shared, now, "recipe")
        if now.epoch == kill_after:
            raise Killed

    SupernetTrainer(space, shared, data, _RECIPE, _OPTIONS, 0).run(state, after)
    return shared, state


@pytest.fixture(scope="module")
def whole(space: SearchSpace, data: DeviceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supernet")
    trained(space, data, folder)
    return folder / "supernet.safetensors"


def test_a_killed_training_goes_on_as_if_nothing_had_been(
    space: SearchSpace, data: DeviceData, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        trained(space, data, tmp_path, kill_after=2)
    _, state = trained(space, data, tmp_path)
    unbroken = load_into(whole, fresh(space))
    assert len(state.losses) == _EPOCHS
    assert all(len(each) == len(ROLES) for each in state.losses)
    for now, then in zip(state.losses, unbroken.losses, strict=True):
        assert now == pytest.approx(then, rel=1e-5)
    ours, theirs = load_file(tmp_path / "supernet.safetensors"), load_file(whole)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_the_networks_learn(space: SearchSpace, whole: Path) -> None:
    losses = load_into(whole, fresh(space)).losses
    assert losses[-1][0] < losses[0][0], "the largest network's; the others' targets become sharper meanwhile"
    evaluator = SupernetEvaluator(_OPTIONS.model_copy(update={"weights": str(whole)}), load_data(_digits()), _RECIPE)
    largest = {choice.label: choice.values[-1] for choice in space.choices}
    network = space.build(space.canonical(largest))
    accuracy = evaluator.evaluate(network)
    assert accuracy > 0.5, "ten classes"
    assert evaluator.evaluate(space.build(space.canonical(largest))) == accuracy
    assert evaluator.details() == {"weights": "inherited"}
    assert not network.training


def _digits() -> DigitsOptions:
    return DigitsOptions(name="digits")


def test_a_file_that_does_not_fit_is_refused_in_a_sentence(space: SearchSpace, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OtherSupernetError, match="trained by another config"):
        load_into(whole, fresh(space), "another")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(SupernetFileError, match="damaged"):
        load_into(cut, fresh(space))
    with pytest.raises(SupernetFileError, match="can't be read"):
        load_into(tmp_path / "none.safetensors", fresh(space))
    options = {"name": "convnet", "width": 8, "width_multipliers": [1.0, 3.0], "depths": [1, 2], "stages": 2}
    other = ConvNetSpace(ConvNetOptions.model_validate(options), (1, 8, 8), 10)
    with pytest.raises(OtherSupernetError, match="another space"):
        load_into(whole, SharedWeights.of(other))
    facts = {"recipe": "recipe", "epoch": 3, "losses": [], "steps": {}}
    lying = tmp_path / "lying.safetensors"
    save_file(load_file(whole), lying, {"facts": json.dumps(facts)})
    with pytest.raises(SupernetFileError, match="don't belong together"):
        load_into(lying, fresh(space))


def test_without_weights_there_is_no_evaluator() -> None:
    with pytest.raises(EvaluatorError, match="before the first trial"):
        SupernetEvaluator(_OPTIONS, load_data(_digits()), _RECIPE)
