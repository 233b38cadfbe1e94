"""Every row of the table: what it computes, how it learns, and what becomes of it in a file."""

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import fx, nn

from export.activations import learnable
from export.activations import table as activations
from export.exporter.graph_builder import build_graph, cost_graph, quick_graph
from export.exporter.onnx_export import export_model
from helpers.nets import assert_same, conv_norm, histogram, images, onnx_outputs, randomise, torch_outputs

NAMES = activations.names()
LEARNABLE = [name for name in NAMES if activations.ACTIVATIONS[name].learnable]
CHANNELS = 6
EXTREMES = [-1e4, -100.0, -20.0, -3.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 3.0, 20.0, 100.0, 1e4]


def grid() -> torch.Tensor:
    """(1, channels, n, 1): each channel the same numbers, corners and extremes among them."""
    numbers = torch.cat([torch.linspace(-8, 8, 401), torch.tensor(EXTREMES)])
    return numbers.reshape(1, 1, -1, 1).repeat(1, CHANNELS, 1, 1)


def trained(name: str, seed: int = 1) -> nn.Module:
    """With parameters off their start, the same for a seed."""
    return randomise(activations.create(name, CHANNELS), seed)


# --- what it computes


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def below(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """The exponential branch of the linear units."""
    return alpha * np.expm1(np.minimum(x, 0))


def erf(x: np.ndarray) -> np.ndarray:
    return torch.special.erf(torch.from_numpy(x)).numpy()


def channelwise(values: np.ndarray) -> np.ndarray:
    return values.reshape(1, -1, 1, 1)


def hinges(x: np.ndarray, knots: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Piece by piece from the left, not as a sum of hinges."""
    y, at = slopes[0] * knots[0] + slopes[0] * np.minimum(x - knots[0], 0), knots
    for slope, start, end in zip(slopes[1:], at, [*at[1:], np.inf], strict=True):
        y = y + slope * np.clip(x - start, 0, end - start)
    return y


FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, below(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, below(x, 1.6732632423543772)),
    "celu": lambda x: np.maximum(x, 0) + below(x),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "squared_relu": lambda x: np.maximum(x, 0) ** 2,
    "prelu": lambda x, weight: np.where(x > 0, x, weight * x),
    "prelu_channel": lambda x, weight: np.where(x > 0, x, channelwise(weight) * x),
    "swish_beta": lambda x, beta: x * sigmoid(beta * x),
    "scaled_sigmoid": lambda x, scale, shift: scale * sigmoid(x) + shift,
    "acon": lambda x, p1, p2, beta: (
        channelwise(p1 - p2) * x * sigmoid(channelwise(beta * (p1 - p2)) * x) + channelwise(p2) * x
    ),
    "piecewise_linear": hinges,
    "pade": lambda x, numerator, denominator: (
        np.polyval(numerator[::-1], x) / (1 + np.abs(np.polyval([*denominator[::-1], 0], x)))
    ),
}


def test_the_formulas_are_of_the_whole_table() -> None:
    assert set(FORMULAS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [activations.create, lambda name, channels: trained(name)], ids=["fresh", "trained"])
def test_it_computes_its_formula(name, make):
    module = make(name, CHANNELS).double()
    x = grid().double()
    state = {key: value.detach().numpy() for key, value in module.named_parameters()}
    with torch.no_grad():
        found = module(x).numpy()
    wanted = FORMULAS[name](x.numpy(), **state)
    assert found.shape == x.shape
    assert torch.equal(x, grid().double()), "it works in place"
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_swish_is_silu_by_another_name():
    assert activations.resolve("swish") == "silu"
    assert type(activations.create("swish", 3)) is nn.SiLU
    assert "swish" not in NAMES


# --- how it learns


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [activations.create, lambda name, channels: trained(name)], ids=["fresh", "trained"])
def test_gradients_are_finite(name, make):
    module, x = make(name, CHANNELS), grid().requires_grad_()
    y = module(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("name", LEARNABLE)
def test_every_parameter_learns(name):
    module = activations.create(name, CHANNELS)
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    (module(images(4, CHANNELS)) * images(4, CHANNELS, seed=1)).sum().backward()
    for key, parameter in module.named_parameters():
        assert (parameter.grad != 0).all(), key
    optimizer.step()
    for key, value in module.state_dict().items():
        assert (value != before[key]).all(), key


def test_those_that_learn_are_marked():
    for name in NAMES:
        parameters = list(activations.create(name, CHANNELS).parameters())
        assert bool(parameters) == activations.ACTIVATIONS[name].learnable, name


@pytest.mark.parametrize("name", LEARNABLE)
def test_two_of_a_kind_share_nothing(name):
    one, two = activations.create(name, CHANNELS), activations.create(name, CHANNELS)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.fill_(7.0)
    assert not any((parameter == 7.0).any() for parameter in two.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_its_state_is_all_that_it_learnt(name, tmp_path):
    module, x = trained(name), images(2, CHANNELS)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    fresh = activations.create(name, CHANNELS)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(fresh(x), module(x))


@pytest.mark.parametrize("name", ["prelu_channel", "acon"])
def test_a_wide_one_uses_its_first_channels(name):
    wide, x = trained(name), images(2, 4)
    narrow = activations.create(name, 4)
    narrow.load_state_dict({key: value[:4] for key, value in wide.state_dict().items()})
    assert torch.equal(wide(x), narrow(x))
    assert_same(build_graph(nn.Sequential(wide), (4, 12, 12)), wide, x)


@pytest.mark.parametrize("name", NAMES)
def test_a_symbolic_trace_runs_for_any_rank(name):
    module = trained(name)
    traced = fx.symbolic_trace(module)
    for x in (images(2, CHANNELS), images(2, CHANNELS)[:, :, 0, 0]):
        assert torch.equal(traced(x), module(x))


def test_a_rational_function_starts_as_the_nearest_to_leaky_relu():
    x = np.linspace(-4, 4, 4001)
    leaky = np.where(x > 0, x, 0.01 * x)
    powers, weight = x[:, None] ** np.arange(6), np.ones_like(x)
    for _ in range(60):  # least squares of what is linear in the coefficients, weighed by the last denominator
        system = np.hstack([powers, -leaky[:, None] * powers[:, 1:5]])
        numerator, denominator = np.split(np.linalg.lstsq(system * weight[:, None], leaky * weight)[0], [6])
        weight = 1 / (1 + np.abs(powers[:, 1:5] @ denominator))
    module = learnable.Pade()
    np.testing.assert_allclose(module.numerator.detach(), numerator, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module.denominator.detach(), denominator, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        found = module(torch.from_numpy(x).float()).numpy()
    assert np.abs(found - leaky).max() < 0.051


# --- in a file


@pytest.mark.parametrize("name", NAMES)
def test_its_graph_computes_what_torch_computes(name):
    module = trained(name)
    x = torch.cat([grid(), 1e4 * (2 * torch.rand(1, CHANNELS, 414, 1, generator=torch.Generator().manual_seed(0)) - 1)])
    found = onnx_outputs(build_graph(nn.Sequential(module), tuple(x.shape[1:])), x)
    wanted = torch_outputs(module, x)
    assert (np.abs(found - wanted) <= 1e-6 * np.maximum(1, np.abs(wanted))).all()
    vector = randomise(nn.Sequential(nn.Flatten(), nn.Linear(8, CHANNELS), trained(name)))
    assert_same(build_graph(vector, (2, 2, 2)), vector, images(3, 2, 2))


class Fan(nn.Module):
    """Every activation between two convolutions, side by side: one export does for all."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict()
        for seed, name in enumerate(NAMES):  # of equal biases the exporter makes one, which no scale is folded into
            model = nn.Sequential(conv_norm(2, 6, 3), activations.create(name, 6), conv_norm(6, 3))
            self.branches[name] = randomise(model, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([branch(x) for branch in self.branches.values()], 1)


@pytest.fixture(scope="module")
def fan() -> tuple[Fan, onnx.ModelProto, np.ndarray]:
    """The network, its export, and what the export makes of images."""
    network = Fan().eval()
    exported = export_model(network, images(2, 2))
    return network, exported, onnx_outputs(exported, 3 * images(5, 2))


@pytest.mark.parametrize("name", NAMES)
def test_its_graph_is_that_of_the_exporter(name, fan):
    network, exported, outputs = fan
    model = network.branches[name]
    built = build_graph(model, (2, 12, 12))
    of_the_branch = [node for node in exported.graph.node if node.name.startswith(f"branches.{name}.")]
    assert [node.op_type for node in built.graph.node] == [node.op_type for node in of_the_branch]
    assert_same(built, model, 3 * images(5, 2))
    np.testing.assert_allclose(outputs[:, NAMES.index(name)], torch_outputs(model, 3 * images(5, 2)), 1e-4, 1e-5)


def test_every_node_of_the_export_belongs_to_an_activation(fan):
    paths = {node.name.split(".")[1] for node in fan[1].graph.node if node.name.startswith("branches.")}
    assert paths == set(NAMES)
    others = histogram(fan[1]) - Counter(n.op_type for n in fan[1].graph.node if n.name.startswith("branches."))
    assert set(others) <= {"Concat", "Unsqueeze"}


def test_options_of_the_modules_are_kept():
    model = nn.Sequential(nn.CELU(0.7), nn.Hardtanh(-0.5, 2.0), nn.ReLU6())
    assert_same(build_graph(model, (2, 4, 4)), model, 3 * images(3, 2, 4))
    onnx.checker.check_model(build_graph(model, (2, 4, 4)), full_check=True)


# --- before its training


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 16, 1), activations.create(name, 16), nn.Conv2d(16, 16, 1)).eval()


class TestUntrainedNetworks:
    """A network before its training is to cost what it costs afterwards, whatever is special about the start."""

    @pytest.mark.parametrize("name", LEARNABLE)
    def test_a_fresh_network_has_the_operators_of_a_trained_one(self, name):
        fresh, trained = network(name), network(name)
        with torch.no_grad():
            for parameter in trained[1].parameters():
                parameter.add_(0.05 * torch.rand_like(parameter) + 0.01)
        found, _ = cost_graph(fresh, (16, 8, 8))
        expected, _ = quick_graph(trained, (16, 8, 8))
        assert histogram(found) == histogram(expected)

    @pytest.mark.parametrize("name", LEARNABLE)
    def test_the_network_keeps_its_own_numbers(self, name):
        fresh = network(name)
        before = {key: value.clone() for key, value in fresh.state_dict().items()}
        with activations.as_if_trained(fresh):
            assert any(not torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
        assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())

    def test_also_after_an_error(self):
        fresh = network("swish_beta")
        with pytest.raises(RuntimeError), activations.as_if_trained(fresh):
            raise RuntimeError
        assert fresh[1].beta.item() == 1.0

    def test_other_weights_are_left_alone(self):
        fresh = network("swish_beta")
        weight = fresh[0].weight.clone()
        with activations.as_if_trained(fresh):
            assert torch.equal(fresh[0].weight, weight)


# --- its row


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_all_in_one_line(name):
    row = activations.ACTIVATIONS[name]
    assert row.name == name
    assert row.description.startswith(row.formula)
    assert ("learnable" in row.description) == row.learnable
    assert row.description.endswith(row.cost)
    assert row.reference
    assert "\n" not in row.description
