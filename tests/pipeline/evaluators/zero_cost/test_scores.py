"""Zero-cost scores: against networks small enough to work them out by hand, and what all of them must do."""

import copy
import csv
import gzip
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.activations import table as activations
from helpers.places import shared_data
from pipeline.config.evaluator import SCORE_NAMES
from pipeline.config.space import ConvNetOptions, NasBench201Options
from pipeline.errors import EvaluatorError
from pipeline.evaluators.zero_cost.codes import bends
from pipeline.evaluators.zero_cost.scores import SCORES, score_of
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.convnet_net import SqueezeExcitation
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.spaces.nasbench201_features import OPERATORS, parse
from pipeline.spaces.nasbench201_net import LABELS

LABELS_OF_8 = torch.arange(8) % 4
JITTER = 1e-5


def images(count: int = 8, *shape: int) -> Tensor:
    return torch.randn(count, *(shape or (3, 8, 8)), generator=torch.Generator().manual_seed(1))


def small(activation: str = "relu") -> nn.Module:
    """A convolution, batch norm, activation, residual path and head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        activations.create(activation, 6),
        nn.Conv2d(6, 5, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


def chain(*weights: Any, between: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers without bias, with a module after each but the last."""
    parts: list[nn.Module] = [nn.Flatten()]
    for rows in weights:
        matrix = torch.tensor(rows, dtype=torch.float32)
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layer.weight = nn.Parameter(matrix)
        parts += [layer, between()]
    return nn.Sequential(*parts[:-1])


@pytest.fixture(params=list(SCORES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class TestAll:
    def test_the_config_knows_their_names(self) -> None:
        assert tuple(SCORES) == SCORE_NAMES

    def test_leave_the_network_and_the_generator_as_they_were(self, name: str) -> None:
        network = small().eval()
        before = copy.deepcopy(network.state_dict())
        torch.manual_seed(5)
        drawn = torch.rand(3)
        torch.manual_seed(5)
        score_of(name, network, images(), LABELS_OF_8)
        assert (torch.rand(3) == drawn).all()
        assert all((before[key] == value).all() for key, value in network.state_dict().items())
        assert not any(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    def test_are_the_same_each_time(self, name: str) -> None:
        with_dropout = nn.Sequential(nn.Dropout(0.5), small())
        assert len({score_of(name, with_dropout, images(), LABELS_OF_8) for _ in range(3)}) == 1

    def test_work_within_no_grad(self, name: str) -> None:
        with torch.no_grad():
            inside = score_of(name, small(), images(), LABELS_OF_8)
        assert inside == score_of(name, small(), images(), LABELS_OF_8)

    @pytest.mark.parametrize("activation", [row for row in activations.names() if row != "identity"])
    def test_exist_with_any_activation(self, name: str, activation: str) -> None:
        assert math.isfinite(score_of(name, small(activation), images(), LABELS_OF_8))

    def test_as_shares_keep_the_order(self, name: str) -> None:
        sign = -1 if name == "jacob_cov" else 1
        values = [sign * 10.0**power for power in range(0, 12)][::sign]
        shares = [SCORES[name].share(value, 8) for value in values]
        assert shares == sorted(shares)
        assert len(set(shares)) == len(shares)
        assert all(0 <= share <= 1 for share in shares)

    @pytest.mark.parametrize("named", ["synflow", "naswot", "jacob_cov"])
    def test_a_network_that_sees_nothing_has_none(self, named: str) -> None:
        network = chain([[0.0] * 4] * 4, [[0.0] * 4] * 2)
        with pytest.raises(EvaluatorError, match=f"{named} of this network is (-inf|nan)"):
            score_of(named, network, images(8, 4), LABELS_OF_8 % 2)


class TestCounts:
    def test_by_hand(self) -> None:
        assert score_of("params", small(), images(), LABELS_OF_8) == (27 * 6 + 6) + 12 + (54 * 5 + 5) + (20 + 4)
        macs = 64 * 27 * 6 + 9 * 54 * 5 + 20
        assert score_of("macs", small(), images(), LABELS_OF_8) == macs

    def test_depthwise_convolutions(self) -> None:
        network = nn.Conv2d(4, 8, 3, groups=4, padding=1, bias=False)
        assert score_of("macs", network, images(2, 4, 5, 5), LABELS_OF_8[:2]) == 25 * 8 * 9

    @pytest.mark.parametrize("score", ["params", "macs"])
    def test_against_the_published_table(self, score: str) -> None:
        """The stem's batch norm and the head are in the published numbers, pooling is not."""
        space = NasBench201Space(NasBench201Options(name="nasbench201", cells=5), (3, 32, 32), 10)
        with gzip.open(shared_data("nasbench201.csv.gz"), "rt") as file:
            rows = [row for number, row in enumerate(csv.DictReader(file)) if number % 4000 == 1]
        for row in rows:
            cell = dict(zip(LABELS, (OPERATORS[op] for op in parse(row["arch_str"])), strict=True))
            found = score_of(score, space.build(space.canonical(cell)), images(2, 3, 32, 32), LABELS_OF_8[:2]) / 1e6
            published = float(row["params_m_cifar10" if score == "params" else "flops_m_cifar10"])
            assert found == pytest.approx(published, rel=1e-5 if score == "params" else 0.02)


class TestSynflow:
    def test_of_a_chain_of_single_units_is_the_product_of_its_weights(self) -> None:
        """Each of the three layers has the whole product, 2 · 3 · 0.5."""
        network = chain([[-2.0]], [[3.0]], [[-0.5]])
        assert score_of("synflow", network, images(2, 1), LABELS_OF_8[:2]) == pytest.approx(math.log(3 * 3.0))

    def test_of_two_layers_by_hand(self) -> None:
        """R = 1ᵀ |W₂| |W₁| 1: the columns of W₂ sum to 3 and 1, the rows of W₁ to 6 and 1.5; both layers have R."""
        network = chain([[1.0, -2.0, 3.0], [0.5, 0.5, -0.5]], [[-3.0, 1.0]])
        assert score_of("synflow", network, images(2, 3), LABELS_OF_8[:2]) == pytest.approx(math.log(2 * 19.5))

    def test_neither_signs_nor_norms_nor_activations_matter(self) -> None:
        weights: list[Any] = [[[1.0, -2.0], [3.0, 0.5]], [[2.0, -1.0], [1.0, 1.0]], [[1.0, 1.0]]]
        plain = score_of("synflow", chain(*weights), images(2, 2), LABELS_OF_8[:2])
        for between in (nn.Tanh, nn.SiLU, nn.Identity, lambda: nn.BatchNorm1d(2)):
            network = chain(*weights, between=between)  # type: ignore[arg-type]
            for module in network.modules():
                if isinstance(module, nn.BatchNorm1d):
                    nn.init.constant_(module.weight, 7.0)
                    module.running_var.fill_(0.01)  # type: ignore[union-attr, operator]
            assert score_of("synflow", network, images(2, 2), LABELS_OF_8[:2]) == pytest.approx(plain)

    def test_of_a_deep_network_is_beyond_a_float_but_finite(self) -> None:
        network = chain(*[[[20.0] * 4] * 4] * 60)
        expected = 60 * math.log(80) + math.log(4) + math.log(60)
        assert score_of("synflow", network, images(2, 4), LABELS_OF_8[:2]) == pytest.approx(expected)
        with pytest.raises(EvaluatorError, match=r"synflow of this network is (inf|nan)"):
            score_of("synflow", chain(*[[[1e30] * 4] * 4] * 12), images(2, 4), LABELS_OF_8[:2])

    def test_gates_stand_open(self) -> None:
        """Without that, each gate would square what flows."""
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), SqueezeExcitation(8)) for _ in range(12)]
        assert score_of("synflow", nn.Sequential(*blocks), images(2, 8, 8, 8), LABELS_OF_8[:2]) < 60

    def test_of_branches_adds_up(self) -> None:
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = chain([[2.0]]), chain([[-5.0]])

            def forward(self, x: Tensor) -> Tensor:
                return self.first(x) + self.second(x)

        assert score_of("synflow", Branches(), images(2, 1), LABELS_OF_8[:2]) == pytest.approx(math.log(7.0))


class TestNaswot:
    def test_kernel_by_hand(self) -> None:
        """Codes 10, 11, 00 agree in 2 on the diagonal, in 1, 1 and 0 beside it: the determinant is 4."""
        x = torch.tensor([[1.0, -1.0], [2.0, 3.0], [-1.0, -2.0]])
        network = nn.Sequential(nn.Flatten(), nn.ReLU())
        assert score_of("naswot", network, x, LABELS_OF_8[:3]) == pytest.approx(math.log(4))

    def test_sites_and_thresholds_add_up(self) -> None:
        """Two sites with the same codes double the kernel of three images: 8 times the determinant."""
        x = torch.tensor([[1.0, -1.0], [2.0, 3.0], [-1.0, -2.0]])
        twice = nn.Sequential(nn.Flatten(), nn.LeakyReLU(), nn.ReLU())
        assert score_of("naswot", twice, x, LABELS_OF_8[:3]) == pytest.approx(math.log(8 * 4))
        # Hardtanh bends at −1 and 1: of (−2, 0, 2) each pair of images agrees in one of two bits, the ends in none.
        middle = torch.tensor([[-2.0], [0.0], [2.0]])
        assert score_of("naswot", nn.Hardtanh(), middle, LABELS_OF_8[:3]) == pytest.approx(math.log(4))

    def test_images_that_are_coded_alike_have_none(self) -> None:
        with pytest.raises(EvaluatorError, match="naswot of this network is -inf"):
            score_of("naswot", nn.ReLU(), torch.ones(2, 3), LABELS_OF_8[:2])

    def test_a_network_without_activations_has_none(self) -> None:
        with pytest.raises(EvaluatorError, match="naswot of this network is nan"):
            score_of("naswot", nn.Linear(3, 2), torch.randn(2, 3), LABELS_OF_8[:2])

    @pytest.mark.parametrize(
        ("activation", "places"),
        [
            ("identity", []),
            ("relu", [0]),
            ("relu6", [0]),
            ("prelu_channel", [0]),
            ("gelu", [0]),
            ("silu", [0]),
            ("hardswish", [0]),
            ("softplus", [0]),
            ("elu", [-0.52]),
            ("hardtanh", [-1, 1]),
            ("hardsigmoid", [-1, 1]),
            ("tanh", [-0.73, 0.73]),
            ("sigmoid", [-1.0, 1.0]),
            ("squared_relu", [0.8]),
        ],
    )
    def test_where_activations_bend(self, activation: str, places: list[float]) -> None:
        assert bends(activations.create(activation, 4), 4) == pytest.approx(places, abs=0.01)


class TestGradients:
    def test_grad_norm_by_hand(self) -> None:
        """With equal weights of both classes the probabilities are ½: the gradient is Σ (½ − y) xᵀ / N."""
        network = chain([[0.0, 0.0], [0.0, 0.0]])
        x = torch.tensor([[3.0, 1.0], [1.0, -1.0]])
        row = 0.5 * (x[1] - x[0]) / 2  # of class 0, which the first image is; class 1 has the opposite
        expected = float((2 * (row**2).sum()).sqrt())
        assert score_of("grad_norm", network, x, torch.tensor([0, 1])) == pytest.approx(expected)

    def test_grad_norm_sums_layers(self) -> None:
        network = small()
        clone = copy.deepcopy(network).train()
        nn.functional.cross_entropy(clone(images()), LABELS_OF_8).backward()
        layers = [m for m in clone.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        expected = sum(float(layer.weight.grad.norm()) for layer in layers)  # type: ignore[union-attr]
        assert score_of("grad_norm", network, images(), LABELS_OF_8) == pytest.approx(expected, rel=1e-5)

    def test_jacob_cov_of_a_linear_network_is_the_lowest(self) -> None:
        """All gradients are the same: one eigenvalue is N, the others are 0."""
        network = chain([[1.0, 2.0, -1.0]])
        found = score_of("jacob_cov", network, images(4, 3), LABELS_OF_8[:4])
        expected = -(math.log(4 + JITTER) + 1 / (4 + JITTER)) - 3 * (math.log(JITTER) + 1 / JITTER)
        assert found == pytest.approx(expected, rel=1e-3)

    def test_jacob_cov_of_uncorrelated_gradients_is_the_highest(self) -> None:
        """The gradient of Σ x² is 2 x; these rows have the mean 0 and are at right angles."""

        class Squares(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.square().sum(1, keepdim=True)

        x = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0], [3.0, 3.0, -3.0, -3.0]])
        found = score_of("jacob_cov", Squares(), x, LABELS_OF_8[:3])
        assert found == pytest.approx(-3 * (math.log(1 + JITTER) + 1 / (1 + JITTER)))
        assert found == pytest.approx(-3, abs=1e-3)


def test_networks_of_the_space_have_all_scores(name: str) -> None:
    space = ConvNetSpace(ConvNetOptions(name="convnet", width=8), (1, 8, 8), 10)
    for rank in (0, space.size() // 2, space.size() - 1):
        torch.manual_seed(0)
        network = space.build(space.at(rank))
        assert math.isfinite(score_of(name, network, images(8, 1, 8, 8), LABELS_OF_8))
