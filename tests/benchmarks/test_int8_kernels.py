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
    if "no matrix product" in row.refusal:
        return
    assert not row.refusal
    assert not row.wrong
    assert row.runs["checked"].steps <= 1
    assert all(run.share < 1 for run in row.runs.values())


def test_a_difference_is_counted_in_steps():
    assert kernels.largest_in_steps(np.array([0.0, 0.5]), np.array([0.0, 0.3]), 0.1) == pytest.approx(2, abs=0.01)
    assert kernels.largest_in_steps(np.array([np.nan]), np.array([0.3]), 0.1) == np.inf


def test_an_output_s_own_distance_from_float_is_the_measure():
    plain, said = np.array([0.0, 1.0]), np.array([0.0, 0.6])
    run = kernels.compared(np.array([0.0, 0.8]), said, plain, 0.1)
    assert (run.beyond, run.values) == (1, 2)
    assert run.steps == pytest.approx(2, abs=0.01)
    assert run.share == pytest.approx(0.5, abs=0.01)


def test_runs_are_taken_together():
    one = kernels.Run(0.5, 0, 10, 0.0, (), 1, 100)
    other = kernels.Run(2.5, 3, 10, 0.4, ("Conv",), 2, 200)
    assert kernels.together([one, other]) == kernels.Run(2.5, 3, 20, 0.4, ("Conv",), 3, 300)
