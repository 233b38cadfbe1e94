"""`benchmarks/int8_kernels.py`: its networks are valid and runs of a seed equal; a few of them, judged."""

import numpy as np
import onnx
import pytest

from helpers.benchmark_scripts import scripts

nets, kernels = scripts("int8_nets", "int8_kernels")


@pytest.mark.parametrize("number", range(8))
def test_a_network_is_valid_and_its_seed_s_own(number):
    net = nets.random_net(5, number)
    onnx.checker.check_model(net.model, full_check=True)
    again = nets.random_net(5, number)
    assert net.model == again.model
    assert np.array_equal(net.inputs, again.inputs)


@pytest.mark.parametrize("number", range(24))
def test_a_file_gives_what_its_graph_says(number):
    row = kernels.judged(nets.random_net(5, number))
    assert "no matrix product" in row.refusal or (row.steps is not None and row.steps <= 1)


def test_a_difference_is_counted_in_steps():
    assert kernels.largest_in_steps(np.array([0.0, 0.5]), np.array([0.0, 0.3]), 0.1) == pytest.approx(2, abs=0.01)
    assert kernels.largest_in_steps(np.array([np.nan]), np.array([0.3]), 0.1) == np.inf
