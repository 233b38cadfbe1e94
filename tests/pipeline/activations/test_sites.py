"""What is found out about the activations of a trained network, and what their twins with relu differ in."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from export.activations.emitters import plain
from export.activations.modules import sites_of
from export.exporter.graph_builder import quick_graph
from helpers.instant import config_of, space_of
from latency_models.devices.device import Device
from latency_models.timing.statistics import Ratio
from pipeline.activations.costs import activation_costs, with_relu
from pipeline.activations.facts import (
    EVERYWHERE,
    FILE,
    FORMAT,
    ActivationFacts,
    ActivationFileError,
    Costs,
    Effect,
    Effects,
    PlaceCost,
    Sites,
    read,
    write,
)
from pipeline.activations.places import name_of, places_of
from pipeline.activations.sites import images_for, sites_facts
from pipeline.costs.target import Target
from pipeline.spaces.base import Architecture, SearchSpace, activations_of


def space(**options: Any) -> SearchSpace:
    return space_of(config_of({"name": "random"}, 30, **options))


def with_activations(of: SearchSpace, *names: str) -> Architecture:
    """An architecture of the space with these activations at its places, one after the other."""
    architecture = of.at(of.size() - 1)
    labels = [label for label in architecture if label.endswith("activation")]
    return {**architecture, **{label: names[n % len(names)] for n, label in enumerate(labels)}}


def images(shape: tuple[int, ...] = (1, 8, 8), count: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *shape, generator=generator), torch.randint(10, (count,), generator=generator)


class TestPlaces:
    @pytest.mark.parametrize("scope", ["network", "stage", "block"])
    def test_every_chosen_activation_is_found_and_no_fixed_one(self, scope: str) -> None:
        of = space(activations=["relu", "silu", "gelu", "gelu_tanh"], activation_scope=scope)
        architecture = with_activations(of, "gelu_tanh", "relu", "silu")
        network = of.build(architecture)
        chosen, places = activations_of(architecture), places_of(of, architecture)
        assert set(places.values()) == set(chosen)
        fixed = [path for path in sites_of(network) if path not in places]
        assert all(part in " ".join(fixed) for part in ("stem", "attention"))
        for path, place in places.items():
            assert name_of(network.get_submodule(path), 8) == chosen[place]
            assert scope == "network" or path.startswith(f"stages.{place.removeprefix('stage')[0]}.")

    def test_a_space_with_one_activation_tells_its_places_too(self) -> None:
        of = space(activations=["hardswish"], activation_scope="stage", depths=[1])
        places = places_of(of, of.at(0))
        assert set(places.values()) == {"stage0", "stage1", "stage2"}
        assert {choice.values for choice in of.choices if "activation" in choice.label} == {("hardswish",)}

    def test_torch_draws_as_if_nothing_had_been_built(self) -> None:
        of = space(activation_scope="network")
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        places_of(of, of.at(0))
        assert torch.equal(torch.rand(3), expected)


class FakeMeter:
    """Says that each twin takes 0.9 of the network's time, and keeps what it was shown."""

    def __init__(self) -> None:
        self.models: list[bytes] = []
        self.device = Device()

    def measure_together(self, models: list[bytes], *, budget_s: float) -> Any:
        self.models, self.budget_s = models, budget_s
        found = type("Latency", (), {"latency_ms": 2.0, "warnings": ("noisy",)})()
        ratios = (Ratio(1.0, 1.0, 1.0), *(Ratio(0.9, 0.88, 0.92) for _ in models[1:]))
        return type("Together", (), {"latencies": (found,) * len(models), "ratios": ratios})()


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


class TestCosts:
    def costs(self, *names: str, scope: str = "stage") -> tuple[Costs, FakeMeter, nn.Module, dict[str, str]]:
        of = space(activations=["relu", "tanh", "silu"], activation_scope=scope, depths=[1], squeeze_excitation=[False])
        architecture = with_activations(of, *names)
        network, places, meter = of.build(architecture).eval(), places_of(of, architecture), FakeMeter()
        found = activation_costs(network, (1, 8, 8), activations_of(architecture), places, Target(meter))  # type: ignore[arg-type]
        return found, meter, network, places

    def test_a_twin_differs_at_its_place_alone(self) -> None:
        _, meter, _, places = self.costs("tanh", "silu", "relu")
        before, at_stage0, at_stage1, everywhere = map(operators, meter.models)
        stage0, stage1 = (sum(place == name for place in places.values()) for name in ("stage0", "stage1"))
        assert (before.count("Tanh"), before.count("Sigmoid")) == (stage0, stage1)
        assert (at_stage0.count("Tanh"), at_stage0.count("Sigmoid")) == (0, stage1)
        assert (at_stage1.count("Tanh"), at_stage1.count("Sigmoid")) == (stage0, 0)
        assert (everywhere.count("Tanh"), everywhere.count("Sigmoid")) == (0, 0)
        weights = [
            {i.name: i.raw_data for i in onnx.load_from_string(m).graph.initializer if len(i.dims) == 4}
            for m in meter.models
        ]
        assert weights[0] == weights[1] == weights[2] == weights[3] != {}

    def test_the_network_is_as_it_was(self) -> None:
        *_, network, places = self.costs("tanh", "silu", "relu")
        found = {place: name_of(network.get_submodule(path), 8) for path, place in places.items()}
        assert found == {"stage0": "tanh", "stage1": "silu", "stage2": "relu"}

    def test_also_where_its_graph_can_not_be_built(self) -> None:
        network = nn.Sequential(nn.Tanh())
        seen: list[nn.Module] = []
        with suppress(ZeroDivisionError), with_relu(network, ["0"]):
            seen.append(network[0])
            raise ZeroDivisionError
        assert isinstance(seen[0], nn.ReLU)
        assert isinstance(network[0], nn.Tanh)

    def test_ratios_become_milliseconds(self) -> None:
        found, meter, *_ = self.costs("tanh", "silu", "relu")
        assert found.latency_ms == 2.0
        assert found.warnings == ("noisy",)
        by_place = {cost.place: cost for cost in found.places}
        assert by_place.keys() == {"stage0", "stage1", "stage2", EVERYWHERE}
        assert by_place["stage0"].cost_ms == pytest.approx(0.2)
        assert by_place["stage0"].cost_low_ms == pytest.approx(0.16)
        assert by_place["stage0"].cost_high_ms == pytest.approx(0.24)
        assert by_place["stage0"].is_significant
        assert by_place["stage2"] == PlaceCost("stage2", "relu", missing="relu itself")
        assert meter.budget_s <= 15.0

    def test_nothing_is_timed_where_all_is_relu(self) -> None:
        found, meter, *_ = self.costs("relu")
        assert meter.models == []
        assert [cost.missing for cost in found.places] == ["relu itself"] * 3

    def test_a_place_without_known_modules_says_so(self) -> None:
        of = space(activation_scope="network", activations=["silu"])
        found = activation_costs(of.build(of.at(0)), (1, 8, 8), {"network": "silu"}, {}, Target(FakeMeter()))  # type: ignore[arg-type]
        assert "doesn't tell which modules" in found.places[0].missing


class Net(nn.Module):
    """Convolution, activation, mean, linear head."""

    def __init__(self, activation: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, channels, 3), activation
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def one_site(network: nn.Module, start: nn.Module | None = None, **options: Any) -> Any:
    found = sites_facts(network.eval(), start or network, {}, *images(**options))
    (site,) = found.sites
    return site


class TestSites:
    def test_a_dead_channel_and_a_half_dead_one_of_relu(self) -> None:
        network = Net(nn.ReLU())
        with torch.no_grad():
            network.conv.weight[0], network.conv.bias[0] = 0.0, -1.0  # type: ignore[index]
            network.conv.weight[1], network.conv.bias[1] = 0.0, 1.0  # type: ignore[index]
        site = one_site(network)
        assert (site.path, site.place, site.activation, site.units, site.dead) == ("act", "", "relu", 4, 1)
        with torch.no_grad():
            positive = (network.conv(images()[0]) > 0).double().mean()
        assert site.saturated == pytest.approx(1 - positive)
        assert site.gradient > 0

    def test_a_saturated_sigmoid(self) -> None:
        network = Net(nn.Sigmoid())
        with torch.no_grad():
            network.conv.weight.mul_(0.01)
            network.conv.bias.copy_(torch.tensor([0.0, 8.0, -8.0, 1.0]))  # type: ignore[union-attr]
        site = one_site(network)
        assert (site.saturated, site.dead) == (0.5, 2)
        assert 0.0 < site.gain < 0.25

    def test_leaky_relus_slope_is_no_saturation(self) -> None:
        site = one_site(Net(nn.LeakyReLU(0.01)))
        assert (site.saturated, site.dead) == (0.0, 0)

    def test_the_inputs_are_described_as_they_are(self) -> None:
        network = Net(nn.Tanh())
        site = one_site(network)
        with torch.no_grad():
            x = network.conv(images()[0])
        assert (site.mean, site.std) == pytest.approx((float(x.mean()), float(x.std(correction=0))), abs=1e-5)
        assert site.percentile_50 == pytest.approx(float(x.median()), abs=1e-3)
        assert len(site.edges) == len(site.shares) + 1
        assert sum(site.shares) == pytest.approx(0.99, abs=0.01)

    def test_the_gain_of_an_identity_that_was_chosen_is_1(self) -> None:
        found = sites_facts(Net(nn.Identity()).eval(), Net(nn.Identity()), {"act": "network"}, *images())
        assert found.sites[0].gain == pytest.approx(1.0)
        assert sites_facts(Net(nn.Identity()).eval(), Net(nn.Identity()), {}, *images()).missing != ""

    def test_batches_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = Net(nn.SiLU())
        whole = one_site(network)
        monkeypatch.setattr("pipeline.activations.sites.BATCH_PIXELS", 7 * 64)
        parts = one_site(network)
        for name in ("mean", "std", "gradient", "gain", "saturated", "percentile_99"):
            assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4)
        assert parts.dead == whole.dead

    def test_parameters_start_and_end(self) -> None:
        start, network = Net(nn.PReLU(4)), Net(nn.PReLU(4))
        with torch.no_grad():
            network.act.weight.copy_(torch.tensor([0.1, 0.2, 0.3, 0.8]))  # type: ignore[operator, union-attr]
        (learnt,) = one_site(network, start).learnt
        assert (learnt.name, learnt.count, learnt.start) == ("weight", 4, 0.25)
        assert (learnt.learnt, learnt.low, learnt.high) == pytest.approx((0.35, 0.1, 0.8))

    def test_a_curve_shows_what_each_channel_does(self) -> None:
        network = Net(nn.PReLU(4))
        with torch.no_grad():
            network.act.weight.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # type: ignore[operator, union-attr]
        curve = one_site(network).curve
        assert curve.x[0] < 0 < curve.x[-1]
        assert (curve.y[0], curve.y_low[0], curve.y_high[0]) == pytest.approx(
            (curve.x[0] / 4, curve.x[0], 0.0), rel=1e-4
        )
        assert (curve.slope[0], curve.slope[-1]) == pytest.approx((0.25, 1.0))

    def test_someone_elses_activation_that_mixes_channels_has_no_curve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("export.activations.table.EMITTERS", {nn.Softmax: plain("Softmax")})
        site = one_site(Net(nn.Softmax(dim=1)))
        assert (site.activation, site.saturated, site.dead, site.curve) == ("Softmax", None, None, None)
        assert "depend on more" in site.missing

    @pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.Hardswish(inplace=True)])
    def test_one_that_works_in_place(self, activation: nn.Module) -> None:
        twin = type(activation)()
        torch.manual_seed(0)
        network = Net(activation)
        torch.manual_seed(0)
        plain = Net(twin)
        assert replace(one_site(network), kind="") == replace(one_site(plain), kind="")

    def test_a_network_keeps_its_weights_gradients_and_hooks(self) -> None:
        network = Net(nn.ReLU())
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        one_site(network)
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert quick_graph(network, (1, 8, 8))[1] == "builder"

    def test_all_sites_of_a_candidate_in_order(self) -> None:
        of = space(activations=["relu", "prelu"], activation_scope="stage", depths=[2])
        architecture = with_activations(of, "prelu", "relu")
        places = places_of(of, architecture)
        found = sites_facts(of.build(architecture).eval(), of.build(architecture), places, *images())
        assert found.images == 40
        assert found.sites[0].path.startswith("stem")
        assert {site.place for site in found.sites} == {"", "stage0", "stage1", "stage2"}
        assert all(bool(site.learnt) == (site.activation == "prelu") for site in found.sites)

    @pytest.mark.parametrize(
        ("count", "side", "expected"), [(1, 8, 1), (100, 8, 100), (5000, 8, 256), (5000, 224, 41), (5000, 1000, 32)]
    )
    def test_images_are_evenly_taken_and_fewer_where_they_are_large(self, count: int, side: int, expected: int) -> None:
        chosen = images_for(count, side, side)
        assert len(chosen) == expected
        assert (chosen[0], chosen[-1]) == (0, count - 1)


def facts() -> ActivationFacts:
    effects = Effects("relu", 9, 9, 1, (Effect("silu", "network", 4, 0.01, -0.01, 0.03),), (), "", "9 are too few")
    costs = Costs(0.5, (PlaceCost("network", "silu", 0.9, 0.8, 1.01, 0.05, -0.005, 0.1),), ("noisy",))
    network = Net(nn.PReLU())
    sites = sites_facts(network.eval(), network, {"act": "network"}, *images())
    return ActivationFacts(FORMAT, "0", "abc", "def", effects, costs, sites)


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        known = facts()
        write(tmp_path, known)
        assert read(tmp_path, "abc", "def") == known

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda text: None, "there is no activations.json"),
            (lambda text: text[:-9], "damaged"),
            (lambda text: text.replace('"format":1', '"format":2'), "format 2"),
            (lambda text: text.replace('"abc"', '"xyz"'), "xyz"),
            (lambda text: text.replace('"sites"', '"siites"'), "damaged"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, damage: Callable[[str], str | None], reason: str) -> None:
        write(tmp_path, facts())
        changed = damage((tmp_path / FILE).read_text(encoding="utf-8"))
        (tmp_path / FILE).unlink()
        if changed is not None:
            (tmp_path / FILE).write_text(changed, encoding="utf-8")
        with pytest.raises(ActivationFileError, match=reason):
            read(tmp_path, "abc", "def")


def test_told_means_that_the_interval_leaves_out_nothing() -> None:
    assert Effect("silu", "network", 4, 0.01, 0.001, 0.03).is_significant
    assert not Effect("silu", "network", 4, 0.01, -0.001, 0.03).is_significant
    assert PlaceCost("a", "silu", 0.9, 0.8, 0.99).is_significant
    assert not PlaceCost("a", "silu", 0.9, 0.8, 1.01).is_significant
    assert not PlaceCost("a", "relu", missing="relu itself").is_significant
    assert Sites(0, (), "why").sites == ()
