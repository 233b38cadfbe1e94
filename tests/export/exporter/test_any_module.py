"""`export.export_model` as a plain call: networks of other people's making, and modules that can't be exported."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export
from export.errors import ExportError
from helpers.nets import histogram, onnx_outputs, randomise, torch_outputs
from pipeline.shims import import_torchvision


def mobilenet_v3(nets: Any) -> nn.Module:
    settings = [(16, 3, 16, 16, True, "RE", 2, 1, 1.0), (16, 5, 48, 24, True, "HS", 2, 1, 1.0)]
    settings += [(24, 3, 64, 24, False, "HS", 1, 1, 1.0)]  # the one with a shortcut
    return nets.MobileNetV3([nets.mobilenetv3.InvertedResidualConfig(*each) for each in settings], 64, num_classes=7)


NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "mobilenet_v3": mobilenet_v3,
    "resnet": lambda nets: nets.ResNet(nets.resnet.BasicBlock, [2, 1, 1, 1], num_classes=7),
    "shufflenet_v2": lambda nets: nets.ShuffleNetV2([2, 1, 1], [24, 24, 48, 96, 128], num_classes=7),
    "squeezenet1_1": lambda nets: nets.squeezenet1_1(weights=None, num_classes=7),
}
"""Torchvision's classes with every kind of block, but few of each: an export takes as long as there are layers."""


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    network = randomise(NETWORKS[name](import_torchvision().models)).train()
    graph = export.export_model(network, torch.randn(1, 3, 64, 64), metadata={"classes": json.dumps(["a"] * 7)})
    assert network.training
    for batch in (1, 5):
        images = torch.randn(batch, 3, 64, 64)
        expected = torch_outputs(network, images)
        assert np.abs(onnx_outputs(graph, images) - expected).max() <= 1e-5 * np.abs(expected).max()
    operators = histogram(graph)
    assert operators["BatchNormalization"] == operators["ReduceMean"] == 0
    assert operators["GlobalAveragePool"] >= 1
    assert {entry.key: json.loads(entry.value) for entry in graph.metadata_props} == {"classes": ["a"] * 7}
    assert_readable(graph, network)


def assert_readable(graph: onnx.ModelProto, network: nn.Module) -> None:
    """Every name tells a module or a parameter; none is one of the exporter's counters."""
    nodes = graph.graph.node
    modules = {path for path, _ in network.named_modules()}
    assert all(node.name.rpartition("/")[0] in modules for node in nodes)
    values = {value for node in nodes for value in node.output} - {"logits"}
    assert all(re.fullmatch(r"(.+/)?[A-Z]\w+_output(_\d+)?", value) for value in values)
    stored = {tensor.name for tensor in graph.graph.initializer}
    parameters = {name for name, _ in network.named_parameters()}
    others = {name for name in stored - parameters if not re.search(r"_constant_\d+$", name)}
    # Folded batch norms leave a bias to convolutions that have none of their own.
    assert {name.removesuffix(".bias") for name in others} <= modules


class Plain(nn.Module):
    """What it does is given."""

    def __init__(self, forward: Callable[..., object]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self._forward = forward

    def forward(self, *inputs: torch.Tensor) -> object:
        return self._forward(self, *inputs)


def _loops(self: Plain, x: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        x = self.linear(x)
    return x


def _looks(self: Plain, x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.sum() > 0 else x


def _needs_two(self: Plain, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def test_a_loop_with_shared_weights() -> None:
    model = Plain(_loops)
    graph = export.export_model(model, torch.randn(1, 4))
    assert [node.name for node in graph.graph.node] == ["linear/Gemm", "linear/Gemm_1", "linear/Gemm_2"]
    x = torch.randn(5, 4)
    np.testing.assert_allclose(onnx_outputs(graph, x), torch_outputs(model, x), atol=1e-6)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda self, x: (x, x + 1), "a tuple of 2 tensors, not one tensor"),
        (lambda self, x: {"a": x, "b": x}, "a dict of 2 tensors, not one tensor"),
        (lambda self, x: 3, "a int, not one tensor"),
        (lambda self, x: x.mean(), "its first dimension isn't the batch"),
        (_needs_two, "missing 1 required positional argument"),
        (lambda self, x: self.linear(x[:, :3]), r"can't be run on an input of shape \(2, 4\): mat1"),
        (_looks, "torch can't export Plain: Could not guard on data-dependent expression"),
    ],
    ids=["tuple", "dict", "number", "loss", "two inputs", "shapes", "control flow"],
)
def test_networks_that_cannot_be_exported(
    forward: Callable[..., object], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Plain(forward).train()
    with pytest.raises(ExportError, match=words) as info:
        export.export_model(model, torch.randn(2, 4))
    assert "\n" not in str(info.value)
    assert model.training
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("example", [None, [1.0], torch.tensor(1.0), torch.zeros(0, 4)], ids=str)
def test_examples_that_are_none(example: object) -> None:
    with pytest.raises(ExportError, match="the example input must be one tensor"):
        export.export_model(nn.Linear(4, 4), example)  # type: ignore[arg-type]


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
def test_export_takes_a_module(given: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        export.export_model(given, torch.zeros(1, 3))  # type: ignore[arg-type]


def test_export_takes_an_opset_that_is_a_number() -> None:
    with pytest.raises(TypeError, match="opset must be a whole number, not '20'"):
        export.export_model(nn.ReLU(), torch.zeros(1, 3), opset="20")  # type: ignore[arg-type]
