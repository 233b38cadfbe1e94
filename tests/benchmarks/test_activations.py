"""The parts of `benchmarks/activation_*.py` that judge: what they call equal, slower or unknown."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.benchmark_scripts import scripts

nets, parity, latency, networks = scripts("activation_nets", "activation_parity", "activation_latency", "networks")


def test_the_large_net_has_18_sites_and_about_600_000_parameters() -> None:
    network = nets.large_net("mish")
    assert sum(type(module) is nn.Mish for module in network.modules()) == 18
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(6e5, rel=0.05)


def test_a_network_is_equal_to_its_own_files() -> None:
    torch.manual_seed(0)
    network = nets.settled(nets.small_net("prelu_channel", 1), torch.randn(16, 1, 16, 16))
    found = parity.parity(network, torch.randn(12, 1, 16, 16), np.zeros(12))
    assert found.good, found
    assert found.images == 12


def test_another_network_s_file_is_not_equal() -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 1, 16, 16)
    one, other = (nets.settled(nets.small_net("relu", 1), images) for _ in range(2))
    with torch.inference_mode():
        expected = one(images).numpy()
    difference, changed, several = parity._held(parity.quick_graph(other, (1, 16, 16))[0], images.numpy(), expected)
    assert difference > 0.01
    assert several > 0.01
    assert changed > 0


def test_settling_leaves_the_network_alone_and_fits_the_copy() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1))
    copied = nets.settled(network, torch.full((2, 1, 2, 2), 3.0))
    assert network[0].running_mean.item() == 0
    assert copied[0].running_mean.item() == 3
    assert not copied.training


def test_deviation_is_relative_to_the_spread_of_the_outputs() -> None:
    wanted = np.array([[-2.0, 2.0]])
    assert networks.deviation(wanted + 1, wanted) == pytest.approx(0.5)


def test_rows_go_on_where_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert nets.read_rows(path) == nets.read_rows(None) == {}
    nets.write_rows(path, {"mish 32": {"relu_ms": 0.1}})
    assert nets.read_rows(path) == {"mish 32": {"relu_ms": 0.1}}


def test_what_is_slower_after_lowering_or_misses_its_goal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = {
        "plain": {"fp32": [20.0, 19, 21], "int8": [15.0, 14, 16]},
        "lowered": {"fp32": [2.5, 2.4, 2.6], "int8": [15.9, 15.8, 16.0]},
    }
    options = argparse.Namespace(activations=["mish"], sides=[224])
    latency.show({"mish 224": {"ratios": ratios}}, options)
    told = capsys.readouterr().out
    assert "20.00 → 2.50" in told
    assert "RESULT mish at 224²: 2.50 (2.40 to 2.60) (goal: at most 2.8)" in told
    assert "RESULT fp32, slower than before lowering: none" in told
    assert "RESULT int8, slower than before lowering: mish 224² 1.060" in told
