"""INT8 of a resnet-like and of mobile-like networks: what is tried, what is chosen, whether it is kept, and why.

A finished study, not maintained. Found: INT8 takes .33 of fp32's time in a resnet-like net, .65 in a mobile-like one
with relu, .93 with hardswish, .95 with silu; all were kept. The table is in benchmarks/README.md.

Each network is trained shortly on 10,000 images of Fashion-MNIST and exported; then the form of its INT8 file is
searched as at the end of a search for an fp32 device: kept only if measured faster and accurate enough.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

from activation_nets import convolution, mobile_net
from common import SHARED, interval, summary, table
from networks import parameters
from options import SEED, amount, begin, option, positive
from torch import nn

from export.checks import accuracy
from export.exporter.onnx_export import export_model
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter
from pipeline.config.file import parse_config
from pipeline.data import load_data
from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.training import train
from pipeline.winner.int8 import try_int8

WIDTH = 32


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with relu and a shortcut; (N, before, H, W) → (N, after, H/stride, W/stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(before, after, 3, stride)
        self.second = convolution(after, after, 3)
        self.shortcut = nn.Identity() if stride == 1 and before == after else convolution(before, after, 1, stride)
        self.inner, self.outer = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.outer(self.shortcut(x) + self.second(self.inner(self.first(x))))
        return result


def resnet_like(classes: int) -> nn.Module:
    """Six residual blocks in three stages; 1 channel in."""
    widths = [(WIDTH, WIDTH, 1), (WIDTH, WIDTH, 1), (WIDTH, 2 * WIDTH, 2), (2 * WIDTH, 2 * WIDTH, 1)]
    widths += [(2 * WIDTH, 4 * WIDTH, 2), (4 * WIDTH, 4 * WIDTH, 1)]
    blocks = [ResidualBlock(*each) for each in widths]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * WIDTH, classes)]
    return nn.Sequential(convolution(1, WIDTH, 3), nn.ReLU(), *blocks, *head)


def mobile_like(activation: str) -> nn.Module:
    """Seven inverted blocks in four stages; 1 channel in, 10 classes."""
    half, whole = WIDTH // 2, WIDTH
    widths = [(half, half, 1), (half, whole, 2), (whole, whole, 1), (whole, 2 * whole, 2), (2 * whole, 2 * whole, 1)]
    widths += [(2 * whole, 3 * whole, 2), (3 * whole, 3 * whole, 1)]
    return mobile_net(widths, activation, activation, 1, expansion=4, top=8 * WIDTH, stride=1)


def main() -> None:
    options = begin(
        __doc__,
        positive("--epochs", 5, "of each network"),
        option("--activations", ["relu", "hardswish", "silu"], "of the mobile-like", nargs="+"),
        amount("--max-loss", 0.01, "accuracy that may be lost"),
        SEED,
    )
    torch.set_num_threads(1)
    section = {"name": "fashion_mnist", "root": str(SHARED / "data"), "train_samples": 10_000}
    config = parse_config({"data": section, "space": {"name": "convnet"}}, "the benchmark")
    data, meter = load_data(config.data), LatencyMeter(Device())
    classes = len(data.classes)
    networks = {"resnet-like, relu": partial(resnet_like, classes)}
    networks |= {f"mobile-like, {name}": partial(mobile_like, name) for name in options.activations}
    rows = []
    for name, build in networks.items():
        torch.manual_seed(options.seed)
        network = build()
        print(f"training {name}: {parameters(network):,} parameters, {options.epochs} epochs", flush=True)
        train(network, DeviceData(data), config.train, epochs=options.epochs)
        rows.append(judged(network.cpu(), name, data, meter, options.max_loss))
    table(rows)


def judged(network: nn.Module, name: str, data: Any, meter: LatencyMeter, max_loss: float) -> dict[str, str]:
    """Prints all attempts; gives the row of the final table."""
    graph = export_model(network.eval(), torch.zeros(2, *data.input_shape))
    began = time.monotonic()
    int8 = try_int8(graph, data, meter, max_loss)
    seconds, facts = time.monotonic() - began, int8.facts
    plain = graph.SerializeToString()
    print(f"\n{name}: {parameters(network):,} parameters, {seconds:.0f} s")
    if facts.get("tried"):
        table([attempt_row(attempt) for attempt in facts["tried"]])
    test, words = data.load_test(), "kept" if int8.model else "not kept"
    images = data.preprocessing.apply(test.images)
    before = accuracy(plain, images, test.labels)
    after = accuracy(int8.model, images, test.labels) if int8.model else None
    found = f"{words}: {facts['reason']}"
    if after is not None:
        found += f"; test accuracy {after:.4f} against {before:.4f}"
    summary(name, found, f"faster than fp32, at most {max_loss:g} of validation accuracy lost, or not kept")
    return {
        "network": name,
        "kept": "yes" if int8.model else "no",
        "latency ratio": interval(*(facts[f"latency_ratio{end}"] for end in ("", "_low", "_high")), form=".3f"),
        "validation": f"{facts['accuracy_validation_fp32']:.4f} to {facts['accuracy_validation']:.4f}",
        "test": f"{before:.4f} to {after:.4f}" if after is not None else f"{before:.4f}",
        "size": f"{len(plain) / 1e3:.0f} to {facts['size_bytes'] / 1e3:.0f} kB",
        "form": f"{facts['plan']}; {facts['method']}",
    }


def attempt_row(attempt: dict[str, Any]) -> dict[str, str]:
    """A line of the table of attempts."""
    ratio, judged_on = attempt["latency_ratio"], attempt["accuracy_validation"]
    return {
        "what stays float": attempt["plan"][:70],
        "method": attempt["method"] or "",
        "latency ratio": "" if ratio is None else f"{ratio:.3f}",
        "low": "" if ratio is None else f"{attempt['latency_ratio_low']:.3f}",
        "high": "" if ratio is None else f"{attempt['latency_ratio_high']:.3f}",
        "accuracy": "" if judged_on is None else f"{judged_on:.4f}",
        "fp32": "" if judged_on is None else f"{attempt['accuracy_validation_fp32']:.4f}",
        "outcome": attempt["outcome"],
    }


if __name__ == "__main__":
    main()
