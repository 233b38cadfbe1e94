from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config.data import DigitsOptions
from pipeline.config.run import TrainOptions
from pipeline.data import load_data
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.training import DivergedError, LossWatch, train


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData(load_data(DigitsOptions(name="digits")))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


FAST = TrainOptions(learning_rate=0.01, batch_size=64)


def test_learns_digits(data: DeviceData) -> None:
    torch.manual_seed(0)
    result = train(network(), data, FAST, epochs=8)
    assert result.last > 0.9
    assert result.best == result.last
    assert result.epochs == 8


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_is_deterministic_under_a_seed(data: DeviceData, optimizer: str) -> None:
    recipe = TrainOptions(optimizer=optimizer, learning_rate=0.01, batch_size=64)  # type: ignore[arg-type]
    weights = []
    for seed in (1, 1, 2):
        model = network(seed)
        train(model, data, recipe, epochs=1)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_listening_to_progress_changes_nothing(data: DeviceData) -> None:
    heard: list[tuple[int, int, float]] = []
    results = []
    for progress in (None, lambda *told: heard.append(told)):
        model = network(3)
        results.append(train(model, data, FAST, epochs=2, progress=progress))
    assert results[0] == results[1]
    assert [told[:2] for told in heard] == [(1, 2), (2, 2)]
    assert heard[-1][2] == results[1].last


def test_patience_stops_and_keeps_the_best_weights(data: DeviceData) -> None:
    heard: list[float] = []
    model = network(0)
    recipe = TrainOptions(
        learning_rate=0.3, batch_size=64, optimizer="sgd"
    )  # restless, so that the best is not the last
    result = train(model, data, recipe, epochs=30, patience=2, progress=lambda _, __, accuracy: heard.append(accuracy))
    assert result.best == max(heard)
    assert data.accuracy(model, *data.validation) == result.best
    assert result.last == heard[-1]
    assert result.epochs == len(heard)
    if result.epochs < 30:
        assert max(heard[:-2]) >= max(heard[-2:])


def test_without_improvement_patience_ends_early(data: DeviceData) -> None:
    recipe = TrainOptions(learning_rate=1e-12, batch_size=64)
    result = train(network(), data, recipe, epochs=30, patience=3)
    assert result.epochs < 30


def test_divergence_is_told(data: DeviceData) -> None:
    with pytest.raises(DivergedError, match="epoch 1"):
        train(network(), data, TrainOptions(learning_rate=1e30, optimizer="sgd", batch_size=64), epochs=2)


def test_a_batch_larger_than_the_data_is_one_batch(data: DeviceData) -> None:
    assert train(network(), data, TrainOptions(batch_size=5000), epochs=1).epochs == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_is_looked_at_every_few_steps_and_at_the_end(bad: float) -> None:
    watch = LossWatch(every=4, epoch=7)
    for step in range(1, 8):
        watch.see(torch.tensor(bad if step == 5 else 0.5))
    with pytest.raises(DivergedError, match=f"became {bad} in epoch 7"):
        watch.see(torch.tensor(0.5))
    watch = LossWatch(every=4, epoch=2)
    watch.look()
    watch.see(torch.tensor(bad))
    with pytest.raises(DivergedError, match="epoch 2"):
        watch.look()


def test_a_later_epoch_is_named_and_no_further_step_is_taken(data: DeviceData) -> None:
    class Failing(nn.Module):
        """Gives no numbers from the 40th training step on."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.steps = network(), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.steps += self.training
            return self.inner(images) * (float("nan") if self.training and self.steps >= 40 else 1.0)

    model = Failing()
    recipe = TrainOptions(learning_rate=0.01, batch_size=64)
    with pytest.raises(DivergedError, match="nan in epoch 3"):
        train(model, data, recipe, epochs=5)
    assert data.batch_count(recipe) == 16
    assert model.steps == 40
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_kept_memory_changes_no_bit(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for own in ("", "glibc.malloc.tcache_count=7"):  # a setting of the user's own: then none is changed
        monkeypatch.setenv("GLIBC_TUNABLES", own)
        model = network(5)
        train(model, data, FAST, epochs=1)
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_trains_the_same_channels_last_to_rounding_and_leaves_weights_contiguous(
    data: DeviceData,
) -> None:
    accuracies = []
    for last in (True, False):
        model = nn.Sequential(*list(network(6))[:3], nn.Conv2d(16, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 10))
        if not last:  # a module that would refuse channels-last
            model.insert(3, Viewing())
        accuracies.append(train(model, data, FAST, epochs=6).last)
        assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)
    assert min(accuracies) > 0.7


class Viewing(nn.Module):
    """Needs maps that lie as (N, C, H, W)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.view(maps.shape[0], -1).view(maps.shape)
