"""Small networks of the kinds that searches freeze, and how the tests run and compare their graphs."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from export import onnx_file
from export.activations import learnable
from export.activations import table as activations
from export.exporter.graph_builder import build_graph
from export.preprocessing import Preprocessing


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms and slopes the look of trained ones: fresh ones hide mistakes in folding."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.uniform_(-0.3, 0.3, generator=generator)
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.05, 0.4, generator=generator)
            elif type(module).__module__ == learnable.__name__:
                for parameter in module.parameters():
                    parameter.add_(torch.rand(parameter.shape, generator=generator) / 8 + 0.01)
    return model


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(channels // 4, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, activation: str) -> None:
        super().__init__()
        self.expand = conv_norm(inputs, 2 * inputs)
        self.activation = activations.create(activation, 2 * inputs)
        self.depthwise = conv_norm(2 * inputs, 2 * inputs, 3, stride, groups=2 * inputs)
        self.squeeze = SqueezeExcitation(2 * inputs)
        self.project = conv_norm(2 * inputs, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.squeeze(self.depthwise(self.activation(self.expand(x)))))
        return x + y if self.residual else y


class Mobile(nn.Module):
    """Everything at once: a norm before any convolution, residuals, gates, pools, a mean as the head."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels)
        self.stem = conv_norm(channels, 8, 3)
        self.first = Inverted(8, 8, 1, "hardswish")
        self.second = Inverted(8, 12, 2, "silu")
        self.max_pool = nn.MaxPool2d(3, 1, padding=1)
        self.average_pool = nn.AvgPool2d(2, 1, padding=1)
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(12, 16, bias=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(self.stem(self.normalise(x))))
        x = self.dilated(self.average_pool(self.max_pool(x))) * 0.5
        x = torch.relu(x + 1)
        return self.head(self.drop(self.hidden(x.mean([2, 3]))))


class Chain(nn.Module):
    """Every activation of the table, each after a convolution of its own."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stem = conv_norm(channels, 8, 3)
        self.links = nn.ModuleDict(
            {name: nn.Sequential(conv_norm(8, 8), activations.create(name, 8)) for name in activations.names()}
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for link in self.links.values():
            x = link(x)
        return self.head(self.flatten(self.pool(x)))


def images(batch: int, channels: int = 3, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def torch_outputs(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(x).numpy()


def onnx_outputs(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    return onnx_file.run(onnx_file.open_session(model.SerializeToString()), x.numpy())


def assert_same(graph: onnx.ModelProto, model: nn.Module, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(onnx_outputs(graph, x), torch_outputs(model, x), atol=tolerance, rtol=1e-4)


def histogram(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def forms(graph: onnx.ModelProto) -> dict[str, tuple[str, dict[str, object]]]:
    """Node name → operator and those attributes that change what an activation computes."""
    return {
        node.name: (
            node.op_type,
            {
                item.name: onnx.helper.get_attribute_value(item)
                for item in node.attribute
                if item.name in ("alpha", "beta", "gamma", "approximate") and node.op_type != "Gemm"
            },
        )
        for node in graph.graph.node
    }


PREPROCESSING = Preprocessing(channels=1, height=8, width=8, scale=1 / 16, mean=(0.3,), std=(0.5,))


def digits_like(count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 17, (count, 8, 8, 1), dtype=np.uint8)


def digits_net() -> nn.Module:
    torch.manual_seed(0)
    return randomise(nn.Sequential(conv_norm(1, 8, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(512, 10))).eval()


def bundle_parts(network: nn.Module) -> dict[str, Any]:
    """Arguments of `write_bundle` for a network of digits, all but the manifest."""
    raw, inputs = digits_like(), PREPROCESSING.apply(digits_like())
    outputs = torch_outputs(network, torch.from_numpy(inputs))
    return {"model": build_graph(network, (1, 8, 8)), "inputs": inputs, "outputs": outputs, "raw_inputs": raw}
