import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.run import TrainOptions
from pipeline.evaluators.optimizers import OneCycle, ScheduledOptimizer, make_optimizer


def test_only_weights_of_convolutions_and_linear_layers_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    decayed, rest = make_optimizer(model, TrainOptions(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}  # type: ignore[index]
    assert len(decayed["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [OneCycle(100).factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1.0
    assert factors[100] == pytest.approx(0.0)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert all(np.isfinite(OneCycle(steps).factor(step)) for steps in (1, 2, 3) for step in range(steps + 1))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_is_that_of_torch_and_its_schedule(name: str) -> None:
    recipe = TrainOptions(optimizer=name, learning_rate=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)))
    ours, plain = models
    weights = [plain[0].weight, plain[2].weight]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": [plain[0].bias], "weight_decay": 0.0}]
    reference: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, foreach=False)
        if name == "sgd"
        else torch.optim.AdamW(groups, lr=0.01, foreach=False)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(reference, OneCycle(30).factor)
    optimizer = ScheduledOptimizer(ours, recipe, 30)
    for _ in range(30):
        inputs = torch.randn(16, 6)
        ours(inputs).square().mean().backward()
        optimizer.step()
        assert all(parameter.grad is None for parameter in ours.parameters())
        reference.zero_grad()
        plain(inputs).square().mean().backward()
        reference.step()
        schedule.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
