"""`export.lower` and `export.export_model` called with something else than they take; what they call activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import export
from helpers.graphs import Node, X, assert_lowers_alike, between, graph_of, normal


@pytest.mark.parametrize(("given", "called"), [("x.onnx", "str"), (b"", "bytes"), (None, "NoneType")])
def test_lower_takes_a_model(given, called):
    with pytest.raises(TypeError, match=rf"lower takes an onnx.ModelProto, as onnx.load\(path\) .* not a {called}"):
        export.lower(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda x: x, "takes a torch.nn.Module, not a function"),
        (nn.ReLU, "takes a torch.nn.Module, not the class ReLU: make one of it"),
        (torch.relu, "takes a torch.nn.Module, not a builtin"),
        (None, "takes a torch.nn.Module, not a NoneType"),
    ],
    ids=["function", "class", "builtin", "nothing"],
)
def test_export_takes_a_module(given, said):
    with pytest.raises(TypeError, match=said):
        export.export_model(given, torch.zeros(1, 3))


def test_export_takes_an_opset_that_is_a_number():
    with pytest.raises(TypeError, match="opset must be a whole number, not '20'"):
        export.export_model(nn.ReLU(), torch.zeros(1, 3), opset="20")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slope", "name"),
    [
        (between(0.1, 0.9, 8, 1, 1), "prelu_channel"),
        (np.full((8, 1, 1), 0.25), "leaky_relu"),
        (np.array([0.25]), "leaky_relu"),
        (np.array([0.0]), "relu"),
    ],
)
def test_what_a_prelu_is_called(slope, name):
    nodes = [Node("Conv", ["x", "w"], ["c"], pads=[1] * 4), Node("PRelu", ["c", "slope"], ["z"])]
    found = assert_lowers_alike(graph_of(nodes, {"w": normal(8, 8, 3, 3, seed=3), "slope": slope}), X)
    assert [site.name for site in found.sites] == [name]


def test_what_other_activations_of_channels_are_called():
    nodes = [
        Node("Mul", ["x", "beta"], ["s"]),
        Node("Sigmoid", ["s"], ["g"]),
        Node("Mul", ["x", "g"], ["a"]),
        Node("Sigmoid", ["a"], ["b"]),
        Node("Mul", ["b", "beta"], ["z"]),
    ]
    found = assert_lowers_alike(graph_of(nodes, {"beta": between(0.5, 2.0, 8, 1, 1)}), X)
    assert [site.name for site in found.sites] == ["swish_beta", "scaled_sigmoid"]
