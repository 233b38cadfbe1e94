"""While a network trains, convolutions may be computed in a faster form; their maths stays, and so does the rest."""

from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.config.data import DigitsOptions
from pipeline.config.evaluator import TrainEvaluatorOptions
from pipeline.config.run import TrainOptions
from pipeline.data import load_data
from pipeline.evaluators.convolution_forms import fast_convolutions, may_use_bf16
from pipeline.evaluators.train import TrainEvaluator

_CPU = torch.device("cpu")


def last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


def results(module: nn.Module, maps: Tensor, *, bf16: bool = False, plain: bool = False) -> list[Tensor]:
    """Output, and the gradients of maps and parameters."""
    maps = last(maps.detach().clone()).requires_grad_()
    module.zero_grad()
    if plain:
        out = module(maps)
        out.square().mean().backward()
    else:
        with fast_convolutions(module, bf16=bf16):
            out = module(maps)
            out.square().mean().backward()
    assert maps.grad is not None
    return [out.detach(), maps.grad, *(each.grad.clone() for each in module.parameters() if each.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [1, 4])
def test_a_small_pointwise_convolution_is_the_same_product(side: int, bias: bool) -> None:
    torch.manual_seed(0)
    module, maps = nn.Conv2d(12, 20, 1, bias=bias), torch.randn(6, 12, side, side)
    with fast_convolutions(module, bf16=False):
        named = module(last(maps)).grad_fn
    assert named is not None
    assert "Permute" in named.name(), "it isn't a matrix product"
    for fast, plain in zip(results(module, maps), results(module, maps, plain=True), strict=True):
        torch.testing.assert_close(fast, plain)


def test_a_large_or_contiguous_map_is_convolved() -> None:
    module = nn.Conv2d(12, 20, 1)
    with fast_convolutions(module, bf16=False):
        for maps in (last(torch.randn(64, 12, 8, 8)), torch.randn(6, 12, 4, 4)):
            node = module(maps).grad_fn
            assert node is not None
            assert "Convolution" in node.name()


def test_large_products_are_of_bf16_numbers_summed_as_float32() -> None:
    torch.manual_seed(0)
    module, maps = nn.Conv2d(32, 32, 5, padding=2), torch.randn(16, 32, 8, 8)
    fast, plain = results(module, maps, bf16=True), results(module, maps, plain=True)
    assert not torch.equal(fast[0], plain[0])
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 2**-7, "bf16 has 8 bits"


def test_evaluations_and_small_layers_stay_float32() -> None:
    torch.manual_seed(0)
    large, small = nn.Conv2d(32, 32, 5, padding=2).eval(), nn.Conv2d(8, 8, 3)
    for module, maps in ((large, torch.randn(16, 32, 8, 8)), (small, torch.randn(4, 8, 8, 8))):
        assert torch.equal(results(module, maps, bf16=True)[0], results(module, maps, plain=True)[0])


class _Doubled(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        return 2 * super().forward(maps)


class _Absolute(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.abs()


def test_modules_with_ways_of_their_own_are_left_alone() -> None:
    torch.manual_seed(0)
    parametrized = nn.Conv2d(32, 32, 5)
    parametrize.register_parametrization(parametrized, "weight", _Absolute())
    circular = nn.Conv2d(32, 32, 5, padding=2, padding_mode="circular")
    for module in (_Doubled(32, 32, 5), parametrized, circular, nn.Conv2d(32, 32, 5, groups=32)):
        maps = torch.randn(16, 32, 8, 8)
        assert torch.equal(results(module, maps, bf16=True)[0], results(module, maps, plain=True)[0])
    double = nn.Conv2d(4, 4, 1).double()
    assert results(double, torch.randn(2, 4, 1, 1, dtype=torch.float64))[0].dtype == torch.float64


def test_afterwards_the_network_is_as_before() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1))
    before = [set(vars(each)) for each in module.modules()]
    with pytest.raises(RuntimeError), fast_convolutions(module, bf16=True):
        raise RuntimeError
    assert [set(vars(each)) for each in module.modules()] == before


@pytest.mark.parametrize(
    ("capabilities", "used"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_auto_asks_the_processor(capabilities: Mapping[str, bool], used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert may_use_bf16(TrainOptions(), _CPU) is used
    assert not may_use_bf16(TrainOptions(), torch.device("cuda"))
    assert may_use_bf16(TrainOptions(precision="bf16"), _CPU)
    assert not may_use_bf16(TrainOptions(precision="fp32"), _CPU)


def test_the_default_leaves_no_trace_in_a_config() -> None:
    assert "precision" not in TrainOptions().model_dump()
    assert TrainOptions(precision="fp32").model_dump()["precision"] == "fp32"


@pytest.mark.parametrize(("precision", "told"), [("bf16", {"training_precision": "bf16"}), ("fp32", {})])
def test_a_trial_tells_what_it_was_trained_with(precision: Literal["bf16", "fp32"], told: dict[str, str]) -> None:
    recipe = TrainOptions(precision=precision)
    assert (
        TrainEvaluator(TrainEvaluatorOptions(name="train"), load_data(DigitsOptions(name="digits")), recipe).details()
        == told
    )
